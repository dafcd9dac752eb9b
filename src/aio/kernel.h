/* The libaio context of a queue. */
#ifndef LEAFDISK_AIO_KERNEL_H
#define LEAFDISK_AIO_KERNEL_H

#include <libaio.h>
#include <stdbool.h>
#include <stdint.h>

struct aio_ring;

struct kernel_context {
	io_context_t id;       /* NULL: not open */
	struct aio_ring *ring; /* NULL: completions come from io_getevents */
	int event_fd;	       /* the owner's; counts completions */
	int64_t unread;	       /* completions reaped and not yet read from event_fd */
};

/* 0 or a negative errno. CONTEXT->event_fd is set, the rest zero. */
int kernel_open(struct kernel_context *context, unsigned depth);
/* NULL-safe on a context that is not open. Nothing may be in flight. */
void kernel_close(struct kernel_context *context);

/* Hands COUNT (> 0) calls over, which are to signal event_fd. Returns how many
 * the kernel took, from the first, or a negative errno about the first one. */
int kernel_submit(struct kernel_context *context, struct iocb **iocbs, unsigned count);
/* Up to MAX completions, without a system call where the ring can be read. */
unsigned kernel_reap(struct kernel_context *context, struct io_event *events, unsigned max);
/* Before sleeping on event_fd: takes back the signals of what was reaped.
 * False: completions wait whose signal is taken; reap again first. */
bool kernel_quiet(struct kernel_context *context);

#endif
