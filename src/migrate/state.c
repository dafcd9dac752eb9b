/* Changes of a disk's state that its migration brings.
 *
 * A disk goes AWAY from a suspended cache once nothing of it is dirty, and
 * comes back when the cache works again. It is FAILED when a block of it cannot
 * be read any more, or when another has taken its image over. Each change is made
 * with the disk's open_lock, behind its closed gate; one look decides that it is
 * wanted, and another, with the lock, that it still is. */
#include "state.h"

#include "core/log.h"
#include "core/time.h"
#include "disk/route.h"
#include "layer/backlog_locked.h"
#include "note.h"

/* How long the gate may take to close, and when that is tried again. */
#define GATE_PATIENCE_US (500 * 1000)
#define GATE_PAUSE_NS (5 * NS_PER_S)

bool state_try_close(struct disk *disk)
{
	bool closed = gate_try_close(&disk->gate, GATE_PATIENCE_US);

	if (!closed)
		note_pause(disk->leaf, GATE_PAUSE_NS);
	return closed;
}

/* Before its share goes, or where that did not go after all. */
static void set_away(struct layer *leaf, bool away, const char *reason)
{
	struct backlogs *backlogs = &leaf->pool_cache->backlogs;
	struct backlog *backlog = &leaf->backlog;
	enum layer_state back;

	LOCK_GUARD(&backlogs->lock);
	back = backlog->failures ? LAYER_RETRYING : LAYER_DIRTY;
	backlog_set_state_locked(backlog, away ? LAYER_AWAY : back);
	backlog_set_reason_locked(backlog, reason);
}

static void leave_cache(struct look *look, struct disk *disk, GError **error)
{
	if (backlog_is_needed(disk->leaf))
		return;
	set_away(disk->leaf, true, look->cache.reason);
	if (route_flee_cache(disk, look->cache.reason, error))
		log_disk(EVENT_WARNING, disk->name, "%s: goes on without the cache; all its changes are in the pool",
			 disk->name);
	else
		set_away(disk->leaf, false, "");
}

static void enter_cache(struct disk *disk, GError **error)
{
	if (route_enter_writeback(disk, error))
		log_disk(EVENT_WARNING, disk->name, "%s: uses the cache again", disk->name);
}

static void work_behind_gate(struct look *look, struct disk *disk, enum work work)
{
	g_autoptr(GError) error = NULL;

	if (!state_try_close(disk))
		return;
	if (work == WORK_END)
		route_fail(disk, backlog_get_state(disk->leaf) == LAYER_LOST);
	else if (work == WORK_TO_POOL)
		leave_cache(look, disk, &error);
	else if (work == WORK_TO_CACHE)
		enter_cache(disk, &error);
	else if (!backlog_is_needed(disk->leaf))
		(void)route_leave_writeback(disk, &error);
	gate_open(&disk->gate);
	if (error)
		note_error(disk->leaf, error);
}

void state_work(struct disk *disk, enum work work)
{
	struct look look;

	if (!lock_try(&disk->open_lock))
		return;
	look_refresh(&look, disk->pool_cache);
	if (policy_choose_state(&look, disk) == work) {
		if (work == WORK_CLOSE)
			disk_close_unused(disk);
		else
			work_behind_gate(&look, disk, work);
	}
	lock_let_go(&disk->open_lock);
}
