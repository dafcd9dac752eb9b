/* Loops whose thread is replaced while it stands in the kernel.
 *
 * A call that is to return at once may not: io_submit() sleeps while its file system
 * is frozen, its device takes no more, or another holds the inode. A loop that is
 * relayed says when it is in such a call. If that takes long, another thread runs
 * the loop from the next turn on, as if the call had been made elsewhere; the thread
 * that comes back finds that out and must not touch the loop any more. */
#ifndef LEAFDISK_CORE_RELAY_H
#define LEAFDISK_CORE_RELAY_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/loop.h"
#include "core/thread.h"

struct relay;

/* Calls RUN on a thread of its own, of that NAME (15 characters) and KIND, which runs LOOP
 * until it is to stop. RUN is called again, with the loop as it is, on the thread that
 * takes over, and returns on the last of them alone: what it does before and after is to
 * hold for each thread. NULL and ERROR: there is no thread. */
struct relay *relay_start(struct loop *loop, const char *name, enum thread_kind kind, void (*run)(void *opaque),
			  void *opaque, GError **error);
/* Waits until RUN has returned, and frees. Not on a loop. NULL is allowed. */
void relay_join(struct relay *relay);

/* A call that may take long, of the thread that runs LOOP. */
struct relay_call {
	struct relay *relay;
	uint64_t number;
};
/* CALL begins: in a source's dispatch() or prepare(), with no lock held, and with all
 * that the loop's callbacks use as it is between two of them. */
void relay_leave(struct loop *loop, struct relay_call *call);
/* CALL is over. False: the loop is another thread's. This one may post to the loop,
 * while what it posts for keeps that alive, and is to end by relay_end_thread(). */
bool relay_return(const struct relay_call *call);
void relay_end_thread(void) __attribute__((noreturn));

#endif
