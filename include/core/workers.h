/* Work handed to background threads. */
#ifndef LEAFDISK_CORE_WORKERS_H
#define LEAFDISK_CORE_WORKERS_H

#include <glib.h>
#include <stdbool.h>

#include "core/loop.h"

struct share;

/* What steps wait for, told apart by its address. */
struct loop_file {
	uint64_t store; /* any number: files that have the same one may hang together */
};

/* Background work: WORK runs on a background thread, then DONE on the loop.
 * FILE tells apart what a step waits for: those of one file, or of the files of one
 * store, do not take all threads. NULL: a file like others. It is there as long as the work. */
struct loop_work {
	void (*work)(struct loop_work *work);
	void (*done)(struct loop_work *work);
	const struct loop_file *file;
	/* The workers'. */
	struct loop *loop;
	struct loop_task task;
	struct list link;
	struct share *share;
};

/* Makes sure of one background thread of each kind, so that no work waits for
 * want of any. A program that serves calls it before, and after its fork. */
bool loop_start_workers(GError **error);

/* Hands WORK to a background thread; both from the loop's own thread. What a
 * thread of each kind may do: core/thread.h.
 *   step   blocking system calls. The number of threads is bounded; steps wait
 *          their turn, and for nothing but the kernel. Those that hang are made up
 *          for by other threads.
 *   wait   what may wait for locks, gates, requests and steps. A thread for
 *          each; where the kernel gives none the first that is free, in the
 *          order of the calls. */
void loop_offload_step(struct loop *loop, struct loop_work *work);
void loop_offload_wait(struct loop *loop, struct loop_work *work);

/* The work alone, on a thread of that kind, for who need not hear of its end: DONE is
 * not called, and no loop has to be there by then. Any thread. */
void loop_offload_step_apart(struct loop_work *work);
void loop_offload_wait_apart(struct loop_work *work);

#endif
