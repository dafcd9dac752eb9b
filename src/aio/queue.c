/* The I/O queue: lists, timers, and its place in the loop.
 *
 * A request moves between the lists named in call.h and is on exactly one of
 * them, or in one call, until its callback. Invariants:
 *   1. Callbacks run from queue_dispatch() only, one after the other; nothing
 *      that may finish a request calls them. So aio_submit(), aio_unplug() and
 *      aio_cancel() never call back, and may be called from callbacks.
 *   2. `ready` and `gathered` are empty when the loop sleeps: a turn handles
 *      them, and the prepare hook looks again at what came after the turn.
 *   3. What waits for a call or in the batch has a call in flight before it, of
 *      its file or, with none free, of another, whose completion takes it on; what
 *      waits in `retry` has the timer.
 *   4. The timers are set only while there is something to wait for: an idle
 *      queue wakes nobody.
 *
 * A file whose store hangs keeps its calls: how many it may have depends on how
 * many are free (core/shares.h).
 *
 * A turn submits what gathered, reaps, calls back, and submits what that
 * gathered: requests that one message from the kernel brought are one
 * io_submit(), and so are the requests that a batch of completions caused. */
#include "aio/queue.h"

#include <errno.h>
#include <inttypes.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "call.h"
#include "core/counters.h"
#include "core/error.h"
#include "core/log.h"
#include "core/time.h"

#define DEFAULT_DEPTH 256
#define DEFAULT_IO_TIMEOUT_NS (120 * NS_PER_S)

static struct aio_request *request_of(struct list *node)
{
	return container_of(node, struct aio_request, link);
}

static void queue_push(struct aio_queue *queue)
{
	const void *file;
	struct list *node;

	queue->gathered_ns = 0;
	while ((node = shares_next(&queue->shares, &file)))
		call_place(queue, request_of(node));
	while ((node = list_pop(&queue->gathered)))
		accept_request(queue, request_of(node));
	submit_hand_over(queue);
}

static unsigned call_back(struct aio_queue *queue)
{
	struct list ready = LIST_INIT(ready);
	struct list *node;
	unsigned count = 0;

	/* What callbacks finish, by aio_unplug() or aio_cancel(), is for the next turn. */
	list_splice(&ready, &queue->ready);
	while ((node = list_pop(&ready))) {
		struct aio_request *request = request_of(node);

		queue->in_flight--;
		request->done(request, request->result);
		count++;
	}
	queue->idle = queue->in_flight == 0;
	return count;
}

/* What pushing may leave behind for another turn. */
static bool is_unsettled(const struct aio_queue *queue)
{
	if (!list_is_empty(&queue->ready) || !list_is_empty(&queue->gathered))
		return true;
	return shares_has_next(&queue->shares);
}

static int queue_dispatch(struct loop_source *source)
{
	struct aio_queue *queue = container_of(source, struct aio_queue, source);
	unsigned count;

	queue_push(queue);
	count = settle_completions(queue);
	count += call_back(queue);
	queue_push(queue);
	return (int)(count + is_unsettled(queue));
}

static bool queue_busy(struct loop_source *source)
{
	struct aio_queue *queue = container_of(source, struct aio_queue, source);

	return queue->in_kernel > queue->standing;
}

static bool queue_prepare(struct loop_source *source)
{
	struct aio_queue *queue = container_of(source, struct aio_queue, source);

	queue_push(queue);
	wait_quiet(queue);
	return !kernel_quiet(&queue->kernel) || is_unsettled(queue);
}

void aio_submit(struct aio_queue *queue, struct aio_request *request)
{
	if (queue->gathered_ns == 0)
		queue->gathered_ns = loop_now_ns();
	request->start_ns = queue->gathered_ns;
	request->transferred = 0;
	request->tries = 0;
	request->reported = false;
	request->alone = false;
	list_append(&queue->gathered, &request->link);
	queue->in_flight++;
	queue->idle = false;
	counter_add(aio_requests, 1);
	wait_submitted(queue, request->start_ns);
}

void aio_unplug(struct aio_queue *queue)
{
	g_assert(!*loop_relay(queue->loop));
	queue_push(queue);
}

static void cancel_list(struct aio_queue *queue, struct list *list, const struct aio_file *file)
{
	list_foreach(node, list)
	{
		if (!file || request_of(node)->file == file) {
			list_remove(node);
			wait_finish(queue, request_of(node), -ECANCELED);
		}
	}
}

static void cancel_waiting(struct aio_queue *queue, const struct aio_file *file)
{
	list_foreach(node, &queue->shares.turns)
		cancel_list(queue, &container_of(node, struct share, turn)->waiting, file);
	shares_tidy(&queue->shares);
}

static void cancel_batch(struct aio_queue *queue, const struct aio_file *file)
{
	unsigned kept = 0;

	for (unsigned i = 0; i < queue->batch_count; i++) {
		struct aio_call *call = queue->batch[i];
		struct list members = LIST_INIT(members);

		if (call->merge.file != file) {
			queue->batch[kept++] = call;
			continue;
		}
		call_release(call, &members);
		cancel_list(queue, &members, NULL);
	}
	queue->batch_count = kept;
}

void aio_cancel(struct aio_queue *queue, const struct aio_file *file)
{
	cancel_batch(queue, file);
	cancel_list(queue, &queue->gathered, file);
	cancel_waiting(queue, file);
	cancel_list(queue, &queue->retry, file);
}

unsigned aio_in_flight(const struct aio_queue *queue)
{
	return queue->in_flight;
}

void aio_drain(struct aio_queue *queue)
{
	loop_run(queue->loop, &queue->idle);
}

struct loop *aio_queue_loop(struct aio_queue *queue)
{
	return queue->loop;
}

static void apply_limits(struct aio_queue *queue, const struct aio_limits *limits)
{
	if (limits)
		queue->limits = *limits;
	if (queue->limits.depth == 0)
		queue->limits.depth = DEFAULT_DEPTH;
	if (queue->limits.io_timeout_ns == 0)
		queue->limits.io_timeout_ns = DEFAULT_IO_TIMEOUT_NS;
	queue->slots = queue->limits.many_stores ? 2 * queue->limits.depth : queue->limits.depth;
}

static uint64_t store_of(const void *file)
{
	return ((const struct aio_file *)file)->device;
}

static uint64_t read_setting(const char *path)
{
	g_autofree char *text = NULL;

	return g_file_get_contents(path, &text, NULL, NULL) ? g_ascii_strtoull(text, NULL, 10) : 0;
}

static void warn_no_kernel(unsigned depth, int error)
{
	log_warning("aio: io_setup for %u requests was refused (%s); background threads do the I/O, which is slower. "
		    "Raise fs.aio-max-nr (sysctl; now %" PRIu64 ", of which %" PRIu64 " are taken) and mount again",
		    depth, g_strerror(-error), read_setting("/proc/sys/fs/aio-max-nr"),
		    read_setting("/proc/sys/fs/aio-nr"));
}

static bool allocate_calls(struct aio_queue *queue, GError **error)
{
	unsigned depth = queue->slots;

	queue->calls = g_try_new0(struct aio_call, depth);
	queue->batch = g_try_new0(struct aio_call *, depth);
	if (!queue->calls || !queue->batch)
		return error_set(error, ENOMEM, "no memory for an I/O queue of %u requests", depth);
	for (unsigned i = 0; i < depth; i++) {
		queue->calls[i].queue = queue;
		list_append(&queue->free, &queue->calls[i].link);
	}
	return true;
}

static bool open_kernel(struct aio_queue *queue, GError **error)
{
	int result;

	queue->kernel.event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (queue->kernel.event_fd < 0)
		return error_set_errno(error, errno, "cannot create an event descriptor for an I/O queue");
	result = kernel_open(&queue->kernel, queue->slots);
	if (result < 0)
		warn_no_kernel(queue->slots, result);
	return true;
}

struct aio_queue *aio_queue_new(struct loop *loop, const struct aio_limits *limits, GError **error)
{
	struct aio_queue *queue = g_new0(struct aio_queue, 1);

	queue->loop = loop;
	queue->idle = true;
	queue->kernel.event_fd = -1;
	list_init(&queue->source.link);
	list_init(&queue->gathered);
	list_init(&queue->ready);
	list_init(&queue->free);
	wait_init(queue);
	apply_limits(queue, limits);
	shares_init(&queue->shares, queue->slots, queue->slots);
	if (queue->limits.many_stores)
		shares_set_groups(&queue->shares, queue->limits.depth, store_of);
	if (!allocate_calls(queue, error) || !open_kernel(queue, error)) {
		aio_queue_free(queue);
		return NULL;
	}
	queue->source.fd = queue->kernel.event_fd;
	queue->source.dispatch = queue_dispatch;
	queue->source.busy = queue_busy;
	queue->source.prepare = queue_prepare;
	loop_add_source(loop, &queue->source);
	log_debug(LOG_AIO, "a queue of %u calls, %s", queue->slots,
		  queue->kernel.ring ? "whose results are read from the kernel's ring"
				     : "whose results come by system calls");
	return queue;
}

void aio_queue_free(struct aio_queue *queue)
{
	if (!queue)
		return;
	g_assert(queue->in_flight == 0);
	if (!list_is_empty(&queue->source.link))
		loop_remove_source(queue->loop, &queue->source);
	wait_quiet(queue);
	kernel_close(&queue->kernel);
	if (queue->kernel.event_fd >= 0)
		close(queue->kernel.event_fd);
	shares_clear(&queue->shares);
	g_free(queue->batch);
	g_free(queue->calls);
	g_free(queue);
}
