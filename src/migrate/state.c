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
#include "note.h"

/* How long the gate may take to close, and when that is tried again. */
#define GATE_PATIENCE_US (500 * 1000)
#define GATE_PAUSE_NS (5 * NS_PER_S)

bool state_try_close(struct disk *disk)
{
	bool closed = gate_try_close(disk, GATE_PATIENCE_US);

	if (!closed)
		note_pause(disk, GATE_PAUSE_NS);
	return closed;
}

/* Before its layer goes, and after it has come. */
static void set_away(struct look *look, struct disk *disk, bool away)
{
	struct backlogs *backlogs = &disk->pool_cache->backlogs;

	g_mutex_lock(&backlogs->lock);
	if (disk->migration.away != away)
		backlog_set_reason_locked(&disk->migration, away ? look->cache.reason : "");
	disk->migration.away = away;
	g_mutex_unlock(&backlogs->lock);
}

/* The disk goes away from the cache, or comes back. */
static void change_route(struct look *look, struct disk *disk, bool away, GError **error)
{
	bool done = false;

	if (!away)
		done = route_enter_writeback(disk, error);
	else if (!migrate_is_needed(disk)) {
		set_away(look, disk, true);
		done = route_flee_cache(disk, look->cache.reason, error);
	}
	set_away(look, disk, done == away);
	if (done) {
		log_warning("%s: %s", disk->name,
			    away ? "goes on without the cache; all its changes are in the pool"
				 : "uses the cache again");
	}
}

static void work_behind_gate(struct look *look, struct disk *disk, enum work work)
{
	g_autoptr(GError) error = NULL;

	if (!state_try_close(disk))
		return;
	if (work == WORK_END)
		route_fail(disk, disk->migration.lost);
	else if (work == WORK_TO_POOL || work == WORK_TO_CACHE)
		change_route(look, disk, work == WORK_TO_POOL, &error);
	else if (!migrate_is_needed(disk))
		(void)route_leave_writeback(disk, &error);
	gate_open(disk);
	if (error)
		note_error(disk, error);
}

void state_work(struct disk *disk, enum work work)
{
	struct look look;

	if (!g_mutex_trylock(&disk->open_lock))
		return;
	look_refresh(&look, disk->pool_cache);
	if (policy_choose_state(&look, disk) == work) {
		if (work == WORK_CLOSE)
			disk_close_unused(disk);
		else
			work_behind_gate(&look, disk, work);
	}
	g_mutex_unlock(&disk->open_lock);
}
