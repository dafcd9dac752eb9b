/* How a disk is: its mode, its state and why. */
#include <string.h>

#include "cache/cache.h"
#include "cache/layer.h"
#include "core/time.h"
#include "disk/object.h"
#include "layer/claim.h"
#include "layer/share.h"
#include "disk/route.h"

static void set_degraded(struct disk_status *status, const char *reason, struct timespec since)
{
	status->state = "degraded";
	status->since = since;
	g_strlcpy(status->reason, reason, sizeof(status->reason));
}

/* An earlier mount's changes, of an image that could not be opened for them. */
static void set_left(struct disk *disk, struct disk_status *status)
{
	status->dirty_bytes = disk_left_in_cache(disk) << BLOCK_SHIFT;
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

	if (strcmp(status->state, "active") != 0 || !disk->open || !lock_try(&disk->open_lock))
		return;
	told = !disk->open || tell_trouble(disk->leaf->image, status) || tell_trouble(disk->leaf->overflow, status);
	for (unsigned layer = 0; !told && layer < stack_depth(disk->stack); layer++)
		told = tell_trouble(stack_layer(disk->stack, layer)->image, status);
	lock_let_go(&disk->open_lock);
}

/* False: what is dirty of it is not the migrator's. */
static bool tell_backlog(struct disk *disk, struct disk_status *status)
{
	struct backlog_status backlog;

	backlog_get_status(disk->leaf, &backlog);
	if (backlog.state == LAYER_CLEAN)
		return false;
	status->dirty_bytes = backlog.dirty_blocks << BLOCK_SHIFT;
	status->dirty_ns = backlog.oldest_ns ? loop_now_ns() - backlog.oldest_ns : 0;
	if (layer_state_is_final(backlog.state))
		status->state = "failed";
	else if (backlog.state == LAYER_AWAY || backlog.state == LAYER_RETRYING)
		status->state = "degraded";
	else if (disk->mode != DISK_MODE_WRITEBACK)
		status->state = "draining";
	if (backlog.reason[0])
		g_strlcpy(status->reason, backlog.reason, sizeof(status->reason));
	if (backlog.reason[0] || !status->since.tv_sec)
		status->since = backlog.since;
	return true;
}

static void get_status(struct disk *disk, struct disk_status *status)
{
	struct cache_layer_status layer;
	struct cache_status cache;

	if (!disk->pool_cache)
		return;
	cache_get_status(disk->pool_cache->cache, &cache);
	if (cache.state == CACHE_SUSPENDED && disk->mode != DISK_MODE_DIRECT)
		set_degraded(status, cache.reason, cache.since);
	if (tell_backlog(disk, status))
		return;
	LOCK_GUARD(&disk->open_lock);
	if (!disk->open && cache.dirty_blocks > 0)
		set_left(disk, status);
	if (disk->leaf->cached) {
		cache_layer_get_status(disk->leaf->cached, &layer);
		status->since = layer.since;
		if (layer.state == CACHE_LAYER_DEGRADED)
			set_degraded(status, layer.reason, layer.since);
	} else if (disk->open && disk->mode == DISK_MODE_PERSISTENT) {
		set_degraded(status,
			     "the cache does not take its leaf: another image has the same UUID, or its "
			     "changes could not be told",
			     (struct timespec){0});
	}
}

void disk_get_status(struct disk *disk, struct disk_status *status)
{
	*status = (struct disk_status){.mode = disk_mode_name(disk->mode), .state = "active"};
	get_status(disk, status);
	add_trouble(disk, status);
}

uint64_t disk_left_in_cache(struct disk *disk)
{
	g_autoptr(GPtrArray) links = disk_get_links(disk);

	return share_left_of_link(links->pdata[0], disk->pool_cache);
}

char *disk_get_owner(struct disk *disk)
{
	g_autoptr(GPtrArray) links = disk_get_links(disk);

	return claim_describe(disk->leaf, links->pdata[0]);
}
