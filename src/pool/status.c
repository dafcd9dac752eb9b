/* The cache of a pool as text. */
#include "cache/cache.h"
#include "cache/layer.h"
#include "core/log.h"
#include "dirty.h"
#include "internal.h"

static void add_size(GString *text, const char *key, uint64_t bytes)
{
	g_string_append_printf(text, "%s: %" G_GUINT64_FORMAT "\n", key, bytes);
}

static void add_state(GString *text, const struct cache_status *status)
{
	bool suspended = status->state == CACHE_SUSPENDED, removed = !suspended && status->removed.tv_sec;
	time_t seconds = removed ? status->removed.tv_sec : status->since.tv_sec;
	g_autoptr(GDateTime) since = g_date_time_new_from_unix_utc(seconds);
	g_autofree char *when = since ? g_date_time_format_iso8601(since) : NULL;

	g_string_append_printf(text, "state: %s\n", suspended ? "suspended" : removed ? "removed" : "active");
	if (seconds)
		g_string_append_printf(text, "since: %s\n", when);
	if (suspended)
		g_string_append_printf(text, "reason: %s\n", status->reason);
	else if (removed)
		g_string_append(
			text, "reason: its file was removed: what it alone has is lost should the daemon or this host "
			      "fail\n");
}

struct left {
	struct disk_pool *pool;
	GString *text;
	GPtrArray *disks;
};

/* What somebody called a file may be anything. */
static void add_escaped(GString *text, const char *value)
{
	for (; *value; value++) {
		if (g_ascii_iscntrl(*value) || *value == '\\')
			g_string_append_printf(text, "\\%03o", (unsigned char)*value);
		else
			g_string_append_c(text, *value);
	}
}

static void add_left(void *opaque, const struct cache_layer_dirty *dirty)
{
	struct left *left = opaque;
	struct disk *disk = pool_find_dirty(left->disks, dirty);
	g_autofree char *size = config_format_size(dirty->dirty_blocks << BLOCK_SHIFT);
	g_autofree char *text = disk ? NULL : pool_nameless_text(left->pool, dirty);
	struct disk_status status;

	if (disk) {
		disk_get_status(disk, &status);
		text = g_strdup_printf("%s: %s", dirty->name, status.reason);
	}
	g_string_append_printf(left->text, "left: %s of ", size);
	add_escaped(left->text, text);
	g_string_append_c(left->text, '\n');
}

static void add_all_left(struct disk_pool *pool, GString *text)
{
	g_autoptr(GPtrArray) disks = disk_pool_shown(pool);
	struct left left = {pool, text, disks};

	cache_layer_foreach_dirty(pool->pool_cache->cache, false, add_left, &left);
}

bool disk_pool_cache_is_removed(struct disk_pool *pool)
{
	return pool->pool_cache && cache_is_removed(pool->pool_cache->cache);
}

char *disk_pool_cache_text(struct disk_pool *pool)
{
	struct pool_cache *pool_cache = pool->pool_cache;
	GString *text = pool_cache ? g_string_new(NULL) : NULL;
	struct cache_status status;

	if (!pool_cache)
		return NULL;
	cache_look_soon(pool_cache->cache);
	cache_get_status(pool_cache->cache, &status);
	add_state(text, &status);
	add_size(text, "size_bytes", status.size_bytes);
	add_size(text, "segments", status.segments);
	add_size(text, "free_segments", status.free_segments);
	add_size(text, "head_segment", status.head_segment);
	add_size(text, "tail_segment", status.tail_segment);
	add_size(text, "generation", status.generation);
	add_size(text, "sequence", status.sequence);
	add_size(text, "cached_bytes", status.cached_blocks << BLOCK_SHIFT);
	add_size(text, "pinned_bytes", status.pinned_blocks << BLOCK_SHIFT);
	add_size(text, "pinned_bytes_max", status.pinned_blocks_max << BLOCK_SHIFT);
	add_size(text, "dirty_bytes", status.dirty_blocks << BLOCK_SHIFT);
	add_size(text, "dirty_bytes_max", status.dirty_blocks_max << BLOCK_SHIFT);
	add_size(text, "memory_bytes", cache_memory_bytes(pool_cache->cache));
	add_all_left(pool, text);
	return g_string_free(text, FALSE);
}
