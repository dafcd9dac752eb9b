/* A channel: one loop with its own descriptor of the FUSE connection.
 *
 * Receiving. A turn of the loop takes in a few messages, then the disk gets
 * them: it works while the next ones are parsed. Asking in vain costs each request
 * a system call, so whether another message stands behind one is guessed from how
 * it was of late; one that is not asked for is told by the loop. A message goes to
 * a buffer whose WRITE payload is page-aligned. The request that wants the payload keeps
 * the buffer, and the channel takes another.
 *
 * Back-pressure. Requests and buffers come from pools of queue_depth objects. Those
 * of a disk that does not answer would be all of them, and the kernel has one queue
 * for all disks: so beyond the pools there are some thousand more requests, with
 * memory that is allocated for them and no larger than their payload. Only with
 * none of these left is nothing received, and the kernel's queue holds the rest.
 * The descriptor stays readable meanwhile; so before the loop sleeps it is taken
 * off the loop, and put back with the first request that is given back.
 *
 * Descriptors. libfuse knows one descriptor for a session and answers there,
 * while the kernel wants an answer on the descriptor that the request was read
 * from. So all of libfuse's I/O goes through channel_io, which uses the
 * channel of the running thread, and nothing is answered from any other.
 *
 * Stopping: running -> stopping (nothing is received) -> stopped (nothing is in
 * flight; the loop ends). */
#include "channel.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fuse.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

#include "core/error.h"
#include "core/log.h"
#include "core/thread.h"
#include "core/time.h"
#include "request.h"

/* Taken in before the disk is given what there is; 64 was slower. */
#define REQUESTS_PER_TURN 2

/* So many messages in a row are asked whether another stands behind them, once
 * one did; otherwise one of so many is. */
#define ANOTHER_TRIES 16

/* A client that waits for each answer sends the next request this soon, if it
 * sends one; polling finds it before a sleep would. */
#define CLIENT_TURNAROUND_NS (100 * NS_PER_US)

/* Beyond the pools, for each loop. */
#define EXTRA_REQUESTS 4096
#define EXTRA_BYTES ((size_t)256 << 20)

/* How long memory that a burst of requests touched is kept. */
#define TRIM_NS (10 * NS_PER_S)

/* What libfuse 3.14 reads at most, and the kernel demands room for: a payload
 * and a page of headers. */
#define RECEIVE_BYTES (CHANNEL_PAYLOAD_BYTES + 4096)
#define WRITE_HEADERS_BYTES (sizeof(struct fuse_in_header) + sizeof(struct fuse_write_in))
_Static_assert(WRITE_HEADERS_BYTES == 80, "the protocol's headers of a write");

/* The kernel orders an answer before whatever is asked because of it, on another
 * channel's descriptor too. ThreadSanitizer knows that of one descriptor alone. */
#ifdef __SANITIZE_THREAD__
#include <sanitizer/tsan_interface.h>
#define answered_before(session) __tsan_release(session)
#define asked_after(session) __tsan_acquire(session)
#else
#define answered_before(session) ((void)0)
#define asked_after(session) ((void)0)
#endif

static __thread struct channel *self;

struct channel *channel_self(void)
{
	return self;
}

static ssize_t io_read(int fd, void *buffer, size_t length, void *opaque)
{
	ssize_t received;

	(void)fd;
	(void)opaque;
	received = read(self->fd, buffer, MIN(length, RECEIVE_BYTES));
	asked_after(self->session);
	return received;
}

/* libfuse before 3.17 keeps FUSE_CAP_PARALLEL_DIROPS for itself, and the kernel
 * then sends lookups one by one: one that waits for a store holds up all. So its
 * answer to INIT is completed here. */
static void complete_init(const struct iovec *iov, int count)
{
	struct fuse_init_out *out = count > 1 ? iov[1].iov_base : NULL;

	if (self->session->parallel_lookups && out && iov[1].iov_len >= FUSE_COMPAT_22_INIT_OUT_SIZE)
		out->flags |= FUSE_PARALLEL_DIROPS;
}

/* What no request is answered by, a notification, comes from any thread. */
static ssize_t io_writev(int fd, struct iovec *iov, int count, void *opaque)
{
	(void)opaque;
	if (!self)
		return writev(fd, iov, count);
	if (self->opcode == FUSE_INIT)
		complete_init(iov, count);
	answered_before(self->session);
	return writev(self->fd, iov, count);
}

const struct fuse_custom_io channel_io = {.writev = io_writev, .read = io_read};

static void watch(struct channel *channel, bool on)
{
	if (channel->watched == on)
		return;
	channel->watched = on;
	if (on)
		loop_add_source(channel->loop, &channel->source);
	else
		loop_remove_source(channel->loop, &channel->source);
}

static void trim_later(struct channel *channel)
{
	if (channel->trim_set)
		return;
	channel->trim_set = true;
	loop_timer_set(channel->loop, &channel->trim, loop_now_ns() + TRIM_NS);
}

static void trim_expired(struct loop_timer *timer)
{
	struct channel *channel = container_of(timer, struct channel, trim);

	channel->trim_set = false;
	if (channel->in_flight > 0 || loop_now_ns() - channel->last_reply_ns < TRIM_NS) {
		trim_later(channel);
		return;
	}
	pool_trim(channel->receives);
	pool_trim(channel->reads);
}

static bool has_room(struct channel *channel)
{
	if (pool_available(channel->requests) > 0)
		return true;
	if (!channel->spare && channel->extra < EXTRA_REQUESTS && channel->extra_bytes < EXTRA_BYTES)
		channel->spare = g_try_malloc(sizeof(struct request));
	return channel->spare;
}

struct request *channel_take_request(struct channel *channel)
{
	struct request *request = pool_get(channel->requests);

	if (request)
		return request;
	channel->extra++;
	return g_steal_pointer(&channel->spare);
}

void channel_put_request(struct channel *channel, struct request *request)
{
	if (pool_owns(channel->requests, request)) {
		pool_put(channel->requests, request);
		return;
	}
	channel->extra--;
	g_free(request);
}

void *channel_extra_buffer(struct channel *channel, size_t bytes, size_t *extra_bytes)
{
	void *buffer = NULL;

	if (posix_memalign(&buffer, BLOCK_SIZE, MAX(bytes, 1)) != 0)
		return NULL;
	*extra_bytes = bytes;
	channel->extra_bytes += bytes;
	return buffer;
}

void channel_put_buffer(struct channel *channel, struct pool *pool, void *buffer, size_t extra_bytes)
{
	if (pool_owns(pool, buffer)) {
		pool_put(pool, buffer);
		return;
	}
	channel->extra_bytes -= extra_bytes;
	free(buffer);
}

/* libfuse tells an operation nothing of the message that it is about. */
static void process(struct channel *channel, const struct fuse_buf *message)
{
	const struct fuse_in_header *header = message->mem;

	channel->opcode = header->opcode;
	channel->reply_kind = reply_kind_of(header->opcode, header->nodeid);
	log_debug_data(LOG_FUSE, "request %" PRIu64 ": opcode %u, node %" PRIu64, (uint64_t)header->unique,
		       (unsigned)header->opcode, (uint64_t)header->nodeid);
	fuse_session_process_buf(channel->session->fuse, message);
}

/* While they come in bunches the next turn asks once more: it is likely to find one,
 * and a sleep would cost a system call before that. */
static void found_none(struct channel *channel)
{
	channel->source.readable = channel->another > 0 && !channel->in_vain;
	channel->in_vain = true;
}

/* Takes in one message and has it processed; false when there is none. */
static bool receive_one(struct channel *channel)
{
	struct fuse_buf message = {0};
	int received;

	if (!channel->receive)
		channel->receive = pool_get(channel->receives);
	message.mem = channel->receive;
	received = fuse_session_receive_buf(channel->session->fuse, &message);
	if (received > 0) {
		channel->in_vain = false;
		process(channel, &message);
		return true;
	}
	if (received == -EAGAIN)
		found_none(channel);
	if (received == -EAGAIN || received == -EINTR)
		return false;
	if (received < 0)
		log_error("the FUSE connection failed: %s", g_strerror(-received));
	channel->stop(channel->session);
	return false;
}

/* Whether to ask for another message behind the one that is taken. */
static bool expects_another(struct channel *channel)
{
	if (channel->another > 0 || ++channel->alone % ANOTHER_TRIES == 0)
		return true;
	channel->source.readable = false;
	return false;
}

static int receive_some(struct channel *channel)
{
	int taken = 0;

	while (taken < REQUESTS_PER_TURN && has_room(channel)) {
		if (taken > 0 && !expects_another(channel))
			break;
		if (!receive_one(channel)) {
			channel->another -= taken > 0 && channel->another > 0;
			break;
		}
		if (taken++ > 0)
			channel->another = ANOTHER_TRIES;
	}
	return taken;
}

static int dispatch(struct loop_source *source)
{
	struct channel *channel = container_of(source, struct channel, source);
	int taken;

	if (channel->stopping || atomic_load_explicit(&channel->session->stopping, memory_order_relaxed))
		return 0;
	taken = source->readable ? receive_some(channel) : 0;
	if (taken > 0)
		trim_later(channel);
	return taken;
}

static bool is_busy(struct loop_source *source)
{
	struct channel *channel = container_of(source, struct channel, source);

	return channel->in_flight > 0 || loop_now_ns() - channel->last_reply_ns < CLIENT_TURNAROUND_NS;
}

static bool before_sleep(struct loop_source *source)
{
	struct channel *channel = container_of(source, struct channel, source);

	if (!has_room(channel))
		watch(channel, false);
	return false;
}

static void stop_run(struct loop_task *task)
{
	struct channel *channel = container_of(task, struct channel, stop_task);

	channel->stopping = true;
	watch(channel, false);
	loop_timer_cancel(&channel->trim);
	channel->stopped = channel->in_flight == 0;
	if (!channel->stopped)
		log_info("stopping; %u requests are still in work", channel->in_flight);
}

void channel_stop(struct channel *channel)
{
	loop_post(channel->loop, &channel->stop_task);
}

void channel_request_done(struct channel *channel)
{
	channel->in_flight--;
	channel->last_reply_ns = loop_now_ns();
	if (!channel->stopping)
		watch(channel, true);
	else if (channel->in_flight == 0)
		channel->stopped = true;
}

static bool make_pools(struct channel *channel, unsigned depth, GError **error)
{
	channel->requests = pool_new(sizeof(struct request), depth, 64, 0, error);
	if (!channel->requests)
		return false;
	channel->receives = pool_new(RECEIVE_BYTES, depth + 1, 4096, 4096 - WRITE_HEADERS_BYTES, error);
	if (!channel->receives)
		return false;
	channel->reads = pool_new(DISK_READ_BUFFER_BYTES, depth, 4096, 0, error);
	return channel->reads != NULL;
}

static bool make_parts(struct channel *channel, GError **error)
{
	const struct mount_options *options = channel->session->options;
	struct disk_limits limits = {
		.queue_depth = (unsigned)options->queue_depth,
		.io_timeout_ns = options->io_timeout * NS_PER_S,
	};

	channel->loop = loop_new(error);
	if (!channel->loop || !make_pools(channel, limits.queue_depth, error))
		return false;
	channel->disks = disk_context_new(channel->loop, &limits, error);
	return channel->disks != NULL;
}

struct channel *channel_new(struct session *session, void (*stop)(struct session *session), GError **error)
{
	struct channel *channel = g_new0(struct channel, 1);

	channel->session = session;
	channel->stop = stop;
	channel->fd = -1;
	channel->source.dispatch = dispatch;
	channel->source.busy = is_busy;
	channel->source.prepare = before_sleep;
	channel->stop_task.run = stop_run;
	loop_timer_init(&channel->trim, trim_expired);
	if (make_parts(channel, error))
		return channel;
	channel_free(channel);
	return NULL;
}

static int clone_descriptor(int master, GError **error)
{
	uint32_t source = (uint32_t)master;
	int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);

	if (fd < 0) {
		error_set_errno(error, errno, "cannot open /dev/fuse for another thread");
	} else if (ioctl(fd, FUSE_DEV_IOC_CLONE, &source) != 0) {
		error_set_errno(error, errno, "cannot clone the FUSE descriptor; use threads=1");
		close(fd);
		fd = -1;
	}
	return fd;
}

static int duplicate_descriptor(int master, GError **error)
{
	int fd = fcntl(master, F_DUPFD_CLOEXEC, 0);

	if (fd < 0)
		error_set_errno(error, errno, "cannot duplicate the FUSE descriptor");
	return fd;
}

/* The session's own number is libfuse's, which closes it with the mount: a channel
 * that is still at work would answer to whatever is opened under it next. */
bool channel_attach(struct channel *channel, bool clone, GError **error)
{
	int master = fuse_session_fd(channel->session->fuse);
	int flags;

	channel->fd = clone ? clone_descriptor(master, error) : duplicate_descriptor(master, error);
	if (channel->fd < 0)
		return false;
	flags = fcntl(channel->fd, F_GETFL);
	if (flags < 0 || fcntl(channel->fd, F_SETFL, flags | O_NONBLOCK) != 0)
		return error_set_errno(error, errno, "cannot make the FUSE descriptor non-blocking");
	channel->source.fd = channel->fd;
	watch(channel, true);
	return true;
}

void channel_free(struct channel *channel)
{
	if (!channel)
		return;
	watch(channel, false);
	disk_context_free(channel->disks);
	if (channel->receive)
		pool_put(channel->receives, channel->receive);
	g_free(channel->spare);
	pool_free(channel->requests);
	pool_free(channel->receives);
	pool_free(channel->reads);
	loop_free(channel->loop);
	if (channel->fd >= 0)
		close(channel->fd);
	g_free(channel);
}

static void serve(void *opaque)
{
	struct channel *channel = opaque;
	enum thread_kind before = thread_become(THREAD_LOOP);

	self = channel;
	loop_run(channel->loop, &channel->stopped);
	self = NULL;
	thread_become(before);
}

bool channel_start(struct channel *channel, GError **error)
{
	channel->relay = relay_start(channel->loop, "leafdisk-loop", THREAD_LOOP, serve, channel, error);
	return channel->relay;
}

void channel_join(struct channel *channel)
{
	relay_join(g_steal_pointer(&channel->relay));
	disk_context_drain(channel->disks);
}

void channel_run(struct channel *channel)
{
	g_autoptr(GError) error = NULL;

	if (channel_start(channel, &error)) {
		channel_join(channel);
		return;
	}
	log_warning("%s; the mount is served by its first one", error->message);
	serve(channel);
}
