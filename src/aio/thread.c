/* Calls that would block the loop: page-cache I/O that is not in memory,
 * datasync where libaio has none, and everything where io_setup was refused.
 *
 * The thread touches nothing but the call's descriptor, vector and result;
 * the hand-over to it and back are the loop's. */
#include <errno.h>
#include <sys/uio.h>
#include <unistd.h>

#include "call.h"
#include "core/counters.h"
#include "core/workers.h"

static ssize_t run_call(struct aio_call *call)
{
	const struct merge_call *merge = &call->merge;
	int fd = call_fd(call);

	if (merge->op == AIO_READ)
		return preadv(fd, call->vector, (int)call->vectors, (off_t)merge->start);
	if (aio_is_write(merge->op))
		return pwritev2(fd, call->vector, (int)call->vectors, (off_t)merge->start,
				merge->op == AIO_WRITE_DURABLE ? RWF_DSYNC : 0);
	return fdatasync(fd);
}

static void thread_work(struct loop_work *work)
{
	struct aio_call *call = container_of(work, struct aio_call, work);
	ssize_t result = run_call(call);

	call->result = result < 0 ? -errno : result;
}

static void thread_done(struct loop_work *work)
{
	struct aio_call *call = container_of(work, struct aio_call, work);

	settle_call(call, call->result);
}

void thread_start(struct aio_call *call)
{
	counter_add(aio_offloaded, call->merge.count);
	call->work.work = thread_work;
	call->work.done = thread_done;
	call->work.file = &call->merge.file->steps;
	loop_offload_step(call->queue->loop, &call->work);
}
