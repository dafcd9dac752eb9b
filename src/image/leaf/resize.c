/* Resize: the new size becomes durable together with the table that fits it, by
 * the header of a checkpoint.
 *
 *   1. prepare, on a background thread: what growth needs is found (the bytes
 *      past the old end are zeros; a chunk that is to keep zero bits has a slot),
 *      none of which a reader can see;
 *   2. the resize is an entry of the commit queue. Its commit is a checkpoint
 *      that encodes the table, the zero list and the header as of the new size;
 *      memory stays as it is;
 *   3. when that is durable, and before the next commit, memory follows: chunks
 *      past the new end lose their slots, which are punched.
 *
 * So a crash leaves the old size with its table or the new one with its own, and
 * a checkpoint that finds no room leaves the disk as it was. Nobody but a commit
 * changes the header. */
#include "resize.h"

#include <string.h>

#include "bits.h"
#include "dirty.h"
#include "discard.h"
#include "geometry.h"
#include "lock.h"
#include "slots.h"
#include "table.h"

uint64_t leaf_resize_size(const struct leaf *leaf, const struct leaf_resize *resize)
{
	return resize ? resize->new_bytes : leaf->image.size_bytes;
}

static bool cuts(const struct leaf_resize *resize)
{
	return resize && resize->new_bytes < resize->old_bytes;
}

/* Bits of the last chunk that stay. */
static void cut_bits(const struct leaf *leaf, uint64_t *words, uint32_t first)
{
	bits_clear(words, first, leaf->geometry.chunk_blocks - first);
}

bool leaf_resize_encode_locked(const struct leaf *leaf, const struct leaf_resize *resize, struct chunk *chunk,
			       le64 *out)
{
	uint64_t bits[2 * LEAF_CHUNK_BYTES_MAX / BLOCK_SIZE / 64];
	uint32_t words = leaf->geometry.words, per_chunk = leaf->geometry.chunk_blocks;
	uint64_t end = blocks_of(leaf_resize_size(leaf, resize));

	leaf_assert_locked(leaf);
	memcpy(bits, chunk->bits, 2 * words * sizeof(bits[0]));
	if (cuts(resize) && chunk->index >= end / per_chunk) {
		uint32_t first = chunk->index == end / per_chunk ? (uint32_t)(end % per_chunk) : 0;

		cut_bits(leaf, bits, first);
		cut_bits(leaf, bits + words, first);
	}
	if (resize && resize->partial == chunk) {
		bits_set(bits, resize->zeros.head_first, resize->zeros.head_blocks);
		bits_set(bits + words, resize->zeros.head_first, resize->zeros.head_blocks);
	}
	out[0] = le64_of(chunk->index);
	for (uint32_t i = 0; i < 2 * words; i++)
		out[1 + i] = le64_of(bits[i]);
	return bits_any_set(bits, 0, per_chunk);
}

struct intervals *leaf_resize_zero_locked(const struct leaf *leaf, const struct leaf_resize *resize)
{
	uint64_t limit = leaf_chunk_count(leaf, leaf_resize_size(leaf, resize));
	struct intervals *zero = intervals_new();

	leaf_assert_locked(leaf);
	for (unsigned i = 0; i < intervals_length(leaf->zero); i++) {
		struct interval interval = intervals_get(leaf->zero, i);

		if (interval.first >= limit)
			break;
		intervals_add(zero, interval.first, MIN(interval.count, limit - interval.first));
	}
	if (resize)
		intervals_add(zero, resize->zeros.whole.first, resize->zeros.whole.count);
	return zero;
}

void leaf_resize_mark_locked(struct leaf *leaf, const struct leaf_resize *resize)
{
	uint64_t first = leaf_resize_size(leaf, resize) >> leaf->geometry.chunk_shift;

	leaf_assert_locked(leaf);
	if (!resize)
		return;
	if (resize->partial)
		leaf_page_mark_dirty_locked(leaf, resize->partial->slot);
	for (uint64_t slot = 0; cuts(resize) && slot < leaf->slots->len; slot++) {
		const struct chunk *chunk = leaf_slot_chunk(leaf, slot);

		if (chunk && chunk->index >= first && chunk->index < LEAF_CHUNK_ZERO_LIST)
			leaf_page_mark_dirty_locked(leaf, slot);
	}
	leaf->zero_dirty |= resize->zeros.whole.count > 0;
	if (intervals_length(leaf->zero) && cuts(resize)) {
		struct interval last = intervals_get(leaf->zero, intervals_length(leaf->zero) - 1);

		leaf->zero_dirty |= last.first + last.count > leaf_chunk_count(leaf, resize->new_bytes);
	}
}

static void follow_growth(struct leaf *leaf, const struct leaf_resize *resize)
{
	const struct leaf_zero_parts *zeros = &resize->zeros;

	LOCK_GUARD(&leaf->lock);
	if (resize->partial) {
		bits_set(chunk_present(leaf, resize->partial), zeros->head_first, zeros->head_blocks);
		bits_set(chunk_zero(leaf, resize->partial), zeros->head_first, zeros->head_blocks);
	}
	intervals_add(leaf->zero, zeros->whole.first, zeros->whole.count);
	leaf->image.size_bytes = resize->new_bytes;
}

/* The bytes past the end in the last block become zeros. */
int leaf_resize_clear_tail(struct leaf *leaf, uint64_t size_bytes)
{
	uint64_t block = size_bytes >> BLOCK_SHIFT;
	uint32_t in_block = (uint32_t)(size_bytes & (BLOCK_SIZE - 1));
	uint32_t in_chunk = (uint32_t)(block % leaf->geometry.chunk_blocks);
	static const uint8_t zeros[BLOCK_SIZE];
	struct chunk *chunk;
	uint64_t offset = 0;
	int result;

	lock_take(&leaf->lock);
	chunk = leaf_chunk_find(leaf, block / leaf->geometry.chunk_blocks);
	if (in_block && chunk && bits_test(chunk_present(leaf, chunk), in_chunk) &&
	    !bits_test(chunk_zero(leaf, chunk), in_chunk)) {
		offset = leaf_slot_offset(&leaf->geometry, chunk->slot) + ((uint64_t)in_chunk << BLOCK_SHIFT);
		chunk->users++;
	}
	lock_let_go(&leaf->lock);
	if (!offset)
		return 0;
	result = image_file_write(&leaf->file, zeros, BLOCK_SIZE - in_block, offset + in_block);
	lock_take(&leaf->lock);
	leaf->unflushed = true;
	leaf_chunk_put_locked(leaf, chunk, false);
	lock_let_go(&leaf->lock);
	return result;
}

/* What is past the end is no longer anybody's: what cannot be punched, or
 * cleared, is space lost until the slot has its next owner, or is cleared when
 * the disk grows again. */
static void follow_shrink(struct leaf *leaf, const struct leaf_resize *resize)
{
	lock_take(&leaf->lock);
	leaf->image.size_bytes = resize->new_bytes;
	lock_let_go(&leaf->lock);
	leaf_zero_cut(leaf, blocks_of(resize->new_bytes));
	(void)leaf_resize_clear_tail(leaf, resize->new_bytes);
}

void leaf_resize_settle(struct leaf *leaf, struct leaf_resize *resize)
{
	if (cuts(resize))
		follow_shrink(leaf, resize);
	else
		follow_growth(leaf, resize);
}

void leaf_resize_free_locked(struct leaf *leaf, struct leaf_resize *resize)
{
	leaf_assert_locked(leaf);
	if (resize->partial)
		leaf_chunk_put_locked(leaf, resize->partial, true);
	g_free(resize);
}
