/* libaio: submission, and completions reaped from the mapped ring.
 *
 * io_setup() returns the address at which the kernel maps the completion ring
 * (fs/aio.c, struct aio_ring). The kernel writes an event and then the tail; we
 * read the tail (acquire), the events, and then write the head (release), which
 * is all that io_getevents() does. The layout is told by its magic; incompatible
 * features or another magic mean io_getevents().
 *
 * Every completion is counted in event_fd after it is in the ring. The loop
 * sleeps on event_fd, so what was reaped must be taken out of the counter or
 * the sleep ends at once, and only that, or a completion is slept through.
 * `unread` is the difference: while it is positive a read is due (the kernel may
 * still be between the ring and the counter, then the read finds nothing and
 * comes again at the next sleep); once it is negative the read took the signal
 * of a completion that is still in the ring. */
#include "kernel.h"

#include <errno.h>
#include <unistd.h>

#include "core/fault.h"

#define RING_MAGIC 0xa10a10a1u
#define RING_COMPATIBLE 1u

struct aio_ring {
	unsigned id;
	unsigned nr;
	unsigned head;
	unsigned tail;
	unsigned magic;
	unsigned compat_features;
	unsigned incompat_features;
	unsigned header_length;
	struct io_event events[];
};
_Static_assert(sizeof(struct aio_ring) == 32 && sizeof(struct io_event) == 32, "aio ring");

static bool ring_is_known(const struct aio_ring *ring)
{
	return ring->magic == RING_MAGIC && (ring->compat_features & RING_COMPATIBLE) && ring->incompat_features == 0 &&
	       ring->header_length == sizeof(*ring) && ring->nr > 0 && fault_hit("aio.ring", NULL) == 0;
}

int kernel_open(struct kernel_context *context, unsigned depth)
{
	int result = fault_hit("aio.setup", NULL);

	if (result >= 0)
		result = io_setup((int)depth, &context->id);
	if (result < 0) {
		context->id = NULL;
		return result;
	}
	context->ring = (struct aio_ring *)(void *)context->id;
	if (!ring_is_known(context->ring))
		context->ring = NULL;
	return 0;
}

void kernel_close(struct kernel_context *context)
{
	if (context->id)
		io_destroy(context->id);
	context->id = NULL;
	context->ring = NULL;
}

int kernel_submit(struct kernel_context *context, struct iocb **iocbs, unsigned count)
{
	int fault = fault_hit("aio.submit", NULL);

	if (fault < 0)
		return fault;
	if (fault == FAULT_SHORT && count > 1)
		count /= 2;
	return io_submit(context->id, count, iocbs);
}

static unsigned reap_ring(struct aio_ring *ring, struct io_event *events, unsigned max)
{
	unsigned tail = __atomic_load_n(&ring->tail, __ATOMIC_ACQUIRE);
	unsigned head = ring->head;
	unsigned count = 0;

	while (head != tail && count < max) {
		events[count++] = ring->events[head];
		head = head + 1 < ring->nr ? head + 1 : 0;
	}
	if (count > 0)
		__atomic_store_n(&ring->head, head, __ATOMIC_RELEASE);
	return count;
}

unsigned kernel_reap(struct kernel_context *context, struct io_event *events, unsigned max)
{
	struct timespec at_once = {0, 0};
	int count;

	if (context->ring) {
		count = (int)reap_ring(context->ring, events, max);
	} else {
		count = io_getevents(context->id, 0, max, events, &at_once);
		if (count < 0)
			count = 0;
	}
	context->unread += count;
	return (unsigned)count;
}

bool kernel_quiet(struct kernel_context *context)
{
	uint64_t signals;

	if (context->unread > 0 && read(context->event_fd, &signals, sizeof(signals)) == sizeof(signals))
		context->unread -= (int64_t)signals;
	return context->unread >= 0;
}
