/* The checking wrapper round every driver call.
 *
 * Whatever is out of bounds, unaligned or not allowed ends here, so that a
 * driver can rely on its arguments. */
#include "image/image.h"

#include <errno.h>
#include <inttypes.h>

#include "core/error.h"
#include "core/log.h"
#include "core/random.h"
#include "driver.h"
#include "image/children.h"
#include "file.h"
#include "mark.h"

void image_make_uuid(uint8_t uuid[IMAGE_UUID_BYTES])
{
	_Static_assert(IMAGE_UUID_BYTES == RANDOM_UUID_BYTES, "it is a UUID");
	random_make_uuid(uuid);
}

int image_begin_writing(struct image *image, const uint8_t *claim)
{
	uint8_t own[IMAGE_CLAIM_BYTES];
	int result = 0;

	if (!claim)
		image_make_uuid(own);
	if (!image->begun)
		result = image->ops->begin_writing(image, claim ? claim : own);
	image->begun = result == 0;
	return result;
}

bool image_can_be_identified(const struct image *image)
{
	return image->ops->set_identity && image->has_claim == ANSWER_YES;
}

bool image_identify(struct image *image)
{
	uint8_t uuid[IMAGE_UUID_BYTES];

	if (!image_can_be_identified(image))
		return false;
	image_make_uuid(uuid);
	return image->ops->set_identity(image, uuid);
}

static int note_children(struct image *image, const struct image_child *children, unsigned count)
{
	struct image_file *file = image->ops->file(image);
	g_autofree char *before = NULL, *mark = NULL;
	g_autoptr(GError) error = NULL;

	if (!image->ops->read_mark(file, &before, &error))
		return error_to_errno(error);
	mark = g_strdup(before);
	for (unsigned i = 0; i < count; i++) {
		char *more = mark_with(mark, children[i].uuid, children[i].path);

		g_free(mark);
		mark = more;
	}
	if (g_strcmp0(mark, before) == 0 || image->ops->write_mark(file, mark, &error))
		return 0;
	return error_to_errno(error);
}

int image_seal(struct image *image, const struct image_child *children, unsigned count)
{
	int result = note_children(image, children, count);

	image->writable = image->begun = false;
	image_file_lower_lock(image->ops->file(image));
	return result;
}

int image_close(struct image *image)
{
	if (!image)
		return 0;
	log_debug(LOG_IMAGE, "%s: closing", image->path);
	return image->ops->close(image);
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
	log_debug_data(LOG_IMAGE, "%s: read of %u bytes at %" PRIu64, io->image->path, io->length, io->offset);
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
	log_debug_data(LOG_IMAGE, "%s: write of %u bytes at %" PRIu64, io->image->path, io->length, io->offset);
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
	log_debug_data(LOG_IMAGE, "%s: flush", image->path);
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

void image_note_progress(struct image *image, struct image_op *op)
{
	if (!op_may_change(image, op))
		return;
	if (image->ops->note_progress && op->progress > image->progress && image->has_claim == ANSWER_YES)
		image->ops->note_progress(image, op);
	else
		image_op_complete(op, 0);
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
