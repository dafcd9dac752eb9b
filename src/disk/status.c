/* How a disk is: its mode, its state and why. */
#include <errno.h>
#include <string.h>
#include <time.h>

#include "cache/cache.h"
#include "cache/layer.h"
#include "core/config.h"
#include "core/time.h"
#include "disk/object.h"
#include "disk/pause.h"
#include "layer/claim.h"
#include "layer/key.h"
#include "layer/share.h"
#include "disk/route.h"

static void set_degraded(struct disk_status *status, const char *reason, struct timespec since)
{
	status->state = "degraded";
	status->since = since;
	g_strlcpy(status->reason, reason, sizeof(status->reason));
}

bool disk_note_left(struct disk *disk, const char *reason)
{
	LOCK_GUARD(&disk->lock);
	if (g_strcmp0(disk->left, reason) == 0)
		return false;
	g_free(disk->left);
	disk->left = g_strdup(reason);
	clock_gettime(CLOCK_REALTIME, &disk->left_since);
	return true;
}

char *disk_get_left(struct disk *disk)
{
	LOCK_GUARD(&disk->lock);
	return g_strdup(disk->left);
}

/* Once it is claimed for us nothing of it is elsewhere. */
static void tell_elsewhere(struct disk *disk, struct disk_status *status)
{
	LOCK_GUARD(&disk->lock);
	if (disk->elsewhere && disk->leaf->claim.generation == 0)
		set_degraded(status, disk->elsewhere, (struct timespec){0});
}

/* An earlier mount's changes, of an image that could not be opened for them. */
static void set_left(struct disk *disk, struct disk_status *status)
{
	g_autoptr(GPtrArray) links = disk_get_links(disk);
	g_autofree char *loss = share_loss_as_found(links->pdata[0], disk->pool_cache);
	g_autofree char *reason = NULL;

	status->dirty_bytes = share_left_as_found(links->pdata[0], disk->pool_cache) << BLOCK_SHIFT;
	if (status->dirty_bytes == 0)
		return;
	LOCK_GUARD(&disk->lock);
	reason = g_strconcat("the cache has changes of it that go to the pool when it can be opened for writing "
			     "(leafctl drain tries it)",
			     disk->left ? ": " : NULL, disk->left, NULL);
	set_degraded(status, reason, disk->left ? disk->left_since : (struct timespec){0});
	if (loss) {
		status->state = "failed";
		g_snprintf(status->reason, sizeof(status->reason), "%s; leafctl cache dump saves what there is", loss);
	}
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

static bool tell_layer(const struct layer *layer, struct disk_status *status)
{
	return tell_trouble(layer->image, status) || tell_trouble(layer->overflow, status);
}

/* The store of one of its images hangs, or fails. */
static void tell_images(struct disk *disk, struct disk_status *status)
{
	bool told = tell_layer(disk->leaf, status);

	for (unsigned layer = 0; !told && layer < stack_depth(disk->stack); layer++)
		told = tell_layer(stack_layer(disk->stack, layer), status);
}

void disk_note_full(struct disk *disk)
{
	if (!disk->full_since)
		disk->full_since = time(NULL);
}

/* For each change that succeeds: it writes to what all loops read only where it has to. */
void disk_note_room(struct disk *disk)
{
	if (disk->full_since)
		disk->full_since = 0;
}

static void tell_full(struct disk *disk, struct disk_status *status)
{
	time_t since = disk->full_since;

	if (!since)
		return;
	status->state = "failing";
	status->since = (struct timespec){.tv_sec = since};
	g_snprintf(status->reason, sizeof(status->reason), "a write failed: %s; make room in %s", g_strerror(ENOSPC),
		   chain_roots_pool(disk->roots)->path);
}

/* False: what is dirty of it is not the migrator's. */
static bool tell_backlog(struct disk *disk, struct disk_status *status)
{
	g_autoptr(layer_held) leaf = disk_hold_leaf(disk);
	struct backlog_status backlog;

	backlog_get_status(leaf, &backlog);
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

/* The layer of a keeper that is closed is that of the disks on it, which may be closing it. */
static void tell_share(struct disk *disk, struct disk_status *status)
{
	struct cache_layer_status layer;

	if (disk->keeper && !disk->open)
		return;
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

/* All is well, and there is more to say. */
static void tell_set_aside(struct disk *disk, struct disk_status *status)
{
	g_autoptr(GPtrArray) links = disk_get_links(disk);
	uint8_t identity[CACHE_ID_BYTES];
	struct cache_layer_found found;
	g_autofree char *size = NULL;

	layer_identity_of(links->pdata[0], NULL, identity);
	if (!cache_layer_find_orphan(disk->pool_cache->cache, identity, &found))
		return;
	size = config_format_size(found.dirty_blocks << BLOCK_SHIFT);
	g_snprintf(status->reason, sizeof(status->reason),
		   "the cache has %s of changes of it that are set aside: %s; leafctl cache info lists them, cache "
		   "dump saves and cache purge forgets them",
		   size, found.orphan_text);
}

/* All is well for as long as nothing fails. */
static void tell_removed(struct disk *disk, struct disk_status *status)
{
	struct cache_status cache;

	if (!disk->pool_cache || disk->mode != DISK_MODE_WRITEBACK)
		return;
	cache_get_status(disk->pool_cache->cache, &cache);
	if (cache.removed.tv_sec)
		set_degraded(
			status,
			"the cache's file was removed: what it alone has is lost should the daemon or this host fail; "
			"leafctl drain brings that to the pool; then unmount, and mount again",
			cache.removed);
}

/* False: what the cache has of the disk is still to be told. */
static bool tell_cache(struct disk *disk, struct disk_status *status)
{
	struct cache_status cache;

	if (!disk->pool_cache)
		return true;
	cache_get_status(disk->pool_cache->cache, &cache);
	if (cache.state == CACHE_SUSPENDED && disk->mode != DISK_MODE_DIRECT)
		set_degraded(status, cache.reason, cache.since);
	if (tell_backlog(disk, status))
		return true;
	if (!disk->open && (cache.dirty_blocks > 0 || cache.incomplete_layers > 0))
		set_left(disk, status);
	return false;
}

static bool is_active(const struct disk_status *status)
{
	return strcmp(status->state, "active") == 0;
}

static void remember(struct disk *disk, const struct disk_status *status)
{
	LOCK_GUARD(&disk->lock);
	if (!disk->told)
		disk->told = g_new(struct disk_status, 1);
	*disk->told = *status;
}

/* Who opens, closes or changes the disk may do so for as long as a store does not
 * answer: it is as it was. */
static void recall(struct disk *disk, struct disk_status *status)
{
	LOCK_GUARD(&disk->lock);
	if (!disk->told || !is_active(status))
		return;
	status->state = disk->told->state;
	status->since = disk->told->since;
	g_strlcpy(status->reason, disk->told->reason, sizeof(status->reason));
}

static void tell_all(struct disk *disk, struct disk_status *status)
{
	bool told = tell_cache(disk, status);

	if (!lock_try(&disk->open_lock)) {
		recall(disk, status);
		return;
	}
	if (!told)
		tell_share(disk, status);
	if (disk->open && is_active(status))
		tell_full(disk, status);
	if (disk->open && is_active(status))
		tell_images(disk, status);
	if (is_active(status))
		tell_removed(disk, status);
	if (is_active(status))
		tell_elsewhere(disk, status);
	if (disk->pool_cache && is_active(status) && !status->reason[0])
		tell_set_aside(disk, status);
	lock_let_go(&disk->open_lock);
	remember(disk, status);
}

/* ---- Paused --------------------------------------------------------------------- */

/* What there is to say besides. g_free. */
static char *besides(const struct disk_status *status)
{
	if (!is_active(status))
		return g_strdup_printf("; besides it is %s%s%s", status->state, status->reason[0] ? ": " : "",
				       status->reason);
	return g_strconcat(status->reason[0] ? "; " : "", status->reason, NULL);
}

static void set_paused(struct disk_status *status, const struct disk_holder *first, unsigned held)
{
	g_autofree char *more = besides(status), *who = disk_holder_text(first);
	g_autofree char *others = held > 1 ? g_strdup_printf(" and %u more", held - 1) : g_strdup("");

	status->state = "paused";
	status->since = first->since;
	g_snprintf(status->reason, sizeof(status->reason),
		   "its requests wait, as %s%s hold%s them back; leafctl resume ends that%s", who, others,
		   held > 1 ? "" : "s", more);
}

/* Whatever it is otherwise: that is why its users wait. */
static void tell_paused(struct disk *disk, struct disk_status *status)
{
	g_autoptr(GArray) holders = disk_get_holders(disk);
	const struct disk_holder *first = NULL;
	unsigned held = 0;

	for (guint i = holders->len; i-- > 0;) {
		const struct disk_holder *holder = &g_array_index(holders, struct disk_holder, i);

		first = holder->held ? holder : first;
		held += holder->held;
	}
	if (first)
		set_paused(status, first, held);
}

void disk_get_status(struct disk *disk, struct disk_status *status)
{
	*status = (struct disk_status){.mode = disk_mode_name(disk->mode), .state = "active"};
	tell_all(disk, status);
	tell_paused(disk, status);
}

uint64_t disk_left_in_cache(struct disk *disk)
{
	g_autoptr(GPtrArray) links = disk_get_links(disk);

	return share_left_of_link(links->pdata[0], disk->pool_cache);
}

char *disk_get_owner(struct disk *disk)
{
	g_autoptr(GPtrArray) links = disk_get_links(disk);
	g_autoptr(layer_held) leaf = disk_hold_leaf(disk);

	return claim_describe(leaf, links->pdata[0]);
}

/* Memory knows more of a claim of this mount than what was found. open_lock is held. */
static void note_claim(struct disk *disk)
{
	bool claimed = disk->leaf->claim.generation > 0;

	LOCK_GUARD(&disk->lock);
	if (claimed == (g_strcmp0(disk->owner, CLAIM_HERE) == 0))
		return;
	g_free(disk->owner);
	disk->owner = g_strdup(claimed ? CLAIM_HERE : CLAIM_NOBODY);
}

char *disk_recall_owner(struct disk *disk)
{
	if (lock_try(&disk->open_lock)) {
		note_claim(disk);
		lock_let_go(&disk->open_lock);
	}
	LOCK_GUARD(&disk->lock);
	return g_strdup(disk->owner);
}
