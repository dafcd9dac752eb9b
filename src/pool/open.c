/* Opening and closing a pool: its options, its cache, its owner. */
#include <errno.h>
#include <sys/stat.h>

#include "cache/cache.h"
#include "core/config.h"
#include "core/error.h"
#include "cache.h"
#include "disk/keeper.h"
#include "internal.h"
#include "recheck.h"
#include "refresh.h"
#include "succession_left.h"
#include "succession_mark.h"
#include "disk/tunables.h"
#include "owner/mounts.h"

/* Bit 1 << MODE for each mode that a disk may have. */
static unsigned modes_used(const struct disk_pool_options *options)
{
	g_auto(GStrv) groups = options->config ? g_key_file_get_groups(options->config, NULL) : NULL;
	unsigned used = 1u << options->mode;

	for (char **group = groups; group && *group; group++) {
		g_autofree char *text = g_key_file_get_string(options->config, *group, "mode", NULL);
		enum disk_mode mode;

		if (g_str_has_prefix(*group, "disk ") && text && disk_mode_from_name(text, &mode))
			used |= 1u << mode;
	}
	return used;
}

#define MODES_WITH_CACHE (1u << DISK_MODE_PERSISTENT | 1u << DISK_MODE_WRITEBACK)

static bool open_cache(struct disk_pool *pool, const struct disk_pool_options *options, GError **error)
{
	unsigned used = modes_used(options);
	struct pool_cache_options cache = {
		.pool = pool_place(pool),
		.cache = options->cache,
		.cache_size = options->cache_size,
		.keep = options->keep_cache,
		.tunables = pool->tunables,
	};

	if (used == 1u << DISK_MODE_DIRECT && !options->cache)
		return options->cache_size == 0 ||
		       error_set(error, EINVAL, "cache_size= is of a cache, and there is none: -o cache=FILE");
	for (enum disk_mode mode = DISK_MODE_DIRECT; mode <= DISK_MODE_WRITEBACK; mode++)
		if (used & 1u << mode & MODES_WITH_CACHE && !options->cache)
			return error_set(error, EINVAL, "mode %s needs a cache: -o cache=FILE, on fast local storage",
					 disk_mode_name(mode));
	pool->pool_cache = pool_cache_new(&cache, error);
	return pool->pool_cache;
}

/* A cache that lies in the pool, by whatever name, is not one of its disks. */
static void note_cache(struct disk_pool *pool, const struct disk_pool_options *options)
{
	struct stat st;

	if (options->cache && stat(options->cache, &st) == 0 && S_ISREG(st.st_mode))
		chain_roots_set_cache(pool->roots, &st);
}

/* What others left is swept only where this pool will write as well. */
static void init_owner(struct disk_pool *pool, const struct disk_pool_options *options)
{
	uint8_t cache_id[OWNER_ID_BYTES] = {0};
	g_autofree char *sealed = NULL;
	struct cache_status status;

	_Static_assert(OWNER_ID_BYTES == CACHE_ID_BYTES, "a cache's identity");
	_Static_assert(OWNER_MOUNTS == CACHE_MOUNTS, "a cache's mounts");
	if (pool->pool_cache)
		cache_get_id(pool->pool_cache->cache, cache_id);
	owner_self_init(&pool->owner, options->cache, options->cache ? cache_id : NULL);
	if (pool->pool_cache) {
		cache_get_status(pool->pool_cache->cache, &status);
		owner_self_set_mounts(&pool->owner, status.generation, cache_get_mounts(pool->pool_cache->cache));
	}
	if (options->read_only || options->only_look || modes_used(options) == 1u << DISK_MODE_EPHEMERAL)
		return;
	sealed = g_build_filename(disk_pool_path(pool), SEALED_DIRECTORY, NULL);
	owner_sweep(disk_pool_path(pool));
	owner_sweep(sealed);
}

static bool look_first(struct disk_pool *pool, GError **error)
{
	LOCK_GUARD(&pool->scanning);
	return pool_look_locked(pool, SCAN_ALL, error);
}

struct disk_pool *disk_pool_open(const struct disk_pool_options *options, GError **error)
{
	struct disk_pool *pool = g_new0(struct disk_pool, 1);

	lock_init(&pool->scanning, LOCK_RANK_SCANNING);
	lock_init(&pool->lock, LOCK_RANK_POOL);
	condition_init(&pool->told);
	condition_init(&pool->resume.changed);
	condition_init(&pool->recheck.changed);
	list_init(&pool->resume.tries);
	pool->disks = g_hash_table_new_full(g_str_hash, g_str_equal, NULL, (GDestroyNotify)disk_unref);
	pool->names = names_new();
	pool->known = scan_known_new();
	pool->left = g_ptr_array_new_with_free_func((GDestroyNotify)g_ptr_array_unref);
	pool->failed = g_ptr_array_new_with_free_func(succession_free);
	pool->quiet = options->quiet;
	pool->stale_reads = options->stale_reads;
	pool->tunables = tunables_new(&options->tunables);
	pool->options = (struct scan_options){
		.glob = g_strdup(options->disks),
		.read_only = options->read_only,
		.config = options->config,
		.mode = options->mode,
		.withheld = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free),
	};
	pool->roots = chain_roots_new(options->path, options->layers, error);
	if (pool->roots && open_cache(pool, options, error)) {
		note_cache(pool, options);
		init_owner(pool, options);
		if ((options->read_only || options->only_look || options->keep_cache || pool_read_left(pool, error)) &&
		    look_first(pool, error) && disk_pool_resume(pool, error))
			return pool;
	}
	disk_pool_close(pool);
	return NULL;
}

/* With all others. */
static void close_keepers(struct pool_cache *pool_cache)
{
	struct disk *keeper;

	while (pool_cache && (keeper = keeper_take_first(pool_cache)))
		disk_unref(keeper);
}

bool disk_pool_stop(struct disk_pool *pool)
{
	GHashTable *disks;

	pool_stop_resuming(pool);
	room_stop(g_steal_pointer(&pool->room));
	pool_stop_rechecking(pool);
	lock_take(&pool->lock);
	disks = pool->disks;
	pool->disks = g_hash_table_new_full(g_str_hash, g_str_equal, NULL, (GDestroyNotify)disk_unref);
	lock_let_go(&pool->lock);
	g_hash_table_destroy(disks);
	disk_await_disposals();
	close_keepers(pool->pool_cache);
	return !pool->pool_cache || pool_cache_stop(pool->pool_cache);
}

int disk_pool_leave(struct disk_pool *pool, uint64_t patience_ns, uint64_t *left_bytes)
{
	struct cache_status status;
	int result;

	*left_bytes = 0;
	if (!pool->pool_cache)
		return 0;
	result = cache_leave(pool->pool_cache->cache, patience_ns);
	cache_get_status(pool->pool_cache->cache, &status);
	*left_bytes = status.dirty_blocks << BLOCK_SHIFT;
	return status.dirty_blocks > 0 ? result : 0;
}

void disk_pool_close(struct disk_pool *pool)
{
	if (!pool)
		return;
	pool_stop_resuming(pool);
	room_stop(g_steal_pointer(&pool->room));
	pool_await_look(pool);
	pool_stop_rechecking(pool);
	g_hash_table_destroy(pool->disks);
	disk_await_disposals();
	close_keepers(pool->pool_cache);
	pool_cache_free(pool->pool_cache);
	tunables_free(pool->tunables);
	owner_self_clear(&pool->owner);
	scan_known_free(pool->known);
	g_ptr_array_unref(pool->left);
	g_ptr_array_unref(pool->failed);
	g_hash_table_unref(pool->options.withheld);
	names_free(pool->names);
	chain_roots_unref(pool->roots);
	g_free(pool->options.glob);
	lock_destroy(&pool->scanning);
	lock_destroy(&pool->lock);
	condition_destroy(&pool->told);
	condition_destroy(&pool->resume.changed);
	condition_destroy(&pool->recheck.changed);
	g_clear_error(&pool->trouble);
	g_free(pool->broken);
	g_free(pool->foreign);
	g_free(pool->broken_then);
	g_free(pool->notes);
	g_free(pool);
}
