/* Modes: their names, what they share, and what they show of themselves. */
#include "names.h"

#include <string.h>

#include "core/config.h"
#include "core/log.h"
#include "disk/pool.h"
#include "disk/overflow.h"
#include "disk/route.h"
#include "disk/tunables.h"

#define NS_PER_S UINT64_C(1000000000)

const char disk_mode_names[] = "direct|persistent|ephemeral|writeback";

const char *disk_mode_name(enum disk_mode mode)
{
	static const char *const names[] = {"direct", "persistent", "ephemeral", "writeback"};

	return names[mode];
}

bool disk_mode_from_name(const char *text, enum disk_mode *mode)
{
	for (*mode = DISK_MODE_DIRECT; *mode <= DISK_MODE_WRITEBACK; (*mode)++)
		if (strcmp(text, disk_mode_name(*mode)) == 0)
			return true;
	return false;
}

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
	g_free(local);
}

static void set_degraded(struct disk_status *status, const char *reason, struct timespec since)
{
	status->state = "degraded";
	status->since = since;
	g_strlcpy(status->reason, reason, sizeof(status->reason));
}

/* An earlier mount's changes, of an image that could not be opened for them. */
static void set_left(struct disk *disk, struct disk_status *status)
{
	status->dirty_bytes = route_left_in_cache(disk) << BLOCK_SHIFT;
	if (status->dirty_bytes > 0)
		set_degraded(status,
			     "the cache has changes of it that go to the pool when it can be opened for writing",
			     (struct timespec){0});
}

/* False: all is well with IMAGE; NULL: there is none. */
static bool tell_trouble(struct image *image, struct disk_status *status)
{
	struct image_trouble trouble;

	if (!image || !image_get_trouble(image, &trouble))
		return false;
	clock_gettime(CLOCK_REALTIME, &status->since);
	status->since.tv_sec -= (time_t)((loop_now_ns() - trouble.since_ns) / NS_PER_S);
	status->state = trouble.waiting ? "waiting" : "failing";
	if (trouble.waiting)
		g_snprintf(status->reason, sizeof(status->reason), "%s: %u requests have no answer", image->path,
			   trouble.waiting);
	else
		g_snprintf(status->reason, sizeof(status->reason), "%s: %s", image->path, g_strerror(-trouble.error));
	return true;
}

/* The store of one of its images hangs, or fails, and nothing else is the matter. */
static void add_trouble(struct disk *disk, struct disk_status *status)
{
	bool told;

	if (strcmp(status->state, "active") != 0 || !disk->open || !g_mutex_trylock(&disk->open_lock))
		return;
	told = !disk->open || tell_trouble(disk->leaf, status) || tell_trouble(disk->overflow, status);
	for (unsigned layer = 0; !told && layer < stack_depth(disk->stack); layer++)
		told = tell_trouble(stack_layer(disk->stack, layer), status);
	g_mutex_unlock(&disk->open_lock);
}

static void get_status(struct disk *disk, struct disk_status *status)
{
	struct cache_layer_status layer;
	struct cache_status cache;

	if (!disk->local)
		return;
	cache_get_status(disk->local->cache, &cache);
	if (cache.state == CACHE_SUSPENDED && disk->mode != DISK_MODE_DIRECT)
		set_degraded(status, cache.reason, cache.since);
	if (migrate_get_status(disk, status))
		return;
	g_mutex_lock(&disk->open_lock);
	if (!disk->open && cache.dirty_blocks > 0)
		set_left(disk, status);
	if (disk->cached) {
		cache_layer_get_status(disk->cached, &layer);
		status->since = layer.since;
		if (layer.state == CACHE_LAYER_DEGRADED)
			set_degraded(status, layer.reason, layer.since);
	} else if (disk->open && disk->mode == DISK_MODE_PERSISTENT) {
		set_degraded(status,
			     "the cache does not take its leaf: another image has the same UUID, or its "
			     "changes could not be told",
			     (struct timespec){0});
	}
	g_mutex_unlock(&disk->open_lock);
}

void disk_get_status(struct disk *disk, struct disk_status *status)
{
	*status = (struct disk_status){.mode = disk_mode_name(disk->mode), .state = "active"};
	get_status(disk, status);
	add_trouble(disk, status);
}

static void add_size(GString *text, const char *key, uint64_t bytes)
{
	g_string_append_printf(text, "%s: %" G_GUINT64_FORMAT "\n", key, bytes);
}

static void add_state(GString *text, const struct cache_status *status)
{
	g_autoptr(GDateTime) since = g_date_time_new_from_unix_utc(status->since.tv_sec);
	g_autofree char *when = since ? g_date_time_format_iso8601(since) : NULL;

	g_string_append_printf(text, "state: %s\n", status->state == CACHE_ACTIVE ? "active" : "suspended");
	if (status->since.tv_sec)
		g_string_append_printf(text, "since: %s\n", when);
	if (status->state == CACHE_SUSPENDED)
		g_string_append_printf(text, "reason: %s\n", status->reason);
}

char *disk_pool_cache_text(struct disk_pool *pool)
{
	struct local *local = disk_pool_local(pool);
	GString *text = local ? g_string_new(NULL) : NULL;
	struct cache_status status;

	if (!local)
		return NULL;
	cache_get_status(local->cache, &status);
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
	add_size(text, "memory_bytes", status.memory_bytes);
	return g_string_free(text, FALSE);
}
