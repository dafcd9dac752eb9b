/* Inside the queue: its state, and the calls that requests become.
 *
 * A request is on one of the queue's lists or in one call:
 *
 *     gathered   submitted, or to be continued; looked at when the turn ends
 *     waiting    of its file's share (core/shares.h): had a look; waits for a call
 *     (a call)   in the batch, in the kernel, or on a background thread
 *     retry      failed for now; waits for retry_at_ns
 *     ready      has its result; waits for its callback */
#ifndef LEAFDISK_AIO_CALL_H
#define LEAFDISK_AIO_CALL_H

#include "aio/queue.h"
#include "core/shares.h"
#include "kernel.h"
#include "merge.h"
#include "core/workers.h"

struct aio_call {
	struct iocb iocb;
	struct merge_call merge;
	struct aio_queue *queue;
	struct share *share; /* its file's */
	struct list link;    /* on queue->free while free, else on nothing */
	struct loop_work work;
	int64_t result; /* of the background thread */
	unsigned vectors;
	struct iovec vector[MERGE_VECTORS];
};

struct aio_queue {
	struct loop *loop;
	struct aio_limits limits;
	struct loop_source source;
	struct kernel_context kernel;

	struct list gathered;
	struct list retry;
	struct list ready;
	unsigned in_flight; /* on any list or in a call */
	bool idle;	    /* in_flight is 0 */
	uint64_t gathered_ns;

	unsigned slots;
	struct aio_call *calls; /* so many */
	struct shares shares;	/* of them, by file; and who waits for one */
	struct list free;
	struct aio_call **batch; /* calls not handed over yet, in order */
	unsigned batch_count;
	unsigned in_kernel;
	/* Calls of this file are being handed over, by this thread or one before. */
	const struct aio_file *submitting;
	unsigned submitting_count;
	bool submitting_changes;
	unsigned standing; /* of those in the kernel, what a thread before still hands over */
	bool stalled;	   /* the kernel takes no more until a completion comes */

	struct loop_timer retry_timer;
	uint64_t retry_next_ns; /* the timer's; UINT64_MAX: not set */
	struct loop_timer report_timer;
	bool reporting; /* the timer is set */
};

/* request.c */

const char *request_op_name(enum aio_op op);

/* wait.c */

void wait_init(struct aio_queue *queue);
/* The same call may succeed later. */
bool wait_is_transient(const struct aio_request *request, int error);
/* Gives REQUEST, on no list, its result. */
void wait_finish(struct aio_queue *queue, struct aio_request *request, int result);
/* REQUEST, on no list, met ERROR: a later try, or its end. */
void wait_fail(struct aio_queue *queue, struct aio_request *request, int error);
/* A request was submitted. */
void wait_submitted(struct aio_queue *queue, uint64_t now);
/* Cancels the timers that nothing waits for. */
void wait_quiet(struct aio_queue *queue);

/* call.c */

/* Puts REQUEST, whose file may have another call, into one of the batch. */
void call_place(struct aio_queue *queue, struct aio_request *request);
/* Takes CALL's members back to the list MEMBERS and frees CALL. */
void call_release(struct aio_call *call, struct list *members);

/* settle.c */

/* Shares RESULT, bytes or a negative errno, among CALL's members; frees CALL. */
void settle_call(struct aio_call *call, int64_t result);
/* One request's share of *LEFT transferred bytes; FIRST as in merge.h. */
void settle_member(struct aio_queue *queue, struct aio_request *request, bool direct, bool first, uint64_t *left);
/* Settles what the kernel has completed; returns how many calls. */
unsigned settle_completions(struct aio_queue *queue);

/* thread.c */

/* Runs CALL on a background thread, then settles it. */
void thread_start(struct aio_call *call);

/* accept.c */

/* Deals with REQUEST, which is on no list and has just gathered. */
void accept_request(struct aio_queue *queue, struct aio_request *request);

/* submit.c */

/* Hands the batch over, each call to the kernel or a background thread. What
 * the kernel has no room for stays in the batch. */
void submit_hand_over(struct aio_queue *queue);

/* The descriptor that CALL works on. */
static inline int call_fd(const struct aio_call *call)
{
	const struct aio_file *file = call->merge.file;
	bool direct = call->merge.op == AIO_DATASYNC ? file->direct_fd >= 0 : call->merge.direct;

	return direct ? file->direct_fd : file->buffered_fd;
}

#endif
