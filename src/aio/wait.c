/* What waits for time: retries and the report of old requests; and the end of waiting.
 *
 * One timer for each, and both only while somebody waits. The retry list is
 * not sorted: its timer is set for the earliest, and whoever is due goes back
 * to `gathered`. The report counts every request that is older than 10 s with its
 * file, and names the first; it runs when the oldest one not counted yet reaches
 * that age. When the last of a file has its answer, that is told too. */
#include <inttypes.h>

#include "aio/retry.h"
#include "call.h"
#include "core/counters.h"
#include "core/log.h"
#include "core/time.h"

#define REPORT_AGE_NS (10 * NS_PER_S)

static struct aio_request *request_of(struct list *node)
{
	return container_of(node, struct aio_request, link);
}

bool wait_is_transient(const struct aio_request *request, int error)
{
	static const enum store_op ops[] = {
		[AIO_READ] = STORE_READ,
		[AIO_WRITE] = STORE_WRITE,
		[AIO_WRITE_DURABLE] = STORE_FLUSH,
		[AIO_DATASYNC] = STORE_FLUSH,
	};

	return verdict_of(request->file->store, ops[request->op], error) == VERDICT_RETRY;
}

/* REQUEST, which was reported, has its answer. */
static void answered(struct aio_request *request)
{
	struct aio_file *file = request->file;
	unsigned total;

	request->reported = false;
	if (atomic_fetch_sub(&file->overdue, 1) > 1)
		return;
	total = atomic_exchange(&file->overdue_total, 0);
	log_warning_limited(file->name, "answers",
			    "aio: %s: answers again, after %" PRIu64 " s, in which %u requests waited", file->name,
			    (loop_now_ns() - atomic_load(&file->overdue_since_ns)) / NS_PER_S, total);
}

void wait_finish(struct aio_queue *queue, struct aio_request *request, int result)
{
	request->result = result;
	aio_note(request->file, request->op, result);
	if (request->reported)
		answered(request);
	list_append(&queue->ready, &request->link);
}

void wait_fail(struct aio_queue *queue, struct aio_request *request, int error)
{
	uint64_t now = loop_now_ns();

	if (!wait_is_transient(request, error) ||
	    !retry_schedule(request->tries, request->start_ns, queue->limits.io_timeout_ns, now,
			    &request->retry_at_ns)) {
		wait_finish(queue, request, error);
		return;
	}
	if (request->tries < UINT16_MAX)
		request->tries++;
	counter_add(aio_retries, 1);
	list_append(&queue->retry, &request->link);
	if (request->retry_at_ns < queue->retry_next_ns) {
		queue->retry_next_ns = request->retry_at_ns;
		loop_timer_set(queue->loop, &queue->retry_timer, queue->retry_next_ns);
	}
}

static void retry_expired(struct loop_timer *timer)
{
	struct aio_queue *queue = container_of(timer, struct aio_queue, retry_timer);
	uint64_t now = loop_now_ns();

	queue->retry_next_ns = UINT64_MAX;
	list_foreach(node, &queue->retry)
	{
		uint64_t at_ns = request_of(node)->retry_at_ns;

		if (at_ns <= now) {
			list_remove(node);
			list_append(&queue->gathered, node);
		} else if (at_ns < queue->retry_next_ns) {
			queue->retry_next_ns = at_ns;
		}
	}
	if (queue->retry_next_ns != UINT64_MAX)
		loop_timer_set(queue->loop, &queue->retry_timer, queue->retry_next_ns);
}

static void report(struct aio_request *request, uint64_t age_ns)
{
	struct aio_file *file = request->file;

	request->reported = true;
	atomic_fetch_add(&file->overdue_total, 1);
	if (atomic_fetch_add(&file->overdue, 1) > 0)
		return;
	atomic_store(&file->overdue_since_ns, request->start_ns);
	log_warning_limited(file->name, "waits",
			    "aio: %s: %s of %" PRIu32 " bytes at %" PRIu64 " has been waiting for %" PRIu64 " s",
			    file->name, request_op_name(request->op), request->length, request->offset,
			    age_ns / NS_PER_S);
}

/* Reports what is old, and lowers *OLDEST_NS to the start of what is not yet. */
static void report_list(struct list *list, uint64_t now, uint64_t *oldest_ns)
{
	list_foreach(node, list)
	{
		struct aio_request *request = request_of(node);

		if (request->reported)
			continue;
		if (now - request->start_ns >= REPORT_AGE_NS)
			report(request, now - request->start_ns);
		else if (request->start_ns < *oldest_ns)
			*oldest_ns = request->start_ns;
	}
}

static void report_expired(struct loop_timer *timer)
{
	struct aio_queue *queue = container_of(timer, struct aio_queue, report_timer);
	uint64_t now = loop_now_ns();
	uint64_t oldest_ns = now;

	queue->reporting = queue->in_flight > 0;
	if (!queue->reporting)
		return;
	report_list(&queue->gathered, now, &oldest_ns);
	list_foreach(node, &queue->shares.turns)
		report_list(&container_of(node, struct share, turn)->waiting, now, &oldest_ns);
	report_list(&queue->retry, now, &oldest_ns);
	for (unsigned i = 0; i < queue->slots; i++)
		if (queue->calls[i].merge.count > 0)
			report_list(&queue->calls[i].merge.members, now, &oldest_ns);
	loop_timer_set(queue->loop, timer, oldest_ns + REPORT_AGE_NS);
}

void wait_init(struct aio_queue *queue)
{
	list_init(&queue->retry);
	queue->retry_next_ns = UINT64_MAX;
	loop_timer_init(&queue->retry_timer, retry_expired);
	loop_timer_init(&queue->report_timer, report_expired);
}

void wait_submitted(struct aio_queue *queue, uint64_t now)
{
	if (queue->reporting)
		return;
	queue->reporting = true;
	loop_timer_set(queue->loop, &queue->report_timer, now + REPORT_AGE_NS);
}

void wait_quiet(struct aio_queue *queue)
{
	if (list_is_empty(&queue->retry) && queue->retry_next_ns != UINT64_MAX) {
		loop_timer_cancel(&queue->retry_timer);
		queue->retry_next_ns = UINT64_MAX;
	}
	if (queue->in_flight == 0 && queue->reporting) {
		loop_timer_cancel(&queue->report_timer);
		queue->reporting = false;
	}
}
