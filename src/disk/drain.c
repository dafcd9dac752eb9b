/* Drains, and modes that change while a disk is in use.
 *
 * A drain waits for what is dirty when it begins. What a guest writes meanwhile
 * would keep it for ever; it goes as well, but who waits is not told of it. */
#include <errno.h>

#include "core/error.h"
#include "core/log.h"
#include "core/thread.h"
#include "image/children.h"
#include "disk/keeper.h"
#include "disk/object.h"
#include "disk/saved.h"
#include "disk/route.h"

/* How often who drains is asked whether to go on. */
#define ASK_US (100 * 1000)

/* ---- One disk --------------------------------------------------------------- */

/* While it is open: its lock may be held. */
static uint64_t dirty_bytes_of_open(struct disk *disk)
{
	g_autoptr(layer_held) leaf = disk_hold_leaf(disk);
	struct backlog_status status;

	backlog_get_status(leaf, &status);
	return status.dirty_blocks << BLOCK_SHIFT;
}

#define EVERYTHING UINT64_MAX

/* With what was put before UNTIL_NS; also where it never will be clean. */
static bool is_dirty(struct layer *leaf, uint64_t until_ns)
{
	struct backlog_status status;

	if (!leaf->pool_cache)
		return false;
	backlog_get_status(leaf, &status);
	if (layer_state_is_final(backlog_get_state(leaf)))
		return true;
	return status.oldest_ns && (until_ns == EVERYTHING || status.oldest_ns < until_ns);
}

/* Until it is clean, or FAILED for a while; or GO_ON says no. */
static int wait_until_clean(struct disk *disk, struct layer *leaf, uint64_t until_ns,
			    bool (*go_on)(void *opaque, uint64_t dirty_bytes), void *opaque, GError **error)
{
	while (is_dirty(leaf, until_ns)) {
		g_autofree char *reason = NULL;
		int result = backlog_get_error(leaf, &reason);

		if (result < 0)
			return error_set(error, -result, "%s: its changes stay in the cache: %s", disk->name, reason),
			       result;
		if (go_on && !go_on(opaque, dirty_bytes_of_open(disk)))
			return error_set(error, EINTR, "%s: given up; what is left stays in the cache", disk->name),
			       -EINTR;
		g_usleep(ASK_US);
	}
	return 0;
}

static int drain_until(struct disk *disk, uint64_t until_ns, bool (*go_on)(void *opaque, uint64_t dirty_bytes),
		       void *opaque, GError **error)
{
	g_autoptr(layer_held) leaf = disk_hold_leaf(disk);
	int result;

	if (!is_dirty(leaf, until_ns))
		return 0;
	backlog_urge(leaf, 1);
	result = wait_until_clean(disk, leaf, until_ns, go_on, opaque, error);
	backlog_urge(leaf, -1);
	return result;
}

/* What it stands on, and the cache still has something of. */
static int drain_sealed(struct disk *disk, bool (*go_on)(void *opaque, uint64_t dirty_bytes), void *opaque,
			GError **error)
{
	g_autoptr(GPtrArray) links = disk_get_links(disk);
	int result = 0;

	for (guint i = links->len; i-- > 1 && result == 0;) {
		struct disk *keeper = keeper_find(disk->pool_cache, links->pdata[i]);

		if (keeper)
			result = drain_until(keeper, EVERYTHING, go_on, opaque, error);
		disk_unref(keeper);
	}
	return result;
}

int disk_open_dirty(struct disk *disk, GError **error)
{
	return disk_open(disk, !disk->writable, error);
}

int disk_drain_open(struct disk *disk, bool (*go_on)(void *opaque, uint64_t dirty_bytes), void *opaque, GError **error)
{
	return drain_until(disk, loop_now_ns(), go_on, opaque, error);
}

int disk_drain(struct disk *disk, bool (*go_on)(void *opaque, uint64_t dirty_bytes), void *opaque, GError **error)
{
	int result = 0;

	thread_assert_may_wait();
	if (!disk->pool_cache)
		return 0;
	if (!disk->open && disk_left_in_cache(disk)) {
		result = disk_open_dirty(disk, error);
		if (result == 0)
			(void)disk_close(disk);
	}
	if (result == 0)
		result = drain_sealed(disk, go_on, opaque, error);
	return result < 0 ? result : disk_drain_open(disk, go_on, opaque, error);
}

/* ---- Modes ------------------------------------------------------------------ */

/* An ephemeral disk may be of an image that has children. */
static bool may_be_written(struct disk *disk, GError **error)
{
	g_autoptr(GPtrArray) links = disk_resolve(disk, error);
	const struct chain_link *leaf = links ? links->pdata[0] : NULL;

	if (leaf && leaf->info.children)
		return image_children_refuse(leaf->path, leaf->info.children, error);
	return leaf && (!disk->parent || error_set(error, EROFS, "%s: another image depends on it", disk->name));
}

/* A mount that begins as an ephemeral one makes a cache for itself; one that is there has no place for it any more. */
static bool refuse_without_cache(struct disk *disk, enum disk_mode mode, GError **error)
{
	return error_set(error, EINVAL,
			 "%s: mode %s needs a cache: mount the pool with %s-o cache=FILE, on fast local storage",
			 disk->name, disk_mode_name(mode),
			 mode == DISK_MODE_EPHEMERAL ? "-o mode=ephemeral, which makes one for itself, or with " : "");
}

static bool may_change(struct disk *disk, enum disk_mode mode, GError **error)
{
	if (!disk->writable)
		return error_set(error, EROFS, "%s: is read-only, in any mode", disk->name);
	if (disk->forked && mode != DISK_MODE_EPHEMERAL)
		return error_set(error, EBUSY,
				 "%s: is a fork of an ephemeral disk: the image that it stands on is another disk's",
				 disk->name);
	if (mode != DISK_MODE_EPHEMERAL && disk->mode == DISK_MODE_EPHEMERAL && !may_be_written(disk, error))
		return false;
	if (mode != DISK_MODE_DIRECT && !disk->pool_cache)
		return refuse_without_cache(disk, mode, error);
	if (mode != disk->mode && (mode == DISK_MODE_EPHEMERAL || disk->mode == DISK_MODE_EPHEMERAL) &&
	    (disk->open || disk->leaf->cached || disk_has_own(disk)))
		return error_set(error, EBUSY,
				 "%s: an ephemeral disk's changes are nobody else's: it enters and leaves that mode "
				 "only before its first use in a mount",
				 disk->name);
	return true;
}

struct change {
	struct disk *disk;
	bool (*go_on)(void *opaque, uint64_t dirty_bytes);
	void *opaque;
};

static bool change_goes_on(void *opaque)
{
	const struct change *change = opaque;

	return !change->go_on || change->go_on(change->opaque, dirty_bytes_of_open(change->disk));
}

/* Behind the closed gate, so that nothing new comes. */
static bool drain_closed(struct change *change, GError **error)
{
	struct disk *disk = change->disk;
	int result;

	if (!disk->pool_cache)
		return true;
	backlog_lend_image(disk->leaf, true);
	result = drain_until(disk, EVERYTHING, change->go_on, change->opaque, error);
	backlog_lend_image(disk->leaf, false);
	return result == 0;
}

static bool drain_and_change(struct change *change, enum disk_mode mode, GError **error)
{
	struct disk *disk = change->disk;
	enum disk_mode before = disk->mode;
	bool good = drain_closed(change, error);

	disk->mode = mode;
	if (good)
		good = route_change(disk, error);
	if (!good)
		disk->mode = before;
	return good;
}

static bool change_open(struct change *change, enum disk_mode mode, GError **error)
{
	struct disk *disk = change->disk;
	bool good;

	if (!gate_close_while(&disk->gate, change_goes_on, change))
		return error_set(error, EINTR, "%s: given up while requests have no answer yet; its mode stays %s",
				 disk->name, disk_mode_name(disk->mode));
	good = drain_and_change(change, mode, error);
	gate_open(&disk->gate);
	return good;
}

int disk_set_mode(struct disk *disk, enum disk_mode mode, bool (*go_on)(void *opaque, uint64_t dirty_bytes),
		  void *opaque, GError **error)
{
	struct change change = {disk, go_on, opaque};
	g_autoptr(GError) inner = NULL;
	int result = mode == DISK_MODE_WRITEBACK ? 0 : disk_drain(disk, go_on, opaque, error);

	if (result < 0)
		return result;
	lock_take(&disk->open_lock);
	if (may_change(disk, mode, &inner) && mode != disk->mode && (!disk->open || change_open(&change, mode, &inner)))
		disk->mode = mode;
	lock_let_go(&disk->open_lock);
	if (!inner)
		return 0;
	result = error_to_errno(inner);
	g_propagate_error(error, g_steal_pointer(&inner));
	return result;
}
