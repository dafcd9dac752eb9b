/* Redo extents: copies within the image that a crash in the middle of a batch
 * left owed (apply.c).
 *
 * The batch has happened, so its blocks are read where the copies would come
 * from. A writable open makes the copies and a checkpoint, then none is owed; an
 * image that is only read stays as it is. */
#include "redo.h"

#include <errno.h>

#include "bits.h"
#include "checkpoint.h"
#include "core/bisect.h"
#include "core/log.h"
#include "geometry.h"
#include "header.h"
#include "memory.h"
#include "report.h"
#include "slots.h"
#include "table.h"

static struct leaf_redo *redo_at(const struct leaf *leaf, guint i)
{
	return &g_array_index(leaf->redo, struct leaf_redo, i);
}

static int compare(const void *left, const void *right)
{
	const struct leaf_redo *a = left, *b = right;

	return (a->block > b->block) - (a->block < b->block);
}

/* END: of the one before. */
static bool check_one(struct leaf *leaf, const struct leaf_redo *redo, uint64_t end, struct leaf_report *report)
{
	uint32_t per_chunk = leaf->geometry.chunk_blocks;
	uint32_t first = (uint32_t)(redo->block % per_chunk);
	struct chunk *chunk = leaf_chunk_find(leaf, redo->block / per_chunk);

	if (redo->block < end)
		return leaf_damage(report, "two copies are owed to block %" G_GUINT64_FORMAT, redo->block);
	if (first + redo->blocks > per_chunk)
		return leaf_damage(report, "a copy to block %" G_GUINT64_FORMAT " reaches beyond its chunk",
				   redo->block);
	if (!chunk || !bits_all_set(chunk_present(leaf, chunk), first, (uint32_t)redo->blocks))
		return leaf_damage(report, "a copy is owed to block %" G_GUINT64_FORMAT ", which is not there",
				   redo->block);
	if (leaf_slot_chunk(leaf, redo->slot))
		return leaf_damage(report,
				   "a copy is owed to block %" G_GUINT64_FORMAT " from slot %" G_GUINT64_FORMAT
				   ", which has a chunk",
				   redo->block, redo->slot);
	return true;
}

void leaf_redo_check(struct leaf *leaf, struct leaf_report *report)
{
	uint64_t end = 0, owed = 0;
	guint kept = 0;

	g_array_sort(leaf->redo, compare);
	for (guint i = 0; i < leaf->redo->len && leaf_load_goes_on(report); i++) {
		struct leaf_redo redo = *redo_at(leaf, i);

		if (!check_one(leaf, &redo, end, report))
			continue;
		end = redo.block + redo.blocks;
		owed += redo.blocks;
		*redo_at(leaf, kept++) = redo;
	}
	g_array_set_size(leaf->redo, kept);
	if (owed > LEAF_OWED_BLOCKS_MAX)
		leaf_damage(report, "%" G_GUINT64_FORMAT " blocks are owed to it, more than a batch holds", owed);
}

static bool ends_by(const void *leaf, unsigned position, uint64_t block)
{
	const struct leaf_redo *redo = redo_at(leaf, position);

	return redo->block + redo->blocks <= block;
}

/* The first that ends behind BLOCK, or their number. */
static guint find(const struct leaf *leaf, uint64_t block)
{
	return bisect(leaf, leaf->redo->len, ends_by, block);
}

uint64_t leaf_redo_place(const struct leaf *leaf, uint64_t block, uint64_t offset, uint64_t *blocks)
{
	guint i = find(leaf, block);
	const struct leaf_redo *redo = i < leaf->redo->len ? redo_at(leaf, i) : NULL;

	if (!redo)
		return offset;
	if (redo->block > block) {
		*blocks = MIN(*blocks, redo->block - block);
		return offset;
	}
	*blocks = MIN(*blocks, redo->block + redo->blocks - block);
	return leaf_slot_offset(&leaf->geometry, redo->slot) +
	       ((redo->slot_block + block - redo->block) << BLOCK_SHIFT);
}

static int copy_one(struct leaf *leaf, const struct leaf_redo *redo)
{
	uint32_t per_chunk = leaf->geometry.chunk_blocks;
	struct chunk *chunk = leaf_chunk_find(leaf, redo->block / per_chunk);
	uint64_t from = leaf_slot_offset(&leaf->geometry, redo->slot) + (redo->slot_block << BLOCK_SHIFT);
	uint64_t to = leaf_slot_offset(&leaf->geometry, chunk->slot) + (redo->block % per_chunk << BLOCK_SHIFT);
	size_t bytes = redo->blocks << BLOCK_SHIFT;
	g_autofree uint8_t *data = leaf_memory_new(leaf->file.path, bytes);
	int result = data ? image_file_read(&leaf->file, data, bytes, from) : -ENOMEM;

	return result < 0 ? result : image_file_write(&leaf->file, data, bytes, to);
}

/* The record that owes the copies becomes durable before the first of them. */
int leaf_redo_copy(struct leaf *leaf)
{
	int result = leaf->redo->len ? leaf_header_level(&leaf->file) : 0;

	for (guint i = 0; i < leaf->redo->len && result == 0; i++)
		result = copy_one(leaf, redo_at(leaf, i));
	return leaf->redo->len && result == 0 ? image_file_sync(&leaf->file) : result;
}

int leaf_redo_finish(struct leaf *leaf)
{
	int result = leaf_redo_copy(leaf);
	guint extents = leaf->redo->len;

	if (result < 0 || !extents)
		return result;
	g_array_set_size(leaf->redo, 0);
	result = leaf_checkpoint_everything(leaf);
	if (result == 0)
		log_info("%s: finished a batch of %u extents that had been interrupted", leaf->image.path, extents);
	return result;
}
