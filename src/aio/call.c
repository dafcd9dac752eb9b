/* Calls: what requests become, merged.
 *
 * A call is open for more members from call_place() until it is handed over,
 * so what gathered in one turn of the loop merges, and so does what waits for
 * room in the kernel. The last CALL_LOOKBACK calls are tried, the newest first:
 * a few interleaved sequential streams merge, random I/O costs a constant. */
#include "call.h"

#include "core/counters.h"
#include "core/fault.h"
#include "core/trace.h"

#define CALL_LOOKBACK 4

static bool call_join(struct aio_queue *queue, struct aio_request *request, bool direct)
{
	unsigned oldest = queue->batch_count > CALL_LOOKBACK ? queue->batch_count - CALL_LOOKBACK : 0;

	for (unsigned i = queue->batch_count; i > oldest; i--) {
		if (merge_add(&queue->batch[i - 1]->merge, request, direct)) {
			counter_add(aio_merged, 1);
			return true;
		}
	}
	return false;
}

static void call_open(struct aio_queue *queue, struct aio_request *request, bool direct, uint32_t limit)
{
	struct aio_call *call = container_of(list_pop(&queue->free), struct aio_call, link);

	merge_open(&call->merge, request, direct, limit);
	call->share = shares_take(&queue->shares, request->file);
	queue->batch[queue->batch_count++] = call;
}

void call_place(struct aio_queue *queue, struct aio_request *request)
{
	bool direct = request->op != AIO_DATASYNC && merge_is_direct(request);
	uint32_t limit = 0;
	int fault = 0;

	if (aio_is_write(request->op))
		fault = fault_hit("aio.write", request->file->name);
	if (fault < 0) {
		wait_fail(queue, request, fault);
		return;
	}
	if (fault == FAULT_SHORT)
		limit = merge_half(request, direct, request->length - merge_restart(request, direct));
	if (request->op == AIO_DATASYNC)
		trace_append(TRACE_BEGIN, request->file->name, 0, NULL, 0);
	if (limit > 0 || !call_join(queue, request, direct))
		call_open(queue, request, direct, limit);
}

void call_release(struct aio_call *call, struct list *members)
{
	list_splice(members, &call->merge.members);
	call->merge.count = 0;
	list_prepend(&call->queue->free, &call->link);
	shares_put(&call->queue->shares, call->share);
}
