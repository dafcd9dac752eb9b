/* Results: from a call's bytes or errno to the end of each request.
 *
 * When a call of several members fails, or stops before one of them, these are
 * tried again alone, so that what fails is what is bad. A member that the call
 * stopped in goes on from there. Datasyncs are never merged, and never tried
 * again after a real error: the kernel reports a failed write-back once, and
 * the second answer would be a lie.
 *
 * The fault points of reads and datasyncs are here, on each attempt that
 * succeeded; a write's is in call_place(), before the file can change. */
#include "call.h"
#include "core/counters.h"
#include "core/fault.h"
#include "core/trace.h"

#define REAP_MAX 64

static void settle_datasync(struct aio_queue *queue, struct aio_request *request)
{
	int fault = fault_hit("aio.datasync", request->file->name);

	if (fault < 0) {
		wait_fail(queue, request, fault);
		return;
	}
	trace_append(TRACE_FLUSHED, request->file->name, 0, NULL, 0);
	wait_finish(queue, request, 0);
}

/* In the trace a durable write is flushed with all that its file has had so
 * far: who submits it waits for nothing else. */
static void settle_done(struct aio_queue *queue, struct aio_request *request)
{
	if (request->op != AIO_WRITE_DURABLE) {
		wait_finish(queue, request, 0);
		return;
	}
	trace_append(TRACE_BEGIN, request->file->name, 0, NULL, 0);
	settle_datasync(queue, request);
}

void settle_member(struct aio_queue *queue, struct aio_request *request, bool direct, bool first, uint64_t *left)
{
	uint32_t restart = merge_restart(request, direct);
	uint32_t got = merge_take(request, direct, left);
	int fault = 0;

	if (got > 0 && aio_is_write(request->op))
		trace_append(TRACE_WRITE, request->file->name, request->offset + restart,
			     (char *)request->buffer + restart, got);
	if (got > 0 && request->op == AIO_READ)
		fault = fault_hit("aio.read", request->file->name);
	if (fault < 0) {
		wait_fail(queue, request, fault);
		return;
	}
	if (fault == FAULT_SHORT)
		got = merge_half(request, direct, got);

	switch (merge_advance(request, direct, first, got)) {
	case MERGE_DONE:
		settle_done(queue, request);
		break;
	case MERGE_STUCK:
		wait_finish(queue, request, merge_result_at_end(request));
		break;
	case MERGE_UNREACHED:
		request->alone = true;
		/* fall through */
	case MERGE_CONTINUE:
		counter_add(aio_continued, 1);
		list_append(&queue->gathered, &request->link);
		break;
	}
}

static void settle_error(struct aio_queue *queue, struct list *members, bool several, int error)
{
	struct list *node;

	while ((node = list_pop(members))) {
		struct aio_request *request = container_of(node, struct aio_request, link);

		if (several && !wait_is_transient(request, error)) {
			request->alone = true;
			list_append(&queue->gathered, node);
		} else {
			wait_fail(queue, request, error);
		}
	}
}

void settle_call(struct aio_call *call, int64_t result)
{
	struct aio_queue *queue = call->queue;
	struct list members = LIST_INIT(members);
	bool several = call->merge.count > 1;
	bool direct = call->merge.direct;
	bool first = true;
	uint64_t left = (uint64_t)result;
	struct list *node;

	call_release(call, &members);
	if (result < 0) {
		settle_error(queue, &members, several, (int)result);
		return;
	}
	while ((node = list_pop(&members))) {
		struct aio_request *request = container_of(node, struct aio_request, link);

		if (request->op == AIO_DATASYNC)
			settle_datasync(queue, request);
		else
			settle_member(queue, request, direct, first, &left);
		first = false;
	}
}

unsigned settle_completions(struct aio_queue *queue)
{
	struct io_event events[REAP_MAX];
	unsigned total = 0;
	unsigned count;

	if (queue->in_kernel == 0)
		return 0;
	do {
		count = kernel_reap(&queue->kernel, events, REAP_MAX);
		queue->in_kernel -= count;
		if (count > 0)
			queue->stalled = false;
		for (unsigned i = 0; i < count; i++)
			settle_call(events[i].data, (int64_t)(long)events[i].res);
		total += count;
	} while (count == REAP_MAX);
	return total;
}
