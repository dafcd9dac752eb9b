/* The background threads behind loop_offload(). */
#ifndef LEAFDISK_CORE_WORKERS_H
#define LEAFDISK_CORE_WORKERS_H

#include "core/loop.h"

/* Queues WORK, whose loop is set: its work() runs on a background thread, then
 * its task is posted to its loop. Starts a thread when all are occupied and
 * there may be more. Never blocks, unless no thread at all can be started:
 * then the work is done here. Any thread; allocates nothing. */
void workers_submit(struct loop_work *work);

#endif
