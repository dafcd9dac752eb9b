/* What the disks of a pool share to use its cache. */
#include "cache.h"

#include "cache/cache.h"
#include "core/log.h"
#include "disk/overflow.h"
#include "migrate/migrator.h"
#include "pool/pool.h"

static bool open_cache(struct local *local, const struct local_options *options, GError **error)
{
	struct cache_options cache = {
		.path = options->cache,
		.size_bytes = options->cache_size,
		.pool_path = options->pool->path,
	};

	if (!disk_pool_read_id(options->pool->path, cache.pool_id, error))
		return false;
	local->cache = cache_open(&cache, error);
	return local->cache && cache_start(local->cache, error);
}

struct local *local_new(const struct local_options *options, GError **error)
{
	struct local *local = g_new0(struct local, 1);

	fetches_init(&local->fetches);
	backlogs_init(&local->backlogs);
	local->tunables = options->tunables;
	local->pool = options->pool;
	if (open_cache(local, options, error)) {
		overflow_sweep(local->pool);
		local_tune(local);
		local->migrator = migrator_new(local, error);
	}
	if (local->migrator)
		return local;
	local_free(local);
	return NULL;
}

void local_tune(struct local *local)
{
	struct disk_tunables values;

	tunables_get(local->tunables, &values);
	local->copy_on_read = values.copy_on_read;
	local->read_run_bypass = values.read_run_bypass;
	cache_set_limits(local->cache, values.max_dirty >> BLOCK_SHIFT, values.barrier_deadline_ms * 1000 * 1000);
	migrate_kick(local);
}

bool local_stop(struct local *local)
{
	struct cache_status status;
	int result;

	if (local->stopped)
		return true;
	local->stopped = true;
	/* Its thread may have the last reference to a disk, which goes by it. */
	migrator_free(local->migrator);
	local->migrator = NULL;
	result = local->cache ? cache_stop(local->cache) : 0;
	overflow_sweep(local->pool);
	if (result == 0)
		return true;
	cache_get_status(local->cache, &status);
	if (status.dirty_blocks == 0) {
		log_warning("the cache could not be written at the end (%s); what it lost will be read again",
			    g_strerror(-result));
		return true;
	}
	log_error("the cache could not be written at the end (%s): the last of the changes that stay in it may be lost",
		  g_strerror(-result));
	return false;
}

void local_free(struct local *local)
{
	if (!local)
		return;
	(void)local_stop(local);
	cache_close(local->cache);
	fetches_clear(&local->fetches);
	backlogs_clear(&local->backlogs);
	g_free(local);
}
