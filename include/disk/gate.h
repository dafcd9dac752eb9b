/* The gate before a disk: closed, no request is in work, and what comes waits.
 *
 * What a disk is made of (its route, its images, its layer in the cache) is
 * constant while requests are in work; it is changed behind a closed gate. A
 * request that finds that it cannot go on as the disk is now goes back before
 * the gate and begins anew when the gate opens the next time. So does one that
 * waits for the migrator, which may be the one that closes the gate. */
#ifndef LEAFDISK_DISK_GATE_H
#define LEAFDISK_DISK_GATE_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/list.h"
#include "core/loop.h"

struct disk;
struct disk_io;

/* Guarded by the disk's `lock`. */
struct gate {
	unsigned closings;  /* open: 0 */
	unsigned active;    /* requests in work */
	struct list parked; /* disk_io by link, in order of arrival */
	GCond changed;
	void (*begin)(struct loop_task *task);
	void (*closing)(struct disk *disk);
};

/* BEGIN begins a disk_io anew, by its task and on its loop. CLOSING sends those back
 * before the gate that wait for what may be closing it; nothing is locked. */
void gate_init(struct gate *gate, void (*begin)(struct loop_task *task), void (*closing)(struct disk *disk));
void gate_clear(struct gate *gate);

/* IO may begin. False: it is parked, and begins when the gate opens. */
bool gate_enter(struct disk_io *io);
/* For who only looks at the disk, and may wait: between these two it is in work. */
void gate_wait(struct disk *disk);
void gate_leave(struct disk *disk);
/* The disk's lock is held: a request is no longer in work. */
void gate_leave_locked(struct disk *disk);
/* IO, which holds nothing any more, goes back before the gate. */
void gate_park(struct disk_io *io);
bool gate_has_parked(struct disk *disk);
/* Who has begun to wait for the migrator looks, and goes back if so. */
bool gate_is_closing(struct disk *disk);

/* Blocks until no request is in work, so from a thread that may wait (THREAD_WAITER),
 * which holds nothing that a request needs. Nests. */
void gate_close(struct disk *disk);
/* As long as GO_ON, which is asked several times a second, says so; false: it
 * is open, as it was. */
bool gate_close_while(struct disk *disk, bool (*go_on)(void *opaque), void *opaque);
void gate_open(struct disk *disk);
/* Closes it if that takes no longer than PATIENCE_US; false: it stays open, for a
 * request in work that a store does not answer is not to hold up the others. */
bool gate_try_close(struct disk *disk, int64_t patience_us);
/* Parked requests begin anew, as far as the gate is open. */
void gate_release(struct disk *disk);

#endif
