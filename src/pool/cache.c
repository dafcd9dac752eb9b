/* What the disks of a pool share to use its cache. */
#include "cache.h"

#include "cache/cache.h"
#include "core/log.h"
#include "layer/overflow.h"
#include "migrate/migrator.h"
#include "pool/pool.h"

static bool open_cache(struct pool_cache *pool_cache, const struct pool_cache_options *options, GError **error)
{
	struct cache_options cache = {
		.path = options->cache,
		.size_bytes = options->cache_size,
		.pool_path = options->pool->path,
		.keep = options->keep,
	};

	if (!disk_pool_read_id(options->pool->path, cache.pool_id, error))
		return false;
	pool_cache->cache = cache_open(&cache, error);
	return pool_cache->cache && cache_start(pool_cache->cache, error);
}

struct pool_cache *pool_cache_new(const struct pool_cache_options *options, GError **error)
{
	struct pool_cache *pool_cache = g_new0(struct pool_cache, 1);

	fetches_init(&pool_cache->fetches);
	backlogs_init(&pool_cache->backlogs);
	list_init(&pool_cache->keepers);
	pool_cache->tunables = options->tunables;
	pool_cache->pool = options->pool;
	if (open_cache(pool_cache, options, error)) {
		overflow_sweep(pool_cache->pool);
		pool_cache_tune(pool_cache);
		pool_cache->migrator = migrator_new(pool_cache, error);
	}
	if (pool_cache->migrator)
		return pool_cache;
	pool_cache_free(pool_cache);
	return NULL;
}

void pool_cache_tune(struct pool_cache *pool_cache)
{
	struct disk_tunables values;

	tunables_get(pool_cache->tunables, &values);
	pool_cache->copy_on_read = values.copy_on_read;
	pool_cache->read_run_bypass = values.read_run_bypass;
	cache_set_limits(pool_cache->cache, blocks_of(values.max_dirty), values.barrier_deadline_ms * 1000 * 1000);
	pool_cache_kick(pool_cache);
}

bool pool_cache_stop(struct pool_cache *pool_cache)
{
	struct cache_status status;
	int result;

	if (pool_cache->stopped)
		return true;
	pool_cache->stopped = true;
	/* Its thread may have the last reference to a disk, which goes by it. */
	migrator_free(pool_cache->migrator);
	pool_cache->migrator = NULL;
	result = pool_cache->cache ? cache_stop(pool_cache->cache) : 0;
	overflow_sweep(pool_cache->pool);
	if (result == 0)
		return true;
	cache_get_status(pool_cache->cache, &status);
	if (status.dirty_blocks == 0) {
		log_warning("the cache could not be written at the end (%s); what it lost will be read again",
			    g_strerror(-result));
		return true;
	}
	log_error("the cache could not be written at the end (%s): the last of the changes that stay in it may be lost",
		  g_strerror(-result));
	return false;
}

void pool_cache_free(struct pool_cache *pool_cache)
{
	if (!pool_cache)
		return;
	(void)pool_cache_stop(pool_cache);
	cache_close(pool_cache->cache);
	fetches_clear(&pool_cache->fetches);
	backlogs_clear(&pool_cache->backlogs);
	g_free(pool_cache);
}
