/* A request of the kernel, from its arrival to its one reply. */
#include "request.h"

#include <linux/fuse.h>
#include <string.h>

#include "core/fault.h"
#include "core/log.h"
#include "core/thread.h"
#include "core/workers.h"

struct request *request_new(fuse_req_t fuse)
{
	struct channel *channel = channel_self();
	struct request *request = channel_take_request(channel);

	/* Not the whole: the names are large and their users set them. */
	memset(request, 0, offsetof(struct request, name));
	request->channel = channel;
	request->session = channel->session;
	request->fuse = fuse;
	request->opcode = channel->opcode;
	request->reply_kind = channel->reply_kind;
	channel->in_flight++;
	return request;
}

void request_free(struct request *request)
{
	struct channel *channel = request->channel;

	node_put(request->session->nodes, request->node);
	if (request->receive_buffer)
		channel_put_buffer(channel, channel->receives, request->receive_buffer, request->extra_bytes);
	if (request->read_buffer)
		channel_put_buffer(channel, channel->reads, request->read_buffer, request->extra_bytes);
	channel_put_request(channel, request);
	channel_request_done(channel);
}

bool request_set_name(char (*field)[NAME_MAX + 1], const char *name)
{
	size_t length = strlen(name);

	if (length > NAME_MAX)
		return false;
	memcpy(*field, name, length + 1);
	return true;
}

/* The channel needs one to go on receiving. */
void *request_keep_payload(struct request *request, const void *payload, size_t bytes)
{
	struct channel *channel = request->channel;

	if (pool_available(channel->receives) > 0) {
		request->receive_buffer = channel->receive;
		channel->receive = NULL;
		return (void *)(uintptr_t)payload;
	}
	request->receive_buffer = channel_extra_buffer(channel, bytes, &request->extra_bytes);
	if (request->receive_buffer)
		memcpy(request->receive_buffer, payload, bytes);
	return request->receive_buffer;
}

void *request_take_read_buffer(struct request *request, size_t bytes)
{
	request->read_buffer = pool_get(request->channel->reads);
	if (!request->read_buffer)
		request->read_buffer = channel_extra_buffer(request->channel, bytes, &request->extra_bytes);
	return request->read_buffer;
}

/* The operations that have work done for them, as subjects of fault points. */
static const char *name_of(uint32_t opcode)
{
	static const char *const names[] = {
		[FUSE_LOOKUP] = "LOOKUP",   [FUSE_GETATTR] = "GETATTR", [FUSE_SETATTR] = "SETATTR",
		[FUSE_UNLINK] = "UNLINK",   [FUSE_RENAME] = "RENAME",	[FUSE_RENAME2] = "RENAME",
		[FUSE_OPEN] = "OPEN",	    [FUSE_CREATE] = "CREATE",	[FUSE_STATFS] = "STATFS",
		[FUSE_OPENDIR] = "OPENDIR", [FUSE_LSEEK] = "LSEEK",	[FUSE_WRITE] = "COMMAND",
	};

	return opcode < G_N_ELEMENTS(names) ? names[opcode] : NULL;
}

/* An injected error comes in place of the work. Work that nobody waits for the
 * result of (RELEASE) gives something back, and is done. */
static void do_work(struct request *request)
{
	const char *name = name_of(request->opcode);
	int fault = name ? fault_hit("request", name) : 0;

	if (fault < 0)
		request->error = fault;
	else
		request->run(request);
}

static void work_run(struct loop_work *work)
{
	do_work(container_of(work, struct request, work));
}

static void work_done(struct loop_work *work)
{
	struct request *request = container_of(work, struct request, work);

	request->finish(request);
}

void request_offload(struct request *request, void (*run)(struct request *), void (*finish)(struct request *))
{
	request->run = run;
	request->finish = finish;
	request->work.work = work_run;
	request->work.done = work_done;
	loop_offload_wait(request->channel->loop, &request->work);
}

static void alone_done(struct loop_task *task)
{
	struct request *request = container_of(task, struct request, work.task);

	request->finish(request);
}

/* The request is the loop's from the post on. */
static void *alone_main(void *opaque)
{
	struct request *request = opaque;

	do_work(request);
	loop_post(request->channel->loop, &request->work.task);
	return NULL;
}

void request_start_thread(struct request *request, void (*run)(struct request *), void (*finish)(struct request *))
{
	int result;

	request->run = run;
	request->finish = finish;
	request->work.task.run = alone_done;
	result = thread_spawn(NULL, "leafdisk-cmd", THREAD_WAITER, alone_main, request);
	if (result < 0) {
		log_warning_limited("leafdisk-cmd", "refused",
				    "a command is refused, as no thread can be started for it: %s",
				    g_strerror(-result));
		request_reply(request, result);
	}
}

void request_submit(struct request *request, struct disk *disk, enum disk_op op, uint64_t offset, uint64_t length,
		    void (*done)(struct disk_io *io, int64_t result))
{
	struct disk_io *io = &request->io;

	io->context = request->channel->disks;
	io->disk = disk;
	io->op = op;
	io->offset = offset;
	io->length = length;
	io->done = done;
	disk_submit(io);
}

bool request_goes_on(struct request *request)
{
	if (fuse_req_interrupted(request->fuse) || atomic_load(&request->session->stopping))
		request->given_up = true;
	return !request->given_up;
}

void reply_now(fuse_req_t fuse, int error)
{
	reply_error(fuse, channel_self()->reply_kind, error);
}

void request_reply(struct request *request, int error)
{
	reply_error(request->fuse, request->reply_kind, error);
	request_free(request);
}

void request_reply_result(struct request *request)
{
	request_reply(request, request->error);
}

/* The kernel lets one synchronous direct write at a time through to a file, and
 * virtual machines write from many threads; measured with 1 ms of latency and 8
 * of them, this is 9 times faster. Our writes never extend a file, so they may
 * be parallel. libfuse 3.14 has no field for the flag, so the answer is put
 * together here. */
int reply_open_direct(fuse_req_t fuse, const void *handle)
{
	struct fuse_open_out out = {
		.fh = (uint64_t)(uintptr_t)handle,
		.open_flags = FOPEN_DIRECT_IO | FOPEN_PARALLEL_DIRECT_WRITES,
	};

	return fuse_reply_buf(fuse, (const char *)&out, sizeof(out));
}
