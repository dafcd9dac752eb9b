/* The plan of a batch: what goes where, and what its record will hold.
 *
 * Each extent is cut at chunks and where presence changes. A piece whose
 * blocks hold data goes to a redo slot first; any other straight to its place,
 * which nothing names yet. Whole chunks of zeros are intervals, whatever they
 * hold now: nothing is looked up or taken for them before the batch is
 * durable.
 *
 * Redo slots stand in no table, only in APPLY entries. When APPLIED is durable,
 * or no record was written, nothing names them, and they are free at once: the
 * next batch writes over space that the file already has. The first of them is
 * kept: a full store must take what the guest writes over what it has, or a
 * cache in front of it could never be emptied. */
#include "plan.h"

#include <errno.h>
#include <string.h>

#include "bits.h"
#include "dirty.h"
#include "discard.h"
#include "geometry.h"
#include "journal.h"
#include "lock.h"
#include "room.h"
#include "slots.h"
#include "spare.h"
#include "table.h"

/* Extents and pieces that one hold of the lock goes through. */
#define BATCH_EXTENTS 256

#define ENTRY_BYTES(values) (sizeof(struct leaf_journal_entry_ondisk) + (values) * sizeof(le64))

#define PROGRESS_VALUES (IMAGE_CLAIM_BYTES / sizeof(le64) + 1)
#define PROGRESS_BYTES ENTRY_BYTES(PROGRESS_VALUES)

uint64_t leaf_plan_journal_bytes(const struct apply_plan *plan, uint64_t waiting)
{
	uint64_t record = sizeof(struct leaf_record_ondisk) + plan->entry_bytes + waiting;

	return round_up(record, LEAF_PAGE_BYTES) + LEAF_PAGE_BYTES;
}

unsigned leaf_plan_extents_max(uint64_t journal_bytes)
{
	uint64_t record = journal_bytes - LEAF_PAGE_BYTES;

	return (unsigned)((record - sizeof(struct leaf_record_ondisk) - PROGRESS_BYTES) / ENTRY_BYTES(4));
}

struct apply_plan *leaf_plan_of(struct image_op *op)
{
	return op->driver;
}

bool leaf_plan_fits_locked(struct leaf *leaf, const struct apply_plan *plan)
{
	leaf_assert_locked(leaf);
	return leaf_plan_journal_bytes(plan, leaf_journal_waiting_bytes_locked(leaf)) <= leaf_journal_room(leaf);
}

/* True: try again. */
static bool room_came_relock(struct leaf *leaf, int *errnum)
{
	leaf_assert_locked(leaf);
	if (*errnum == -EAGAIN)
		*errnum = leaf_room_extend_relock(leaf);
	return *errnum == 0;
}

static struct chunk *take_redo_slot_relock(struct leaf *leaf, int *errnum)
{
	struct chunk *slot;

	leaf_assert_locked(leaf);
	*errnum = 0;
	if (leaf->redo_reserve)
		return g_steal_pointer(&leaf->redo_reserve);
	do
		slot = leaf_slot_take_locked(leaf, LEAF_CHUNK_FREE, errnum);
	while (!slot && room_came_relock(leaf, errnum));
	return slot;
}

static int plan_redo_relock(struct apply_plan *plan, struct piece *piece)
{
	struct leaf *leaf = plan->leaf;
	int errnum = 0;

	leaf_assert_locked(plan->leaf);
	if (!plan->redo_slots->len || plan->redo_used + piece->blocks > leaf->geometry.chunk_blocks) {
		struct chunk *slot = take_redo_slot_relock(leaf, &errnum);

		if (!slot)
			return errnum;
		g_ptr_array_add(plan->redo_slots, slot);
		plan->redo_used = 0;
	}
	piece->redo_slot = plan->redo_slots->pdata[plan->redo_slots->len - 1];
	piece->redo_block = plan->redo_used;
	plan->redo_used += piece->blocks;
	plan->owed_blocks += piece->blocks;
	/* A copy at the next open needs the blocks to be in the table. */
	if (piece->chunk->soft)
		leaf_chunk_mark_dirty_locked(leaf, piece->chunk);
	return 0;
}

static int add_piece_relock(struct apply_plan *plan, struct piece *piece)
{
	struct chunk *chunk = piece->chunk;
	bool is_data = bits_test(chunk_present(plan->leaf, chunk), piece->first) &&
		       !bits_test(chunk_zero(plan->leaf, chunk), piece->first);
	int result = piece->data && is_data ? plan_redo_relock(plan, piece) : 0;

	leaf_assert_locked(plan->leaf);
	if (result < 0)
		return result;
	chunk->users++;
	chunk->writers++;
	plan->entry_bytes += piece->redo_slot ? ENTRY_BYTES(4) : ENTRY_BYTES(3);
	g_array_append_vals(plan->pieces, piece, 1);
	return 0;
}

static int plan_pieces_relock(struct apply_plan *plan, struct chunk *chunk, uint32_t first, uint32_t blocks,
			      uint8_t *data)
{
	struct leaf *leaf = plan->leaf;
	int result = 0;

	leaf_assert_locked(plan->leaf);
	for (uint32_t n; blocks && result == 0; first += n, blocks -= n) {
		struct piece piece = {.chunk = chunk, .first = first, .data = data};

		n = data ? bits_run(chunk_present(leaf, chunk), chunk_zero(leaf, chunk), first, blocks) : blocks;
		piece.blocks = n;
		result = add_piece_relock(plan, &piece);
		data = data ? data + ((size_t)n << BLOCK_SHIFT) : NULL;
	}
	return result;
}

/* Zeros in a chunk that has no slot and reads as zeros already. */
static bool is_zero_already(const struct apply_plan *plan, uint64_t index, const uint8_t *data)
{
	return !data && (plan->bottom || intervals_contains(plan->leaf->zero, index, 1, NULL));
}

static struct chunk *find_or_allocate_locked(struct leaf *leaf, uint64_t index, int *errnum)
{
	struct chunk *chunk = leaf_chunk_find(leaf, index);

	leaf_assert_locked(leaf);
	return chunk ? chunk : leaf_chunk_allocate_locked(leaf, index, errnum);
}

static int plan_in_chunk_relock(struct apply_plan *plan, uint64_t index, uint32_t first, uint32_t blocks, uint8_t *data)
{
	struct chunk *chunk = blocks ? leaf_chunk_find(plan->leaf, index) : NULL;
	int errnum = 0;

	leaf_assert_locked(plan->leaf);
	if (!blocks || (!chunk && is_zero_already(plan, index, data)))
		return 0;
	while (!chunk && room_came_relock(plan->leaf, &errnum))
		chunk = find_or_allocate_locked(plan->leaf, index, &errnum);
	return chunk ? plan_pieces_relock(plan, chunk, first, blocks, data) : errnum;
}

static int plan_data_relock(struct apply_plan *plan, uint64_t block, uint64_t blocks, uint8_t *data)
{
	uint32_t per_chunk = plan->leaf->geometry.chunk_blocks;
	int result = 0;

	leaf_assert_locked(plan->leaf);
	for (uint32_t n; blocks && result == 0; block += n, blocks -= n, data += (size_t)n << BLOCK_SHIFT) {
		uint32_t first = (uint32_t)(block % per_chunk);

		n = (uint32_t)MIN(blocks, per_chunk - first);
		result = plan_in_chunk_relock(plan, block / per_chunk, first, n, data);
	}
	return result;
}

/* The zero list has room for CHUNKS when the batch has happened. */
static int promise_relock(struct apply_plan *plan, struct interval chunks)
{
	int result;

	leaf_assert_locked(plan->leaf);
	do
		result = leaf_zero_reserve_locked(plan->leaf, chunks.first, chunks.first + chunks.count);
	while (result < 0 && room_came_relock(plan->leaf, &result));
	plan->promised += result == 0;
	plan->leaf->zero_promised += result == 0;
	return result;
}

static int plan_zeros_relock(struct apply_plan *plan, uint64_t block, uint64_t blocks)
{
	struct leaf_zero_parts parts = leaf_zero_parts(plan->leaf, block, block + blocks);
	int result = plan_in_chunk_relock(plan, parts.head, parts.head_first, parts.head_blocks, NULL);

	leaf_assert_locked(plan->leaf);
	if (result == 0 && parts.whole.count && !plan->bottom)
		result = promise_relock(plan, parts.whole);
	if (result == 0 && parts.whole.count) {
		g_array_append_val(plan->zeros, parts.whole);
		plan->entry_bytes += ENTRY_BYTES(2) + (plan->bottom ? 0 : ENTRY_BYTES(2));
	}
	if (result == 0)
		result = plan_in_chunk_relock(plan, parts.tail, 0, parts.tail_blocks, NULL);
	return result;
}

static int plan_extent_relock(struct apply_plan *plan, const struct image_apply_extent *extent)
{
	uint64_t block = extent->offset >> BLOCK_SHIFT, blocks = extent->length >> BLOCK_SHIFT;
	int result = extent->data ? plan_data_relock(plan, block, blocks, extent->data)
				  : plan_zeros_relock(plan, block, blocks);

	leaf_assert_locked(plan->leaf);
	if (result < 0) /* a file may be as large as it can get, too: no reason to split the batch */
		return result == -EFBIG ? -ENOSPC : result;
	if (leaf_plan_journal_bytes(plan, 0) > le64_get(plan->leaf->header.journal_bytes) ||
	    plan->owed_blocks > LEAF_OWED_BLOCKS_MAX)
		return -EFBIG;
	return 0;
}

static int plan_extents_relock(struct apply_plan *plan, const struct image_apply_extent *extents, unsigned count)
{
	int result = leaf_record_allocate_locked(plan->leaf) ? 0 : -ENOMEM;

	leaf_assert_locked(plan->leaf);
	for (unsigned i = 0; i < count && result == 0; i++)
		result = plan_extent_relock(plan, &extents[i]);
	return result;
}

/* Before the first batch of data: a redo slot with its room in the file is kept
 * for times when there is none; where there is none now, batches go on without.
 * The room is taken by writing, which no file system answers with a promise. */
static int redo_reserve(struct leaf *leaf)
{
	uint64_t bytes = leaf->geometry.chunk_bytes;
	g_autofree uint8_t *zeros = NULL;
	struct chunk *slot;
	int result = 0;

	lock_take(&leaf->lock);
	slot = leaf->redo_reserved ? NULL : take_redo_slot_relock(leaf, &result);
	leaf->redo_reserved |= slot != NULL;
	lock_let_go(&leaf->lock);
	if (!slot)
		return result == -EAGAIN ? result : 0;
	zeros = g_try_malloc0(bytes);
	result = zeros ? image_file_write(&leaf->file, zeros, bytes, leaf_slot_offset(&leaf->geometry, slot->slot))
		       : -ENOMEM;
	lock_take(&leaf->lock);
	leaf->redo_reserved = result == 0;
	if (result == 0)
		leaf->redo_reserve = slot;
	else
		leaf_chunk_return_locked(leaf, slot);
	lock_let_go(&leaf->lock);
	return 0;
}

static bool has_data(const struct image_op *op)
{
	unsigned i = 0;

	while (i < op->extent_count && !op->extents[i].data)
		i++;
	return i < op->extent_count;
}

struct apply_plan *leaf_plan_new(struct leaf *leaf, const struct image_op *op, int *result)
{
	struct apply_plan *plan = g_new0(struct apply_plan, 1);

	plan->leaf = leaf;
	plan->bottom = op->bottom;
	plan->progress = op->progress;
	plan->entry_bytes = op->progress ? PROGRESS_BYTES : 0;
	plan->pieces = g_array_new(FALSE, FALSE, sizeof(struct piece));
	plan->zeros = g_array_new(FALSE, FALSE, sizeof(struct interval));
	plan->redo_slots = g_ptr_array_new();
	*result = has_data(op) ? redo_reserve(leaf) : 0;
	lock_take(&leaf->lock);
	for (unsigned i = 0; i < op->extent_count && *result == 0; i += BATCH_EXTENTS) {
		*result = plan_extents_relock(plan, op->extents + i, MIN(BATCH_EXTENTS, op->extent_count - i));
		lock_let_go(&leaf->lock);
		lock_take(&leaf->lock);
	}
	if (*result < 0) {
		leaf_plan_free_locked(plan, false);
		plan = NULL;
	}
	lock_let_go(&leaf->lock);
	return plan;
}

static void return_redo_slots_locked(const struct apply_plan *plan, bool uncertain)
{
	leaf_assert_locked(plan->leaf);
	/* Backwards, so that the next batch takes them in file order. */
	for (guint i = plan->redo_slots->len; i-- > 0;) {
		struct chunk *slot = plan->redo_slots->pdata[i];

		if (uncertain) {
			leaf_chunk_remove_locked(plan->leaf, slot);
		} else if (i == 0 && plan->leaf->redo_reserved && !plan->leaf->redo_reserve) {
			leaf_slot_unname_locked(plan->leaf, slot);
			plan->leaf->redo_reserve = slot;
		} else {
			leaf_chunk_return_locked(plan->leaf, slot);
		}
	}
	plan->leaf->redo_reserved = plan->leaf->redo_reserve;
}

void leaf_plan_free_locked(struct apply_plan *plan, bool uncertain)
{
	leaf_assert_locked(plan->leaf);
	return_redo_slots_locked(plan, uncertain);
	plan->leaf->zero_promised -= plan->promised;
	for (guint i = 0; i < plan->pieces->len; i++)
		leaf_zero_put_locked(plan->leaf, plan_piece(plan, i)->chunk, plan->bottom);
	g_ptr_array_free(plan->redo_slots, TRUE);
	g_array_free(plan->zeros, TRUE);
	g_array_free(plan->pieces, TRUE);
	g_free(plan);
}

static void add_piece(struct leaf *leaf, const struct piece *piece, struct record_builder *builder)
{
	enum leaf_journal_type type = piece->data ? LEAF_JOURNAL_DATA : LEAF_JOURNAL_ZEROS;
	const struct chunk *named = piece->redo_slot ? piece->redo_slot : piece->chunk;
	le64 *value = piece->redo_slot ? record_add(builder, LEAF_JOURNAL_APPLY, 4) : record_add(builder, type, 3);

	if (!value)
		return;
	value[0] = le64_of(piece->chunk->index * leaf->geometry.chunk_blocks + piece->first);
	value[1] = le64_of(piece->blocks);
	value[2] = le64_of(named->slot);
	leaf_slot_name_locked(leaf, named);
	if (piece->redo_slot)
		value[3] = le64_of(piece->redo_block);
}

static void add_chunks(enum leaf_journal_type type, struct interval chunks, struct record_builder *builder)
{
	le64 *value = record_add(builder, type, 2);

	if (!value)
		return;
	value[0] = le64_of(chunks.first);
	value[1] = le64_of(chunks.count);
}

static void add_progress(const struct apply_plan *plan, struct record_builder *builder)
{
	le64 *value = record_add(builder, LEAF_JOURNAL_PROGRESS, PROGRESS_VALUES);

	if (!value)
		return;
	memcpy(value, plan->leaf->header.claim, IMAGE_CLAIM_BYTES);
	value[PROGRESS_VALUES - 1] = le64_of(plan->progress);
}

void leaf_plan_add_entries(const struct apply_plan *plan, struct record_builder *builder)
{
	if (plan->progress)
		add_progress(plan, builder);
	for (guint i = 0; i < plan->zeros->len; i++) {
		struct interval chunks = g_array_index(plan->zeros, struct interval, i);

		add_chunks(LEAF_JOURNAL_DROP, chunks, builder);
		if (!plan->bottom)
			add_chunks(LEAF_JOURNAL_ZERO, chunks, builder);
	}
	for (guint i = 0; i < plan->pieces->len; i++)
		add_piece(plan->leaf, plan_piece(plan, i), builder);
}
