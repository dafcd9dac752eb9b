/* The I/O queue: every read, write and flush of an image or cache file.
 *
 * One queue per loop, used from that loop's thread only. Requests gather while
 * the loop takes its turn and are submitted together at the end of it: what is
 * adjacent in one file and direction becomes one preadv or pwritev. More than
 * the context holds waits inside the queue and is never refused; nor do one file, or
 * many of one store, take all of it (core/shares.h).
 *
 * Errors: what the table of errors (core/verdict.h) has tried again is, with
 * growing spaces, until io_timeout has passed; everything else goes up at once. A short result is
 * continued from where it stopped; when a merged call fails its members are
 * tried one by one, so that only the part that is bad fails. A request older
 * than 10 s is reported: the first of a file, and that it answers again, in the log. */
#ifndef LEAFDISK_AIO_QUEUE_H
#define LEAFDISK_AIO_QUEUE_H

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "aio/request.h"
#include "core/loop.h"

struct aio_queue;

/* Zero: the default. */
struct aio_limits {
	unsigned depth;		/* calls under way at once; default 256; one file alone gets half */
	bool many_stores;	/* of one store; others have as many again */
	uint64_t io_timeout_ns; /* default 120 s */
};

/* LIMITS NULL: the defaults. Where io_setup is refused, a warning says what to
 * raise (fs.aio-max-nr) and background threads do the I/O instead. NULL and
 * ERROR set only when descriptors or memory run out. */
struct aio_queue *aio_queue_new(struct loop *loop, const struct aio_limits *limits, GError **error);
/* The queue must be empty; not from inside a callback. NULL is allowed. */
void aio_queue_free(struct aio_queue *queue);

struct loop *aio_queue_loop(struct aio_queue *queue);

void aio_submit(struct aio_queue *queue, struct aio_request *request);
/* Hands what has gathered to the kernel now instead of at the end of the turn. Not on a
 * loop that is relayed. */
void aio_unplug(struct aio_queue *queue);
/* Fails every request on FILE that neither the kernel nor a background thread
 * has yet with -ECANCELED, through its callback and later; the others finish
 * as usual. */
void aio_cancel(struct aio_queue *queue, const struct aio_file *file);
/* Requests that have not called back. */
unsigned aio_in_flight(const struct aio_queue *queue);
/* Runs the loop until no request is left. From outside callbacks only. */
void aio_drain(struct aio_queue *queue);

#endif
