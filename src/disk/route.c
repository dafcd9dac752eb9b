/* Where a disk's writes go: from one mode to another, while it is open.
 *
 *     direct, persistent -> writeback   the cache's log has durably what came before, and the
 *                                       generation of what is dirty; then the pool's record has it;
 *                                       then the image is marked as written
 *     direct -> away                    the cache fails, and nothing of the disk is in it:
 *                                       it begins where a flight ends
 *     writeback -> direct, persistent   nothing is dirty, and the image is flushed
 *     writeback -> direct (flight)      likewise; the pool's record gets a new
 *                                       generation, so what the failing cache may
 *                                       show again after a restart is void
 *     any -> failed                     for as long as the disk is open */
#include "disk/route.h"

#include <errno.h>

#include "core/error.h"
#include "cache/cache.h"
#include "layer/claim.h"
#include "layer/seal.h"
#include "layer/share.h"
#include "disk/object.h"

static bool wants_cache(const struct disk *disk)
{
	return disk->pool_cache && (disk->mode == DISK_MODE_PERSISTENT || disk->mode == DISK_MODE_WRITEBACK);
}

static void open_mirror(struct disk *disk, bool writable)
{
	if (wants_cache(disk))
		share_open(disk->leaf, writable);
	disk->route = disk->leaf->cached ? &route_persistent : &route_direct;
	layer_check(disk->leaf);
}

static bool begin_image(struct disk *disk, GError **error)
{
	const struct layer *leaf = disk->leaf;
	int result = image_begin_writing(leaf->image, leaf->owner ? leaf->claim.nonce : NULL);

	return result == 0 ||
	       error_set_errno(error, -result, "%s: its image cannot be made ready for writing", disk->name);
}

static bool check_share(void *opaque, const struct owner_last *last, struct owner_claim *claim, GError **error)
{
	(void)claim;
	return share_allows(opaque, last, error);
}

static bool claim(struct disk *disk, enum disk_mode mode, GError **error)
{
	return claim_take(disk->leaf, disk_mode_name(mode), check_share, error);
}

/* ---- Into writeback -------------------------------------------------------- */

static bool open_dirty_share(void *opaque, const struct owner_last *last, struct owner_claim *claim, GError **error)
{
	return share_open_dirty(opaque, last, claim, error);
}

/* What was dirty of the image before it was written without the cache is not to be taken for
 * dirty of the claim that goes on: the log says that it is over before the record says
 * writeback again. */
static bool is_over_before(struct disk *disk, GError **error)
{
	int result = disk->leaf->image->begun ? cache_settle(disk->pool_cache->cache) : 0;

	return result == 0 ||
	       error_set_errno(error, -result, "%s: the cache cannot record that the pool has all of it", disk->name);
}

bool route_enter_writeback(struct disk *disk, GError **error)
{
	struct layer *leaf = disk->leaf;

	if (disk->route == &route_writeback)
		return true;
	share_close(leaf, layer_flush_image(leaf, NULL));
	if (!is_over_before(disk, error) ||
	    !claim_take(leaf, disk_mode_name(DISK_MODE_WRITEBACK), open_dirty_share, error) ||
	    !begin_image(disk, error)) {
		share_close(leaf, false);
		open_mirror(disk, leaf->image->begun);
		return false;
	}
	disk->route = &route_writeback;
	backlog_attach(leaf);
	return true;
}

/* The cache fails. REASON: a sentence. */
static bool is_cache_away(const struct disk *disk, char reason[256])
{
	struct cache_status cache;

	cache_get_status(disk->pool_cache->cache, &cache);
	g_strlcpy(reason, cache.reason, 256);
	return cache.state == CACHE_SUSPENDED;
}

static bool begin_away(struct disk *disk, const char *reason, GError **error)
{
	share_close(disk->leaf, false);
	if (!claim(disk, DISK_MODE_DIRECT, error) || !begin_image(disk, error))
		return false;
	disk->route = &route_direct;
	backlog_attach_away(disk->leaf, reason);
	return true;
}

/* Where the cache fails the disk goes without it, unless some of its blocks are there
 * alone. */
static bool begin_writeback(struct disk *disk, GError **error)
{
	g_autoptr(GError) inner = NULL;
	char reason[256];

	if (route_enter_writeback(disk, &inner))
		return true;
	if (is_cache_away(disk, reason) && share_left(disk->leaf) == 0)
		return begin_away(disk, reason, error);
	g_propagate_error(error, g_steal_pointer(&inner));
	return false;
}

/* Who reads what is old has asked for that. */
static bool is_share_settled(struct disk *disk, GError **error)
{
	if (share_left(disk->leaf) > 0)
		return claim_look(disk->leaf, share_disown, error);
	return disk->old == OLD_SHOWN || share_is_there(disk->leaf, error);
}

/* Nothing is written yet in writeback: the layer is only read. */
bool route_open(struct disk *disk, GError **error)
{
	if (!is_share_settled(disk, error))
		return false;
	if (share_left(disk->leaf) == 0) {
		open_mirror(disk, disk->leaf->image->writable && disk->mode != DISK_MODE_WRITEBACK);
		return true;
	}
	disk->route = &route_direct;
	if (disk->leaf->image->writable)
		return route_enter_writeback(disk, error);
	return error_set(
		error, EBUSY,
		"%s: the cache has changes of it that are not in the pool yet, and its image cannot be written "
		"to bring them there",
		disk->name);
}

bool route_is_begun(const struct disk *disk)
{
	return disk->route == &route_ephemeral || disk->route == &route_failed || disk->leaf->image->begun;
}

bool route_identify(struct disk *disk)
{
	if (route_is_begun(disk) || share_left(disk->leaf) > 0 || !claim_identify(disk->leaf))
		return false;
	share_close(disk->leaf, false);
	open_mirror(disk, disk->mode != DISK_MODE_WRITEBACK);
	return true;
}

bool route_begin_writing(struct disk *disk, GError **error)
{
	if (route_is_begun(disk))
		return true;
	if (disk->mode == DISK_MODE_WRITEBACK)
		return begin_writeback(disk, error);
	return claim(disk, disk->mode, error) && begin_image(disk, error);
}

/* ---- Out of it ------------------------------------------------------------- */

bool route_leave_writeback(struct disk *disk, GError **error)
{
	if (disk->route != &route_writeback)
		return true;
	if (!layer_flush_image(disk->leaf, error) || !claim(disk, disk->mode, error))
		return false;
	(void)backlog_detach(disk->leaf);
	share_close(disk->leaf, true);
	open_mirror(disk, true);
	return true;
}

/* Direct and persistent differ in the layers of the whole chain: those are
 * opened anew. */
bool route_change(struct disk *disk, GError **error)
{
	bool written = disk->leaf->image->begun;

	if (!route_leave_writeback(disk, error))
		return false;
	if (disk->mode == DISK_MODE_WRITEBACK && written)
		return route_enter_writeback(disk, error);
	if (!layer_flush_image(disk->leaf, error) || (written && !claim(disk, disk->mode, error)))
		return false;
	/* One that is AWAY does not go back to the cache. */
	(void)backlog_detach(disk->leaf);
	share_close(disk->leaf, true);
	open_mirror(disk, written);
	return true;
}

bool route_flee_cache(struct disk *disk, const char *reason, GError **error)
{
	if (!layer_flush_image(disk->leaf, error) || !claim(disk, DISK_MODE_DIRECT, error))
		return false;
	share_abandon(disk->leaf, reason);
	disk->route = &route_direct;
	return true;
}

/* Of a lost image not even what is left to commit is written. */
static void give_up_leaf(struct layer *leaf)
{
	share_orphan(leaf);
	leaf->image->failed = true;
	(void)layer_close_image(leaf);
}

void route_fail(struct disk *disk, bool lost)
{
	disk->route = &route_failed;
	disk->refusing = false;
	if (lost)
		give_up_leaf(disk->leaf);
}

/* With dirty blocks left, also where their claim went wrong halfway, the record
 * stays unclean, and the layer keeps what it has. The order of a clean end: the image
 * is durable, then the log knows that, then the record says so. */
static bool settle(struct disk *disk)
{
	bool good = disk->route != &route_failed && !share_is_dirty(disk->leaf) && layer_flush_image(disk->leaf, NULL);

	if (good && share_settle(disk->leaf))
		good = claim_release(disk->leaf);
	return good;
}

void route_close(struct disk *disk)
{
	bool lost = backlog_detach(disk->leaf) == LAYER_LOST;

	if (disk->refusing)
		route_fail(disk, lost);
	share_close(disk->leaf, settle(disk));
}

/* Those on it keep its image and its share. */
void route_close_sealed(struct disk *disk)
{
	bool lost = layer_state_is_final(backlog_detach(disk->leaf));

	if (!lost && settle(disk))
		seal_complete(disk->leaf);
	layer_put(disk->leaf);
}

void route_discard_sealed(struct disk *disk)
{
	(void)backlog_detach(disk->leaf);
	share_discard(disk->leaf);
	layer_put(disk->leaf);
}
