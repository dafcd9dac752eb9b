/* The background threads behind loop_offload_step() and loop_offload_wait(). */
#ifndef LEAFDISK_CORE_WORKERS_H
#define LEAFDISK_CORE_WORKERS_H

#include <stdbool.h>

#include "core/loop.h"

struct workers;

extern struct workers workers_steps;
extern struct workers workers_waiters;

/* Makes sure that one thread exists. 0 or a negative errno. Any thread. */
int workers_ensure(struct workers *workers);

/* Queues WORK, whose loop is set: its work() runs on a background thread, then
 * its task is posted to its loop, if that is not NULL. False, and nothing is queued: there is no
 * thread, and none can be had. Never blocks. Any thread; allocates next to
 * nothing, and only to start a thread. */
bool workers_submit(struct workers *workers, struct loop_work *work);

#endif
