/* The native layer: opening for use, closing, and its table of operations. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "apply.h"
#include "check.h"
#include "commit.h"
#include "core/error.h"
#include "core/log.h"
#include "create.h"
#include "discard.h"
#include "geometry.h"
#include "header.h"
#include "invariants.h"
#include "io.h"
#include "leaf.h"
#include "load.h"
#include "lock.h"
#include "mark.h"
#include "memory.h"
#include "redo.h"
#include "report.h"
#include "resize_op.h"
#include "room.h"
#include "table.h"

/* A journal that was only reserved would make every commit wait for the file
 * system to convert it: it is written once before its first use. */
static int write_journal_once(struct leaf *leaf)
{
	uint64_t start = le64_get(leaf->header.journal_offset), bytes = le64_get(leaf->header.journal_bytes);
	off_t hole = lseek(leaf->file.aio.buffered_fd, (off_t)start, SEEK_HOLE);
	g_autofree uint8_t *zeros = NULL;
	int result;

	if (leaf->journal_position != start || hole < 0 || (uint64_t)hole >= start + bytes)
		return 0;
	zeros = leaf_memory_new(leaf->file.path, bytes);
	if (!zeros)
		return -ENOMEM;
	result = image_file_write(&leaf->file, zeros, bytes, start);
	return verdict_final(STORE_IMAGE, STORE_RESERVE, result) == VERDICT_IGNORE ? 0 : result;
}

static void set_claim(struct leaf_header_ondisk *header, const uint8_t claim[IMAGE_CLAIM_BYTES])
{
	if (memcmp(header->claim, claim, sizeof(header->claim)) != 0)
		header->progress = le64_of(0);
	memcpy(header->claim, claim, sizeof(header->claim));
	header->features_read_only = le64_of(le64_get(header->features_read_only) | LEAF_FEATURE_CLAIM);
	header->features_incompatible = le64_of(le64_get(header->features_incompatible) | LEAF_FEATURE_PROGRESS);
}

/* The header in memory changes when that on disk has: after a failure this may
 * be called again. */
static int leaf_begin_writing(struct image *image, const uint8_t claim[IMAGE_CLAIM_BYTES])
{
	struct leaf *leaf = leaf_of(image);
	struct leaf_header_ondisk header = leaf->header;
	int result = leaf_header_level(&leaf->file);

	if (result == 0)
		result = write_journal_once(leaf);
	if (result < 0)
		return result;
	if (!image->sealed)
		header.generation = le64_of(image->generation + 1);
	set_claim(&header, claim);
	result = leaf_header_write(&leaf->file, &header);
	if (result < 0)
		return result;
	lock_take(&leaf->lock);
	leaf->header = header;
	lock_let_go(&leaf->lock);
	image->generation = le64_get(header.generation);
	memcpy(image->claim, claim, IMAGE_CLAIM_BYTES);
	image->progress = le64_get(header.progress);
	return 0;
}

static struct image *leaf_open(int fd, const char *path, unsigned flags, uint64_t base_offset, GError **error)
{
	g_autoptr(GError) inner = NULL;
	struct leaf_report report = {.path = path, .error = &inner};
	struct leaf *leaf = NULL;
	int result;

	if (base_offset)
		error_set(&inner, EINVAL, "%s: only a raw image can begin at an offset", path);
	else
		leaf = leaf_load(fd, path, flags, &report);
	if (leaf && leaf->image.writable && (result = leaf_redo_finish(leaf)) < 0) {
		error_set_errno(&inner, -result, "%s: a batch that was interrupted cannot be finished", path);
		g_clear_pointer(&leaf, leaf_free);
	}
	if (!leaf) {
		g_propagate_error(error, g_steal_pointer(&inner));
		return NULL;
	}
	leaf->image.ops = &leaf_image_ops;
	leaf_share(leaf);
	return &leaf->image;
}

/* Its space is nobody's. */
static void punch_redo_reserve(struct leaf *leaf)
{
	if (leaf->redo_reserve && !leaf->image.failed)
		(void)image_file_punch(&leaf->file, leaf_slot_offset(&leaf->geometry, leaf->redo_reserve->slot),
				       leaf->geometry.chunk_bytes);
}

static int leaf_close(struct image *image)
{
	struct leaf *leaf = leaf_of(image);
	struct image_op flush = {0};
	int result = image->failed ? -EIO : 0;

	if (image->begun && !image->failed)
		result = image_run_blocking(image, &flush, image_flush);
	punch_redo_reserve(leaf);
	lock_take(&leaf->lock);
	leaf_check_locked(leaf);
	lock_let_go(&leaf->lock);
	leaf_free(leaf);
	return result;
}

static struct image_file *leaf_file(struct image *image)
{
	return &leaf_of(image)->file;
}

static uint64_t leaf_allocated_bytes(struct image *image)
{
	return image_file_allocated(&leaf_of(image)->file);
}

const struct image_ops leaf_image_ops = {
	.name = "leaf",
	.open = leaf_open,
	.begin_writing = leaf_begin_writing,
	.close = leaf_close,
	.file = leaf_file,
	.extent = leaf_extent,
	.read = leaf_read,
	.write = leaf_write,
	.zero = leaf_zero,
	.flush = leaf_flush,
	.apply = leaf_apply,
	.resize = leaf_resize,
	.wait_room = leaf_wait_room,
	.allocated_bytes = leaf_allocated_bytes,
	.read_info = leaf_read_info,
	.create = leaf_create,
	.read_mark = leaf_read_mark,
	.write_mark = leaf_write_mark,
	.set_parent = leaf_set_parent,
	.check = leaf_check,
};
