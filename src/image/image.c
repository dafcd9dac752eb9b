/* The checking wrapper round every driver call.
 *
 * Whatever is out of bounds, unaligned or not allowed ends here, so that a
 * driver can rely on its arguments. */
#include "image/image.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "aio/blocking.h"
#include "core/error.h"
#include "core/thread.h"
#include "driver.h"
#include "file.h"
#include "format/leaf.h"

static const struct image_ops *const drivers[] = {
	[IMAGE_FORMAT_RAW] = &raw_image_ops,
	[IMAGE_FORMAT_LEAF] = &leaf_image_ops,
};

const char *image_format_name(enum image_format format)
{
	return format < G_N_ELEMENTS(drivers) && drivers[format] ? drivers[format]->name : NULL;
}

enum image_format image_format_from_name(const char *name)
{
	for (unsigned i = 0; i < G_N_ELEMENTS(drivers); i++)
		if (drivers[i] && strcmp(drivers[i]->name, name) == 0)
			return (enum image_format)i;
	return IMAGE_FORMAT_NONE;
}

static const struct image_ops *driver_of(const char *path, enum image_format format, GError **error)
{
	if (image_format_name(format))
		return drivers[format];
	error_set(error, EINVAL, "%s: its format is not one of raw, leaf", path);
	return NULL;
}

void image_parent_clear(struct image_parent *parent)
{
	g_clear_pointer(&parent->path, g_free);
	*parent = (struct image_parent){0};
}

void image_info_clear(struct image_info *info)
{
	image_parent_clear(&info->parent);
	*info = (struct image_info){0};
}

struct image *image_open(const char *path, enum image_format format, unsigned flags, uint64_t base_offset,
			 GError **error)
{
	return image_open_fd(IMAGE_BY_PATH, path, format, flags, base_offset, error);
}

struct image *image_open_fd(int fd, const char *path, enum image_format format, unsigned flags, uint64_t base_offset,
			    GError **error)
{
	const struct image_ops *ops = driver_of(path, format, error);
	struct image *image = ops ? ops->open(fd, path, flags, base_offset, error) : NULL;
	int result = image && image->writable && !(flags & IMAGE_BEGIN_LATER) ? image_begin_writing(image) : 0;

	if (result == 0)
		return image;
	error_set_errno(error, -result, "%s: cannot be made ready for writing", path);
	image_close(image);
	return NULL;
}

int image_begin_writing(struct image *image)
{
	int result = 0;

	if (!image->begun)
		result = image->ops->begin_writing(image);
	image->begun = result == 0;
	return result;
}

static int take_over(struct image *again, struct image *image)
{
	int result = again->device == image->device && again->inode == image->inode ? 0 : -ESTALE;

	if (result == 0)
		result = image_file_share_lock(again->ops->file(again), image->ops->file(image));
	again->locked = again->ops->file(again)->locked;
	return result < 0 ? result : image_begin_writing(again);
}

struct image *image_reopen(struct image *image, int fd, uint64_t base_offset, GError **error)
{
	unsigned flags = IMAGE_WRITABLE | IMAGE_BEGIN_LATER | IMAGE_NO_LOCK;
	struct image *again = image_open_fd(fd, image->path, image->format, flags, base_offset, error);
	int result = again ? take_over(again, image) : 0;

	if (result == 0)
		return again;
	error_set_errno(error, -result, "%s: cannot be made ready for writing", image->path);
	image_close(again);
	return NULL;
}

int image_close(struct image *image)
{
	return image ? image->ops->close(image) : 0;
}

static uint64_t image_blocks(const struct image *image)
{
	return blocks_of(image->size_bytes);
}

static struct image_extent extent_checked(struct image *image, uint64_t block, uint64_t blocks, bool may_block)
{
	uint64_t total = image_blocks(image);

	if (block >= total)
		return (struct image_extent){EXTENT_ABSENT, blocks};
	return image->ops->extent(image, block, MIN(blocks, total - block), may_block);
}

struct image_extent image_extent(struct image *image, uint64_t block, uint64_t blocks)
{
	return extent_checked(image, block, blocks, false);
}

struct image_extent image_extent_blocking(struct image *image, uint64_t block, uint64_t blocks)
{
	return extent_checked(image, block, blocks, true);
}

static bool io_is_valid(const struct image_io *io)
{
	uint64_t end = image_blocks(io->image) << BLOCK_SHIFT;

	return io->length && is_aligned(io->offset | io->length, BLOCK_SIZE) && io->offset <= end &&
	       io->length <= end - io->offset && is_aligned((uintptr_t)io->buffer, BLOCK_SIZE);
}

struct image_extent image_read(struct image_io *io)
{
	uint64_t total = image_blocks(io->image);
	uint64_t first = io->offset >> BLOCK_SHIFT;
	uint64_t blocks = io->length >> BLOCK_SHIFT;

	if (first >= total)
		return (struct image_extent){EXTENT_ABSENT, blocks};
	io->length = (uint32_t)(MIN(blocks, total - first) << BLOCK_SHIFT);
	return io->image->ops->read(io);
}

int64_t image_write(struct image_io *io)
{
	if (!io_is_valid(io))
		return -EINVAL;
	if (!io->image->writable)
		return -EROFS;
	if (io->image->failed)
		return -EIO;
	return io->image->ops->write(io);
}

static bool op_may_change(struct image *image, struct image_op *op)
{
	op->image = image;
	if (image->writable && !image->failed)
		return true;
	image_op_complete(op, image->writable ? -EIO : -EROFS);
	return false;
}

void image_wait_room(struct image *image, struct image_op *op)
{
	if (!op_may_change(image, op))
		return;
	if (image->ops->wait_room)
		image->ops->wait_room(image, op);
	else
		image_op_complete(op, 0);
}

void image_zero(struct image *image, struct image_op *op)
{
	uint64_t end = image_blocks(image) << BLOCK_SHIFT;

	if (!op_may_change(image, op))
		return;
	if (!is_aligned(op->offset | op->length, BLOCK_SIZE) || op->offset > end || op->length > end - op->offset)
		image_op_complete(op, -EINVAL);
	else
		image->ops->zero(image, op);
}

void image_flush(struct image *image, struct image_op *op)
{
	op->image = image;
	if (!image->writable)
		image_op_complete(op, 0);
	else if (image->failed)
		image_op_complete(op, -EIO);
	else
		image->ops->flush(image, op);
}

static bool apply_is_valid(const struct image *image, const struct image_op *op)
{
	uint64_t end = image_blocks(image) << BLOCK_SHIFT, last_end = 0;

	for (unsigned i = 0; i < op->extent_count; i++) {
		const struct image_apply_extent *extent = &op->extents[i];

		if (!is_aligned(extent->offset | extent->length | (uintptr_t)extent->data, BLOCK_SIZE) ||
		    extent->offset > end || extent->length > end - extent->offset || extent->offset < last_end)
			return false;
		last_end = extent->offset + extent->length;
	}
	return true;
}

unsigned image_apply_extents_max(const struct image *image)
{
	return image->apply_extents_max;
}

void image_apply(struct image *image, struct image_op *op)
{
	if (!op_may_change(image, op))
		return;
	if (!image->ops->apply)
		image_op_complete(op, -EOPNOTSUPP);
	else if (!apply_is_valid(image, op))
		image_op_complete(op, -EINVAL);
	else
		image->ops->apply(image, op);
}

void image_resize(struct image *image, struct image_op *op)
{
	if (op_may_change(image, op))
		image->ops->resize(image, op);
}

bool image_get_trouble(struct image *image, struct image_trouble *trouble)
{
	const struct aio_file *file = &image->ops->file(image)->aio;
	const struct aio_failure *failure = file->writing.error ? &file->writing : &file->reading;

	trouble->waiting = file->overdue;
	trouble->error = failure->error;
	trouble->since_ns = trouble->waiting ? file->overdue_since_ns : failure->since_ns;
	return trouble->waiting || trouble->error;
}

uint64_t image_allocated_bytes(struct image *image)
{
	return image->ops->allocated_bytes(image);
}

int image_stat(struct image *image, struct stat *st)
{
	return image_file_stat(image->ops->file(image), st);
}

static void run_done(struct loop_task *task)
{
	struct image_op *op = container_of(task, struct image_op, task);

	op->done(op, op->result);
}

void image_op_complete(struct image_op *op, int result)
{
	op->result = result;
	op->task.run = run_done;
	loop_post(aio_queue_loop(op->queue), &op->task);
}

struct offloaded {
	struct loop_work work;
	struct image_op *op;
	int (*run)(struct image_op *op);
};

static void offloaded_work(struct loop_work *work)
{
	struct offloaded *offloaded = container_of(work, struct offloaded, work);

	offloaded->op->result = offloaded->run(offloaded->op);
}

static void offloaded_done(struct loop_work *work)
{
	struct offloaded *offloaded = container_of(work, struct offloaded, work);
	struct image_op *op = offloaded->op;

	g_free(offloaded);
	op->done(op, op->result);
}

void image_op_offload(struct image_op *op, int (*run)(struct image_op *op))
{
	struct offloaded *offloaded = g_new0(struct offloaded, 1);

	offloaded->work = (struct loop_work){.work = offloaded_work, .done = offloaded_done};
	offloaded->op = op;
	offloaded->run = run;
	loop_offload_step(aio_queue_loop(op->queue), &offloaded->work);
}

struct blocking_run {
	bool finished;
	int result;
};

static _Thread_local struct blocking_run *blocking_run;

static void blocking_done(struct image_op *op, int result)
{
	(void)op;
	blocking_run->result = result;
	blocking_run->finished = true;
}

int image_run_blocking(struct image *image, struct image_op *op, void (*submit)(struct image *, struct image_op *))
{
	struct blocking_run run = {.result = -ENOMEM};
	struct blocking_loop *blocking;

	thread_assert_may_wait();
	blocking = blocking_loop_get();
	if (!blocking)
		return run.result;
	op->queue = blocking->queue;
	op->done = blocking_done;
	blocking_run = &run;
	submit(image, op);
	loop_run(blocking->loop, &run.finished);
	blocking_run = NULL;
	blocking_loop_put(blocking);
	return run.result;
}

static bool name_is_raw(const char *path)
{
	return g_str_has_suffix(path, ".raw") || g_str_has_suffix(path, ".img");
}

/* Either copy of the header tells: the other may be damaged. */
static bool has_leaf_magic(int fd)
{
	char magic[sizeof(LEAF_MAGIC) - 1];

	for (unsigned copy = 0; copy < LEAF_HEADER_COPIES; copy++)
		if (pread(fd, magic, sizeof(magic), (off_t)copy * LEAF_HEADER_BYTES) == sizeof(magic) &&
		    memcmp(magic, LEAF_MAGIC, sizeof(magic)) == 0)
			return true;
	return false;
}

enum image_format image_probe(const char *path, GError **error)
{
	return image_probe_fd(IMAGE_BY_PATH, path, error);
}

enum image_format image_probe_fd(int fd, const char *path, GError **error)
{
	enum image_format format = IMAGE_FORMAT_NONE;
	int readable;

	if (name_is_raw(path))
		return IMAGE_FORMAT_RAW;
	readable = image_file_reopen(fd, path, O_RDONLY);
	if (readable < 0) {
		error_set_errno(error, errno, "%s: cannot be read", path);
		return format;
	}
	if (has_leaf_magic(readable))
		format = IMAGE_FORMAT_LEAF;
	close(readable);
	return format;
}

bool image_read_info(const char *path, enum image_format format, struct image_info *info, GError **error)
{
	return image_read_info_fd(IMAGE_BY_PATH, path, format, info, error);
}

bool image_read_info_fd(int fd, const char *path, enum image_format format, struct image_info *info, GError **error)
{
	const struct image_ops *ops = driver_of(path, format, error);

	*info = (struct image_info){.format = format};
	if (ops && ops->read_info(fd, path, info, error))
		return true;
	image_info_clear(info);
	return false;
}

bool image_create(const char *path, enum image_format format, const struct image_create_options *options,
		  GError **error)
{
	return image_create_in(AT_FDCWD, path, format, options, error);
}

bool image_create_in(int directory, const char *path, enum image_format format,
		     const struct image_create_options *options, GError **error)
{
	const struct image_ops *ops = driver_of(path, format, error);

	return ops && ops->create(directory, path, options, error);
}

bool image_set_parent(const char *path, const struct image_parent *parent, GError **error)
{
	return leaf_image_ops.set_parent(path, parent, error);
}

bool image_check(const char *path, enum image_format format, bool repair,
		 void (*finding)(void *opaque, bool repaired, const char *sentence), void *opaque,
		 struct image_check_result *result, GError **error)
{
	const struct image_ops *ops = driver_of(path, format, error);

	*result = (struct image_check_result){0};
	return ops && ops->check(path, repair, finding, opaque, result, error);
}
