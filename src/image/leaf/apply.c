/* image_apply: a batch of extents, all or none, also across a crash.
 *
 * What is not present yet goes straight to its place: nothing names those
 * blocks until the batch's record does. What is present goes to redo slots
 * first. Then one commit: data flushed, one record with the new state of the
 * chunks and, for every redo extent, an APPLY entry; after it is durable the
 * batch has happened. The redo extents are copied to their places, the file is
 * flushed, and an APPLIED record says that no copy is owed any more. A crash
 * in between leaves APPLY without APPLIED: the next writable open copies
 * again, and a read-only open refuses.
 *
 * Chunks of the batch are pinned (users, writers) from the plan to its end. */
#include <errno.h>
#include <string.h>

#include "../blocking.h"
#include "commit.h"

struct piece {
	struct chunk *chunk;
	uint32_t first; /* block in the chunk */
	uint32_t blocks;
	uint8_t *data; /* NULL: zeros */
	bool redo;
	struct chunk *redo_slot;
	uint32_t redo_block;
};

struct apply_plan {
	struct leaf *leaf;
	GArray *pieces;	       /* struct piece */
	GPtrArray *redo_slots; /* struct chunk */
	uint32_t redo_used;    /* blocks of the last redo slot */
};

struct apply_plan *leaf_apply_plan_of(struct image_op *op)
{
	return op->driver;
}

static struct piece *plan_piece(const struct apply_plan *plan, guint i)
{
	return &g_array_index(plan->pieces, struct piece, i);
}

static int plan_redo_locked(struct apply_plan *plan, struct piece *piece)
{
	struct leaf *leaf = plan->leaf;
	int errnum = 0;

	if (!plan->redo_slots->len || plan->redo_used + piece->blocks > leaf->geometry.chunk_blocks) {
		struct chunk *slot = leaf_slot_take_locked(leaf, LEAF_CHUNK_FREE, &errnum);

		if (!slot)
			return errnum;
		g_ptr_array_add(plan->redo_slots, slot);
		plan->redo_used = 0;
	}
	piece->redo = true;
	piece->redo_slot = plan->redo_slots->pdata[plan->redo_slots->len - 1];
	piece->redo_block = plan->redo_used;
	plan->redo_used += piece->blocks;
	return 0;
}

static int plan_pieces_locked(struct apply_plan *plan, struct chunk *chunk, uint32_t first, uint32_t blocks,
			      uint8_t *data)
{
	struct leaf *leaf = plan->leaf;

	for (uint32_t n; blocks; first += n, blocks -= n) {
		struct piece piece = {.chunk = chunk, .first = first, .data = data};
		bool is_data =
			bits_test(chunk_present(leaf, chunk), first) && !bits_test(chunk_zero(leaf, chunk), first);
		int result;

		n = data ? bits_run(chunk_present(leaf, chunk), chunk_zero(leaf, chunk), first, blocks) : blocks;
		piece.blocks = n;
		result = data && is_data ? plan_redo_locked(plan, &piece) : 0;
		if (result < 0)
			return result;
		chunk->users++;
		chunk->writers++;
		g_array_append_val(plan->pieces, piece);
		data = data ? data + ((size_t)n << BLOCK_SHIFT) : NULL;
	}
	return 0;
}

static int plan_extent_locked(struct apply_plan *plan, const struct image_apply_extent *extent)
{
	struct leaf *leaf = plan->leaf;
	uint64_t block = extent->offset >> BLOCK_SHIFT, left = extent->length >> BLOCK_SHIFT;
	uint8_t *data = extent->data;
	int errnum = 0;

	while (left) {
		uint64_t index = block / leaf->geometry.chunk_blocks;
		uint32_t first = (uint32_t)(block % leaf->geometry.chunk_blocks);
		uint32_t blocks = (uint32_t)MIN(left, leaf->geometry.chunk_blocks - first);
		struct chunk *chunk = leaf_chunk_find(leaf, index);

		if (!chunk)
			chunk = leaf_chunk_allocate_locked(leaf, index, &errnum);
		if (!chunk)
			return errnum;
		errnum = plan_pieces_locked(plan, chunk, first, blocks, data);
		if (errnum)
			return errnum;
		block += blocks;
		left -= blocks;
		data = data ? data + ((size_t)blocks << BLOCK_SHIFT) : NULL;
	}
	return 0;
}

static uint64_t piece_offset(const struct leaf *leaf, const struct piece *piece, bool redo)
{
	const struct chunk *chunk = redo ? piece->redo_slot : piece->chunk;
	uint32_t block = redo ? piece->redo_block : piece->first;

	return leaf_slot_offset(&leaf->geometry, chunk->slot) + ((uint64_t)block << BLOCK_SHIFT);
}

struct transfer {
	struct aio_request aio;
	struct transfers *all;
};

struct transfers {
	unsigned pending;
	bool finished;
	int result;
};

static void transfer_done(struct aio_request *request, int result)
{
	struct transfers *all = container_of(request, struct transfer, aio)->all;

	if (result < 0 && all->result == 0)
		all->result = result;
	all->finished = --all->pending == 0;
}

static void submit_piece(struct leaf *leaf, struct aio_queue *queue, struct transfers *all, struct transfer *transfer,
			 const struct piece *piece, bool redo)
{
	uint32_t bytes = piece->blocks << BLOCK_SHIFT;

	transfer->all = all;
	transfer->aio = (struct aio_request){
		.op = AIO_WRITE,
		.file = &leaf->file.aio,
		.buffer = piece->data,
		.offset = piece_offset(leaf, piece, redo),
		.length = bytes,
		.needed = bytes,
		.done = transfer_done,
	};
	all->pending++;
	aio_submit(queue, &transfer->aio);
}

/* Writes the pieces' data on a queue of its own. COPY false: to where each
 * piece goes first; true: those in redo slots to their places, and flushes. */
static int write_pieces(const struct apply_plan *plan, bool copy)
{
	g_autofree struct transfer *transfers = g_new0(struct transfer, plan->pieces->len + 1);
	struct blocking_loop *blocking = blocking_loop_get();
	struct transfers all = {0};

	if (!blocking)
		return -ENOMEM;
	for (guint i = 0; i < plan->pieces->len; i++) {
		const struct piece *piece = plan_piece(plan, i);

		if (piece->data && (piece->redo || !copy))
			submit_piece(plan->leaf, blocking->queue, &all, &transfers[i], piece, piece->redo && !copy);
	}
	if (all.pending)
		loop_run(blocking->loop, &all.finished);
	blocking_loop_put(blocking);
	if (copy && all.result == 0)
		all.result = image_file_sync(&plan->leaf->file);
	return all.result;
}

void leaf_apply_end_locked(struct leaf *leaf, struct apply_plan *plan)
{
	for (guint i = 0; i < plan->redo_slots->len; i++)
		leaf_chunk_remove_locked(leaf, plan->redo_slots->pdata[i]);
	for (guint i = 0; i < plan->pieces->len; i++)
		leaf_chunk_put_locked(leaf, plan_piece(plan, i)->chunk, true);
	g_ptr_array_free(plan->redo_slots, TRUE);
	g_array_free(plan->pieces, TRUE);
	g_free(plan);
}

static int apply_prepare(struct image_op *op)
{
	struct leaf *leaf = leaf_of(op->image);
	struct apply_plan *plan = g_new0(struct apply_plan, 1);
	int result = 0;

	plan->leaf = leaf;
	plan->pieces = g_array_new(FALSE, FALSE, sizeof(struct piece));
	plan->redo_slots = g_ptr_array_new();
	g_mutex_lock(&leaf->lock);
	for (unsigned i = 0; i < op->extent_count && result == 0; i++)
		result = plan_extent_locked(plan, &op->extents[i]);
	g_mutex_unlock(&leaf->lock);
	if (result == 0)
		result = write_pieces(plan, false);
	g_mutex_lock(&leaf->lock);
	leaf->unflushed = true;
	if (result < 0)
		leaf_apply_end_locked(leaf, plan);
	else
		op->driver = plan;
	g_mutex_unlock(&leaf->lock);
	return result == -EAGAIN ? -ENOSPC : result;
}

static void prepare_work(struct loop_work *work)
{
	struct image_op *op = container_of(work, struct image_op, work);

	op->result = apply_prepare(op);
}

static void prepare_done(struct loop_work *work)
{
	struct image_op *op = container_of(work, struct image_op, work);
	struct leaf *leaf = leaf_of(op->image);

	if (op->result < 0)
		op->done(op, op->result);
	else
		leaf_commit_enqueue(leaf, &leaf->applies, op);
}

void leaf_apply(struct image *image, struct image_op *op)
{
	(void)image;
	op->work = (struct loop_work){.work = prepare_work, .done = prepare_done};
	loop_offload(aio_queue_loop(op->queue), &op->work);
}

static uint64_t chunk_entry_bytes(const struct leaf *leaf)
{
	return sizeof(struct leaf_journal_entry_ondisk) + (2 + 2 * (uint64_t)leaf->geometry.words) * sizeof(le64);
}

/* The batch's entries, those that wait already, and an APPLIED record. */
bool leaf_apply_fits_locked(struct leaf *leaf, struct apply_plan *plan)
{
	uint64_t apply_bytes = sizeof(struct leaf_journal_entry_ondisk) + 4 * sizeof(le64);
	uint64_t entries = plan->pieces->len * (chunk_entry_bytes(leaf) + apply_bytes);

	entries += leaf->dirty->len * chunk_entry_bytes(leaf) + leaf->events->len * 24 + leaf->free_events->len * 16;
	return round_up(entries + sizeof(struct leaf_record_ondisk), LEAF_PAGE_BYTES) + LEAF_PAGE_BYTES <=
	       leaf_journal_room(leaf);
}

void leaf_apply_publish_locked(struct leaf *leaf, struct apply_plan *plan)
{
	for (guint i = 0; i < plan->pieces->len; i++) {
		struct piece *piece = plan_piece(plan, i);

		if (piece->redo)
			continue;
		bits_set(chunk_present(leaf, piece->chunk), piece->first, piece->blocks);
		if (piece->data)
			bits_clear(chunk_zero(leaf, piece->chunk), piece->first, piece->blocks);
		else
			bits_set(chunk_zero(leaf, piece->chunk), piece->first, piece->blocks);
		leaf_chunk_mark_dirty_locked(leaf, piece->chunk);
	}
}

void leaf_apply_add_entries(struct leaf *leaf, struct apply_plan *plan, struct record_builder *builder)
{
	for (guint i = 0; i < plan->pieces->len; i++) {
		const struct piece *piece = plan_piece(plan, i);
		le64 *value = piece->redo ? record_add(builder, LEAF_JOURNAL_APPLY, 4) : NULL;

		if (!value)
			continue;
		value[0] = le64_of(piece->chunk->index * leaf->geometry.chunk_blocks + piece->first);
		value[1] = le64_of(piece->blocks);
		value[2] = le64_of(piece->redo_slot->slot);
		value[3] = le64_of(piece->redo_block);
	}
}

static void copy_work(struct loop_work *work)
{
	struct leaf_commit *commit = container_of(work, struct leaf_commit, work);

	commit->result = write_pieces(commit->plan, true);
}

static void copy_done(struct loop_work *work)
{
	struct leaf_commit *commit = container_of(work, struct leaf_commit, work);
	struct leaf *leaf = commit->leaf;
	int64_t bytes;

	if (commit->result < 0) {
		leaf_commit_finish(commit, commit->result);
		return;
	}
	g_mutex_lock(&leaf->lock);
	bytes = leaf_journal_build_mark_locked(leaf, LEAF_JOURNAL_APPLIED);
	g_mutex_unlock(&leaf->lock);
	if (bytes < 0)
		leaf_commit_finish(commit, -EIO);
	else
		leaf_commit_write_record(commit, bytes, leaf_commit_finish);
}

void leaf_apply_copy(struct leaf_commit *commit, int result)
{
	if (result < 0 || !commit->plan->redo_slots->len) {
		leaf_commit_finish(commit, result);
		return;
	}
	commit->work = (struct loop_work){.work = copy_work, .done = copy_done};
	loop_offload(aio_queue_loop(commit->queue), &commit->work);
}

static int redo_one(struct leaf *leaf, const struct leaf_redo *redo)
{
	uint32_t blocks = leaf->geometry.chunk_blocks;
	struct chunk *chunk = leaf_chunk_find(leaf, redo->block / blocks);
	size_t bytes = redo->blocks << BLOCK_SHIFT;
	g_autofree uint8_t *data = g_malloc(bytes);
	int result;

	if (!chunk || redo->block % blocks + redo->blocks > blocks)
		return -EIO;
	result = image_file_read(&leaf->file, data, bytes,
				 leaf_slot_offset(&leaf->geometry, redo->slot) + (redo->slot_block << BLOCK_SHIFT));
	if (result < 0)
		return result;
	return image_file_write(&leaf->file, data, bytes,
				leaf_slot_offset(&leaf->geometry, chunk->slot) + (redo->block % blocks << BLOCK_SHIFT));
}

int leaf_redo_run(struct leaf *leaf)
{
	for (guint i = 0; i < leaf->redo->len; i++) {
		int result = redo_one(leaf, &g_array_index(leaf->redo, struct leaf_redo, i));

		if (result < 0)
			return result;
	}
	return leaf->redo->len ? image_file_sync(&leaf->file) : 0;
}
