/* The gate before a disk: closed, no request is in work, and what comes waits.
 *
 * What a disk is made of (its route, its images, its layer in the cache) is
 * constant while requests are in work; it is changed behind a closed gate. A
 * request that finds that it cannot go on as the disk is now goes back before
 * the gate and begins anew when the gate opens the next time.
 *
 * So does one that waits for the migrator, for room or until nothing is dirty, which may
 * be the one that closes the gate. It waits by gate_wait_on():
 *   1. it looks: a gate that is closing, or has ended, is not waited behind;
 *   2. it begins to wait;
 *   3. it looks again. Who closes the gate counts that first and then wakes all who wait
 *      (`closing`), so a wait that is not woken has begun late enough to see it here. */
#ifndef LEAFDISK_DISK_GATE_H
#define LEAFDISK_DISK_GATE_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/list.h"
#include "core/lock.h"

/* Guarded by `lock`. Requests are told by their nodes, which are on no list while they
 * are in work. */
struct gate {
	/* Constant. */
	struct lock *lock;
	const _Atomic bool *ended;
	void (*begin)(struct list *node);
	void (*closing)(struct gate *gate);

	unsigned closings;  /* open: 0 */
	unsigned active;    /* requests in work */
	struct list parked; /* in order of arrival */
	struct condition changed;
};

/* LOCK and ENDED (NULL: never) are borrowed. BEGIN has a request that was parked begin
 * anew: on its own thread, LOCK is held. CLOSING wakes those who wait by gate_wait_on();
 * nothing is locked. */
void gate_init(struct gate *gate, struct lock *lock, const _Atomic bool *ended, void (*begin)(struct list *node),
	       void (*closing)(struct gate *gate));
void gate_clear(struct gate *gate);

/* ---- Requests. They do not block ----------------------------------------- */

/* The lock is held. NODE's may begin. False: it is parked, and begins when the gate opens. */
bool gate_enter_locked(struct gate *gate, struct list *node);
/* The lock is held: a request is no longer in work. */
void gate_leave_locked(struct gate *gate);
/* NODE's, which holds nothing any more, goes back before the gate. Nobody waits behind
 * one that has ended: it begins anew. */
void gate_park(struct gate *gate, struct list *node);
/* Waits for who may be closing the gate: ENQUEUE begins to wait, WAKE wakes all who do.
 * False: the gate is closing or has ended, and neither was called. */
bool gate_wait_on(struct gate *gate, void (*enqueue)(void *opaque), void (*wake)(void *opaque), void *opaque);
/* Nobody is waited for any more. */
bool gate_has_ended(const struct gate *gate);

/* ---- Who only looks ------------------------------------------------------- */

/* Between these two it is in work. Blocks while the gate is closed. */
void gate_wait(struct gate *gate);
void gate_leave(struct gate *gate);

/* ---- Who changes the disk ------------------------------------------------- */

/* Blocks until no request is in work, so from a thread that may wait (THREAD_WAITER),
 * which holds nothing that a request needs. Nests. */
void gate_close(struct gate *gate);
/* As long as GO_ON, which is asked several times a second, says so; false: it
 * is open, as it was. */
bool gate_close_while(struct gate *gate, bool (*go_on)(void *opaque), void *opaque);
/* Closes it if that takes no longer than PATIENCE_US; false: it stays open, for a
 * request in work that a store does not answer is not to hold up the others. */
bool gate_try_close(struct gate *gate, int64_t patience_us);
void gate_open(struct gate *gate);

bool gate_has_parked(struct gate *gate);
/* Parked requests begin anew, as far as the gate is open. */
void gate_release(struct gate *gate);

#endif
