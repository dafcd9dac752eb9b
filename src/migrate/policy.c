/* What the migrator does next, and when.
 *
 * When a disk's dirty blocks go:
 *     urged     somebody drains it
 *     suspended the cache fails: everything goes that can be read
 *     short     the log has little room, and this disk holds its oldest end
 *     full      dirty bytes are past migrate_threshold of what is allowed, or those of
 *               this disk of what it may have
 *     old       the oldest is older than max_dirty_age
 *     idle      neither writes to the cache nor reads from the pool for
 *               migrate_idle_ms
 * Only whole epochs go. All but `idle` and `full` may end one for that; the last
 * close of a disk has ended one too.
 *
 * What is above a sealed layer goes when that one is clean: the chain of images is at every
 * moment what the disk was at some barrier.
 *
 * Changes of a disk's state come before its batches. One that failed, or whose
 * gate could not be closed, waits for its time to be tried again. */
#include "policy.h"

#include <stdatomic.h>

#include "core/time.h"
#include "layer/backlog_locked.h"
#include "disk/route.h"

void look_refresh(struct look *look, struct pool_cache *pool_cache)
{
	look->pool_cache = pool_cache;
	tunables_get(pool_cache->tunables, &look->tunables);
	cache_get_status(pool_cache->cache, &look->cache);
	look->now_ns = loop_now_ns();
	look->next_ns = UINT64_MAX;
}

void look_again(struct look *look, uint64_t at_ns)
{
	look->next_ns = MIN(look->next_ns, at_ns);
}

/* ---- Batches --------------------------------------------------------------- */

/* What images do not take now is room that nobody has. */
static bool is_full(const struct look *look, const struct cache_dirty *dirty)
{
	uint64_t max = look->cache.dirty_blocks_max, kept = look->cache.dirty_blocks;

	kept -= MIN(kept, look->going);
	return look->going * 100 >= (max - MIN(max, kept)) * look->tunables.migrate_threshold ||
	       dirty->share_percent >= look->tunables.migrate_threshold;
}

/* Whether LAYER's dirty blocks are to go now, and with *CUT an epoch ended for it. */
static bool is_wanted(struct look *look, struct layer *layer, const struct cache_dirty *dirty, bool *cut)
{
	uint64_t last_io_ns = atomic_load_explicit(&layer->pool_cache->last_io_ns, memory_order_relaxed);
	uint64_t old_ns = dirty->oldest_ns + look->tunables.max_dirty_age * NS_PER_S;
	uint64_t idle_ns = last_io_ns + look->tunables.migrate_idle_ms * NS_PER_MS;

	*cut = true;
	if (layer->backlog.urged || layer->backlog.wanted || !list_is_empty(&layer->backlog.waiters) ||
	    look->cache.state == CACHE_SUSPENDED || look->now_ns >= old_ns)
		return true;
	if (look->cache.short_of_room && dirty->distance == look->oldest)
		return true;
	look_again(look, old_ns);
	*cut = is_full(look, dirty);
	if (*cut)
		return true;
	*cut = false;
	if (dirty->has_barrier && look->now_ns >= idle_ns)
		return true;
	if (dirty->has_barrier)
		look_again(look, idle_ns);
	return false;
}

/* LAYER is to go, and AFTER goes first. Who waits for LAYER is told where that one fails. */
static void want_first_locked(struct look *look, struct layer *layer, struct layer *after)
{
	const char *reason;
	int error;

	lock_assert_mine(&look->pool_cache->backlogs.lock);
	if (!after->backlog.wanted)
		look_again(look, look->now_ns);
	after->backlog.wanted = true;
	error = backlog_get_error_locked(&after->backlog, &reason);
	if (error)
		backlog_answer_drains_locked(&layer->backlog, error);
}

static bool wants_batch_locked(struct look *look, struct layer *layer, bool *cut)
{
	struct backlog *backlog = &layer->backlog;
	struct layer *after = backlog_waits_for_locked(backlog);
	struct cache_dirty dirty;

	lock_assert_mine(&look->pool_cache->backlogs.lock);
	if (backlog->state != LAYER_DIRTY && backlog->state != LAYER_RETRYING)
		return false;
	backlog_get_dirty_locked(layer, &dirty);
	if (dirty.oldest_ns == 0) {
		backlog_answer_drains_locked(backlog, 0);
		return false;
	}
	if (backlog->retry_at_ns > look->now_ns) {
		look_again(look, backlog->retry_at_ns);
		return false;
	}
	if (!is_wanted(look, layer, &dirty, cut))
		return false;
	if (after)
		want_first_locked(look, layer, after);
	return !after && backlog->held == 0;
}

/* ---- States ---------------------------------------------------------------- */

static enum work change_of_state_locked(const struct look *look, const struct disk *disk, bool dirty)
{
	bool suspended = look->cache.state == CACHE_SUSPENDED;
	enum layer_state state = disk->leaf->backlog.state;

	lock_assert_mine(&look->pool_cache->backlogs.lock);
	if (disk->keeper)
		return WORK_NONE;
	if (layer_state_is_final(state))
		return WORK_END;
	if (state == LAYER_AWAY && !suspended)
		return WORK_TO_CACHE;
	if (state != LAYER_AWAY && suspended && !dirty)
		return WORK_TO_POOL;
	if (disk->route == &route_writeback && disk->mode != DISK_MODE_WRITEBACK && !dirty)
		return WORK_LEAVE;
	return WORK_NONE;
}

/* With its open_lock too: route and images are not being changed. */
static enum work choose_state_locked(struct look *look, struct disk *disk)
{
	const struct backlog *backlog = &disk->leaf->backlog;
	struct cache_dirty dirty;
	enum work work;

	lock_assert_mine(&look->pool_cache->backlogs.lock);
	if (!disk->open || disk->route == &route_failed)
		return WORK_NONE;
	backlog_get_dirty_locked(disk->leaf, &dirty);
	work = change_of_state_locked(look, disk, dirty.oldest_ns != 0);
	if (work != WORK_NONE && backlog->retry_at_ns > look->now_ns) {
		look_again(look, backlog->retry_at_ns);
		work = WORK_NONE;
	}
	if (work == WORK_NONE && !layer_state_is_final(backlog->state) && disk->opens == 0 && dirty.oldest_ns == 0 &&
	    !dirty.owed)
		work = WORK_CLOSE;
	return work;
}

enum work policy_choose_state(struct look *look, struct disk *disk)
{
	struct backlogs *backlogs = &disk->pool_cache->backlogs;

	LOCK_GUARD(&backlogs->lock);
	return choose_state_locked(look, disk);
}

enum work policy_choose_locked(struct look *look, struct disk *disk, bool open_locked, bool *cut)
{
	enum work work = open_locked ? choose_state_locked(look, disk) : WORK_NONE;

	lock_assert_mine(&look->pool_cache->backlogs.lock);
	if (!open_locked)
		look_again(look, look->now_ns + LOOK_AGAIN_NS);
	if (work != WORK_NONE)
		return work;
	return wants_batch_locked(look, disk->leaf, cut) ? WORK_BATCH : WORK_NONE;
}

void policy_release_locked(struct look *look, struct disk *disk)
{
	bool suspended = look->cache.state == CACHE_SUSPENDED;
	enum layer_state state = disk->leaf->backlog.state;

	lock_assert_mine(&look->pool_cache->backlogs.lock);
	if (layer_state_is_final(state) || !gate_has_parked(&disk->gate))
		return;
	if ((state == LAYER_AWAY) == suspended)
		gate_release(&disk->gate);
	else
		look_again(look, look->now_ns + LOOK_AGAIN_NS);
}
