/* Hands calls over, to the kernel or to a thread.
 *
 * Handing over is one io_submit() for what the batch has for one file. Where it stops:
 *   - it took some: the rest is submitted again at once, which either goes on
 *     or names the error of the first of the rest;
 *   - no room (EAGAIN and its like) while completions are due: the rest stays
 *     in the batch until one has come; with nothing in the kernel no completion
 *     would ever come, so the members are retried by time instead;
 *   - any other error is that of the first call alone;
 *   - it does not return: the loop may go on without this thread (core/relay.h). What is
 *     being handed over is neither in the batch nor free, counts as the kernel's, and
 *     its results may come before io_submit() has returned; what that did not take
 *     is put back by a task of the loop. Calls of the same store go to threads
 *     meanwhile (stuck.h). For other files it was none of their business. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/uio.h>

#include "call.h"
#include "core/counters.h"
#include "core/log.h"
#include "core/relay.h"
#include "stuck.h"

/* In one io_submit(). */
#define SUBMIT_MAX 128

/* A submission whose thread came back to find the loop gone on. */
struct late {
	struct loop_task task;
	struct aio_queue *queue;
	uint64_t device;
	bool changes; /* one of the calls does */
	int taken;
	unsigned count;
	struct iocb *iocbs[SUBMIT_MAX];
};

static bool changes(const struct aio_call *call)
{
	return call->merge.op != AIO_READ;
}

static bool needs_thread(const struct aio_call *call)
{
	if (!call->queue->kernel.id)
		return true;
	if (call->merge.op != AIO_DATASYNC && !call->merge.direct)
		return true;
	/* Who waits on his own thread may as well stand there. */
	return !loop_runs_steps_here(call->queue->loop) && stuck_is(call->merge.file->device, changes(call));
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
	io_set_eventfd(iocb, call->queue->kernel.event_fd);
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

/* Takes those of the batch's first file out of it, ready for the kernel. */
static unsigned take_group(struct aio_queue *queue, struct iocb **iocbs)
{
	const struct aio_file *file = queue->batch[0]->merge.file;
	unsigned count = 0, kept = 0;

	for (unsigned i = 0; i < queue->batch_count; i++) {
		struct aio_call *call = queue->batch[i];

		if (call->merge.file != file || count == SUBMIT_MAX) {
			queue->batch[kept++] = call;
			continue;
		}
		call->vectors = merge_vector(&call->merge, call->vector);
		log_call(call, "the kernel");
		prepare_iocb(call);
		iocbs[count++] = &call->iocb;
	}
	queue->batch_count = kept;
	return count;
}

static struct aio_call *call_of(struct iocb *iocb)
{
	return container_of(iocb, struct aio_call, iocb);
}

/* Before what has come since. */
static void put_back(struct aio_queue *queue, struct iocb **iocbs, unsigned count)
{
	memmove(queue->batch + count, queue->batch, queue->batch_count * sizeof(queue->batch[0]));
	for (unsigned i = 0; i < count; i++)
		queue->batch[i] = call_of(iocbs[i]);
	queue->batch_count += count;
}

/* io_submit() has TAKEN of COUNT. False: nothing more now. */
static bool submitted(struct aio_queue *queue, struct iocb **iocbs, unsigned count, int taken)
{
	unsigned done = taken > 0 ? (unsigned)taken : 0;
	bool full = taken == 0 || (taken < 0 && error_class_of(STORE_WRITE, taken) == ERROR_TRANSIENT);

	counter_add(aio_submits, 1);
	queue->in_kernel -= count - done;
	if (taken < 0 && !full)
		call_refused(call_of(iocbs[done++]), taken);
	put_back(queue, iocbs + done, count - done);
	return !full;
}

static void defer_batch(struct aio_queue *queue)
{
	for (unsigned i = 0; i < queue->batch_count; i++)
		counter_add(aio_deferred, queue->batch[i]->merge.count);
	queue->stalled = queue->in_kernel > queue->standing;
	if (queue->stalled)
		return;
	for (unsigned i = 0; i < queue->batch_count; i++)
		settle_call(queue->batch[i], -EAGAIN);
	queue->batch_count = 0;
}

/* The queue is not idle before this has run. */
static void late_run(struct loop_task *task)
{
	struct late *late = container_of(task, struct late, task);
	struct aio_queue *queue = late->queue;

	stuck_end(late->device, late->changes);
	queue->standing -= late->count;
	queue->in_flight--;
	queue->stalled = false;
	if (!submitted(queue, late->iocbs, late->count, late->taken))
		defer_batch(queue);
	queue->idle = queue->in_flight == 0;
	g_free(late);
}

static void __attribute__((noreturn)) come_late(struct aio_queue *queue, const struct late *submission)
{
	struct late *late = g_memdup2(submission, sizeof(*submission));

	late->task.run = late_run;
	loop_post(queue->loop, &late->task);
	relay_end_thread();
}

/* The thread of before stands in io_submit(). */
static void note_standing(struct aio_queue *queue)
{
	const struct aio_file *file = queue->submitting;

	queue->submitting = NULL;
	queue->in_flight++;
	queue->idle = false;
	stuck_begin(file->device, queue->submitting_changes);
	queue->standing += queue->submitting_count;
	log_warning_limited(file->name, "stands",
			    "aio: %s: the kernel is long in taking requests; those of this store go to background "
			    "threads, which are slower, until it is quick again",
			    file->name);
}

/* False: nothing more now. */
static bool submit_some(struct aio_queue *queue)
{
	struct late submission;
	struct relay_call call;

	queue->submitting = queue->batch[0]->merge.file;
	submission.queue = queue;
	submission.device = queue->submitting->device;
	submission.count = take_group(queue, submission.iocbs);
	submission.changes = false;
	for (unsigned i = 0; i < submission.count; i++)
		submission.changes |= changes(call_of(submission.iocbs[i]));
	queue->in_kernel += submission.count;
	queue->submitting_count = submission.count;
	queue->submitting_changes = submission.changes;
	relay_leave(queue->loop, &call);
	submission.taken = kernel_submit(&queue->kernel, submission.iocbs, submission.count);
	if (!relay_return(&call))
		come_late(queue, &submission);
	queue->submitting = NULL;
	return submitted(queue, submission.iocbs, submission.count, submission.taken);
}

void submit_hand_over(struct aio_queue *queue)
{
	if (queue->submitting)
		note_standing(queue);
	start_threads(queue);
	while (queue->batch_count > 0 && !queue->stalled)
		if (!submit_some(queue))
			defer_batch(queue);
}
