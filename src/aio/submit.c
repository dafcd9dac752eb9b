/* Hands calls over, to the kernel or to a thread.
 *
 * Handing over is one io_submit() for the batch. Where it stops:
 *   - it took some: the rest is submitted again at once, which either goes on
 *     or names the error of the first of the rest;
 *   - no room (EAGAIN and its like) while completions are due: the rest stays
 *     in the batch until one has come; with nothing in the kernel no completion
 *     would ever come, so the members are retried by time instead;
 *   - any other error is that of the first call alone. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/uio.h>

#include "call.h"
#include "core/counters.h"
#include "core/log.h"

static bool needs_thread(const struct aio_call *call)
{
	if (!call->queue->kernel.id)
		return true;
	return call->merge.op != AIO_DATASYNC && !call->merge.direct;
}

static void prepare_iocb(struct aio_call *call)
{
	const struct merge_call *merge = &call->merge;
	struct iocb *iocb = &call->iocb;
	struct iovec *vector = call->vector;
	int fd = call_fd(call);

	if (merge->op == AIO_DATASYNC)
		io_prep_fdsync(iocb, fd);
	else if (merge->op == AIO_READ && call->vectors == 1)
		io_prep_pread(iocb, fd, vector->iov_base, vector->iov_len, (long long)merge->start);
	else if (merge->op == AIO_READ)
		io_prep_preadv(iocb, fd, vector, (int)call->vectors, (long long)merge->start);
	else if (call->vectors == 1)
		io_prep_pwrite(iocb, fd, vector->iov_base, vector->iov_len, (long long)merge->start);
	else
		io_prep_pwritev(iocb, fd, vector, (int)call->vectors, (long long)merge->start);
	if (merge->op == AIO_WRITE_DURABLE)
		iocb->aio_rw_flags = RWF_DSYNC;
	iocb->data = call;
}

static void log_call(const struct aio_call *call, const char *whose)
{
	const struct merge_call *merge = &call->merge;

	log_debug_data(LOG_AIO, "%s: %s of %" PRIu64 " bytes at %" PRIu64 " for %u requests, done by %s",
		       merge->file->name, request_op_name(merge->op), merge->end - merge->start, merge->start,
		       merge->count, whose);
}

/* Starts the batch's background calls; the kernel's stay, in order. */
static void start_threads(struct aio_queue *queue)
{
	unsigned kept = 0;

	for (unsigned i = 0; i < queue->batch_count; i++) {
		struct aio_call *call = queue->batch[i];

		if (!needs_thread(call)) {
			queue->batch[kept++] = call;
			continue;
		}
		call->vectors = merge_vector(&call->merge, call->vector);
		log_call(call, "a thread");
		thread_start(call);
	}
	queue->batch_count = kept;
}

/* The kernel refused CALL at the door. */
static void call_refused(struct aio_call *call, int error)
{
	if (call->merge.op == AIO_DATASYNC && error_class_of(STORE_FLUSH, error) == ERROR_UNSUPPORTED)
		thread_start(call);
	else
		settle_call(call, error);
}

/* Returns how many calls of the batch are dealt with. */
static unsigned submit_batch(struct aio_queue *queue)
{
	unsigned at = 0;

	while (at < queue->batch_count) {
		int taken = kernel_submit(&queue->kernel, queue->iocbs + at, queue->batch_count - at);

		counter_add(aio_submits, 1);
		if (taken == 0 || (taken < 0 && error_class_of(STORE_WRITE, taken) == ERROR_TRANSIENT))
			break;
		if (taken < 0) {
			call_refused(queue->batch[at++], taken);
			continue;
		}
		at += (unsigned)taken;
		queue->in_kernel += (unsigned)taken;
	}
	return at;
}

static void defer_batch(struct aio_queue *queue)
{
	for (unsigned i = 0; i < queue->batch_count; i++)
		counter_add(aio_deferred, queue->batch[i]->merge.count);
	queue->stalled = queue->in_kernel > 0;
	if (queue->stalled)
		return;
	for (unsigned i = 0; i < queue->batch_count; i++)
		settle_call(queue->batch[i], -EAGAIN);
	queue->batch_count = 0;
}

void submit_hand_over(struct aio_queue *queue)
{
	unsigned done;

	start_threads(queue);
	if (queue->batch_count == 0 || queue->stalled)
		return;
	for (unsigned i = 0; i < queue->batch_count; i++) {
		struct aio_call *call = queue->batch[i];

		call->vectors = merge_vector(&call->merge, call->vector);
		log_call(call, "the kernel");
		prepare_iocb(call);
		queue->iocbs[i] = &call->iocb;
	}
	done = submit_batch(queue);
	queue->batch_count -= done;
	if (queue->batch_count == 0)
		return;
	memmove(queue->batch, queue->batch + done, queue->batch_count * sizeof(queue->batch[0]));
	defer_batch(queue);
}
