/* Data: read, write, fsync, flush, fallocate, lseek.
 *
 * All but lseek are a disk_io each and never block the loop. What is about the
 * control tree is handed over: fallocate is not there for its files.
 *
 * Durability. A handle is dirty from the end of a change until a flush that
 * began later. close(2) flushes a dirty handle (op_flush), so it reports what
 * could not be written, and a mount that can be unmounted is durable.
 *
 * O_DSYNC, O_SYNC and RWF_DSYNC come with each write. Where the kernel passes
 * writes on as they are it leaves the rest to the answer: the write is followed by
 * a flush of the disk, which shares a commit with others as every flush does, and
 * then acknowledged. That goes for a file opened for direct I/O, and for a direct
 * write to any other (O_DIRECT came later, or the file was created with it): behind
 * an asynchronous one the kernel sends nothing. Where it keeps pages it sends an
 * fsync of its own. */
#include "ops.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <unistd.h>

#include "fuse/control/ops.h"
#include "refusal.h"
#include "request.h"

static struct request *request_of(struct disk_io *io)
{
	return container_of(io, struct request, io);
}

/* Beyond the end there is no room that anybody could make. */
static void note_failure(const struct request *request, const char *what, int64_t result)
{
	struct handle *handle = request->handle;

	if (request->io.offset < disk_size_bytes(handle->disk))
		refusal_note_failure(request->session, handle->node, what, (int)result);
}

static void read_done(struct disk_io *io, int64_t result)
{
	struct request *request = request_of(io);
	const char *data = io->buffer;

	if (result < 0) {
		note_failure(request, "read", result);
		request_reply(request, (int)result);
		return;
	}
	fuse_reply_buf(request->fuse, data + io->offset % BLOCK_SIZE, (size_t)result);
	request_free(request);
}

/* About an open file. NULL: the kernel names none, and has been answered. */
static struct request *new_for_handle(fuse_req_t fuse, const struct fuse_file_info *file)
{
	struct handle *handle = handle_of(file);
	struct request *request;

	if (!handle) {
		reply_now(fuse, -EBADF);
		return NULL;
	}
	request = request_new(fuse);
	request->handle = handle;
	return request;
}

void op_read(fuse_req_t fuse, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *file)
{
	struct request *request;

	if (control_owns(ino)) {
		control_op_read(fuse, ino, size, offset, file);
		return;
	}
	if (size > CHANNEL_PAYLOAD_BYTES || offset < 0) {
		reply_now(fuse, -EINVAL);
		return;
	}
	request = new_for_handle(fuse, file);
	if (!request)
		return;
	request->io.buffer = request_take_read_buffer(request, size + 2 * BLOCK_SIZE);
	if (!request->io.buffer) {
		request_reply(request, -ENOMEM);
		return;
	}
	request_submit(request, request->handle->disk, DISK_READ, (uint64_t)offset, size, read_done);
}

static struct request *new_change(fuse_req_t fuse, const struct fuse_file_info *file)
{
	struct request *request = new_for_handle(fuse, file);

	if (!request || request->handle->write)
		return request;
	request_reply(request, -EBADF);
	return NULL;
}

/* Flushes REQUEST's disk, whatever the handle had to do with it before. */
static void submit_flush(struct request *request, void (*done)(struct disk_io *io, int64_t result))
{
	atomic_store(&request->handle->dirty, false);
	request_submit(request, request->handle->disk, DISK_FLUSH, 0, 0, done);
}

static void reply_written(struct request *request)
{
	fuse_reply_write(request->fuse, (size_t)request->position);
	request_free(request);
}

static void reply_done(struct request *request)
{
	request_reply(request, 0);
}

static void change_flushed(struct disk_io *io, int64_t result)
{
	struct request *request = request_of(io);

	if (result >= 0) {
		request->finish(request);
		return;
	}
	atomic_store(&request->handle->dirty, true);
	note_failure(request, "flush", result);
	request_reply(request, (int)result);
}

/* A change has been made, or has failed: REPLY answers when it is as durable as
 * was asked for. */
static void change_done(struct request *request, int64_t result, void (*reply)(struct request *))
{
	atomic_store(&request->handle->dirty, true);
	request->finish = reply;
	if (result < 0) {
		note_failure(request, "write", result);
		request_reply(request, (int)result);
		return;
	}
	disk_note_room(request->handle->disk);
	if (request->durable)
		submit_flush(request, change_flushed);
	else
		reply(request);
}

static void write_done(struct disk_io *io, int64_t result)
{
	struct request *request = request_of(io);

	request->position = result;
	change_done(request, result, reply_written);
}

static void submit_write(struct request *request)
{
	request_submit(request, request->handle->disk, DISK_WRITE, (uint64_t)request->position, request->size,
		       write_done);
}

static void grown(struct disk_io *io, int64_t result)
{
	struct request *request = request_of(io);

	if (result < 0)
		request_reply(request, (int)result);
	else
		submit_write(request);
}

/* A new disk has no size yet that its writer must keep to. */
static void grow_and_write(struct request *request)
{
	struct disk *disk = request->handle->disk;
	uint64_t end = (uint64_t)request->position + request->size;

	if (disk_grow_in_room(disk, end))
		submit_write(request);
	else
		request_submit(request, disk, DISK_GROW, 0, end, grown);
}

/* DATA lies in the channel's receive buffer, page-aligned. */
void op_write(fuse_req_t fuse, fuse_ino_t ino, const char *data, size_t size, off_t offset, struct fuse_file_info *file)
{
	struct request *request;

	if (control_owns(ino)) {
		control_op_write(fuse, ino, data, size, file);
		return;
	}
	if (size > CHANNEL_PAYLOAD_BYTES || offset < 0) {
		reply_now(fuse, -EINVAL);
		return;
	}
	request = new_change(fuse, file);
	if (!request)
		return;
	request->durable = (file->flags & O_DSYNC) && (request->handle->direct || file->flags & O_DIRECT);
	request->io.buffer = request_keep_payload(request, data, size);
	if (!request->io.buffer) {
		request_reply(request, -ENOMEM);
		return;
	}
	request->position = offset;
	request->size = size;
	if (request->handle->grows)
		grow_and_write(request);
	else
		submit_write(request);
}

static void flush_done(struct disk_io *io, int64_t result)
{
	struct request *request = request_of(io);

	if (result < 0) {
		atomic_store(&request->handle->dirty, true);
		note_failure(request, "flush", result);
	}
	request_reply(request, (int)result);
}

static void flush(fuse_req_t fuse, struct handle *handle)
{
	struct request *request = request_new(fuse);

	request->handle = handle;
	submit_flush(request, flush_done);
}

void op_flush(fuse_req_t fuse, fuse_ino_t ino, struct fuse_file_info *file)
{
	struct handle *handle = control_owns(ino) ? NULL : handle_of(file);

	if (handle && handle->write && atomic_load(&handle->dirty))
		flush(fuse, handle);
	else
		reply_now(fuse, 0);
}

/* fsync covers the file, not the handle: one that was opened for reading makes
 * durable what others wrote. A disk that nobody writes has nothing to flush.
 * Time stamps are the image file's own, so fdatasync is no different. */
void op_fsync(fuse_req_t fuse, fuse_ino_t ino, int datasync, struct fuse_file_info *file)
{
	struct handle *handle = control_owns(ino) ? NULL : handle_of(file);

	(void)datasync;
	if (handle && (handle->write || node_is_written(session_of(fuse)->nodes, handle->node)))
		flush(fuse, handle);
	else
		reply_now(fuse, 0);
}

static void fallocate_done(struct disk_io *io, int64_t result)
{
	change_done(request_of(io), result, reply_done);
}

/* Cuts *LENGTH at the end of the disk. 0, or the errno that MODE earns by
 * reaching beyond: a disk does not grow by zeroing, as a device does not. */
static int cut_range(struct handle *handle, int mode, uint64_t offset, uint64_t *length)
{
	uint64_t size = disk_size_bytes(handle->disk);
	uint64_t left = offset < size ? size - offset : 0;

	if (*length > left && !(mode & FALLOC_FL_KEEP_SIZE))
		return handle->grows ? -EOPNOTSUPP : -ENOSPC;
	*length = MIN(*length, left);
	return 0;
}

/* Punching and zeroing only. Plain allocation would have to reserve space
 * that a later write is then sure of; layers cannot promise that, and to say
 * yes without it would be a lie. EOPNOTSUPP makes posix_fallocate(3) write. */
static bool choose_op(int mode, enum disk_op *op)
{
	switch (mode) {
	case FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE:
		*op = DISK_DISCARD;
		return true;
	case FALLOC_FL_ZERO_RANGE:
	case FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE:
		*op = DISK_ZERO;
		return true;
	default:
		return false;
	}
}

void op_fallocate(fuse_req_t fuse, fuse_ino_t ino, int mode, off_t offset, off_t length, struct fuse_file_info *file)
{
	uint64_t bytes = (uint64_t)length;
	struct request *request;
	enum disk_op op;
	int result;

	if (control_owns(ino) || !choose_op(mode, &op) || offset < 0 || length <= 0) {
		reply_now(fuse, -EOPNOTSUPP);
		return;
	}
	request = new_change(fuse, file);
	if (!request)
		return;
	request->durable = request->handle->durable;
	result = cut_range(request->handle, mode, (uint64_t)offset, &bytes);
	if (result != 0 || bytes == 0)
		request_reply(request, result);
	else
		request_submit(request, request->handle->disk, op, (uint64_t)offset, bytes, fallocate_done);
}

static bool go_on(void *opaque)
{
	return request_goes_on(opaque);
}

/* In an image of many extents it takes as long as they are many. */
static void lseek_run(struct request *request)
{
	request->position =
		disk_seek(request->handle->disk, (uint64_t)request->position, (int)request->flags, go_on, request);
	request->error = request->given_up ? REPLY_INTERRUPTED : (int)MIN(request->position, 0);
}

static void lseek_finish(struct request *request)
{
	if (request->error) {
		request_reply(request, request->error);
		return;
	}
	fuse_reply_lseek(request->fuse, request->position);
	request_free(request);
}

/* The kernel does the other kinds itself. */
void op_lseek(fuse_req_t fuse, fuse_ino_t ino, off_t offset, int whence, struct fuse_file_info *file)
{
	struct request *request;

	if ((whence != SEEK_DATA && whence != SEEK_HOLE) || offset < 0 || control_owns(ino)) {
		reply_now(fuse, offset < 0 ? -ENXIO : -EINVAL);
		return;
	}
	request = new_for_handle(fuse, file);
	if (!request)
		return;
	request->position = offset;
	request->flags = (unsigned)whence;
	request_offload(request, lseek_run, lseek_finish);
}
