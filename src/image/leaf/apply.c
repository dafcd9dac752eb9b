/* image_apply: a batch of extents, all or none, also across a crash.
 *
 * Order, which a crash needs (plan.c says what goes where):
 *   1. data goes to its place where nothing is present yet, else to redo slots;
 *   2. the file is flushed, and one record with the whole batch is written and
 *      flushed: now the batch has happened;
 *   3. memory follows the record, whole chunks of zeros lose their slots and
 *      are punched, redo extents are copied to their places, and the file is
 *      flushed;
 *   4. an APPLIED record says that no copy is owed any more; the slots are
 *      free.
 * Nothing but data in places that nobody looks at is changed before 2, so a
 * batch that fails there leaves the image as it was. A crash between 2 and 4
 * leaves APPLY without APPLIED: redo.c has what follows.
 *
 * Chunks of the batch are pinned (users, writers) from the plan to its end;
 * no other commit runs from 2 to 4. */
#include "apply.h"

#include <errno.h>

#include "aio/blocking.h"
#include "bits.h"
#include "commit.h"
#include "dirty.h"
#include "discard.h"
#include "geometry.h"
#include "journal.h"
#include "lock.h"
#include "plan.h"
#include "room.h"
#include "core/workers.h"

/* Pieces under way at once: as many as the queue can merge into its calls. */
#define WAVE_PIECES 4096
/* Pieces that one hold of the lock goes through. */
#define BATCH_PIECES 256

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

/* COPY false: to where each piece goes first; true: those in redo slots to
 * their places. */
static void write_wave(const struct apply_plan *plan, bool copy, guint first, struct transfer *transfers,
		       struct blocking_loop *blocking, struct transfers *all)
{
	guint end = MIN(first + WAVE_PIECES, plan->pieces->len);

	for (guint i = first; i < end; i++) {
		const struct piece *piece = plan_piece(plan, i);

		if (piece->data && (piece->redo_slot || !copy))
			submit_piece(plan->leaf, blocking->queue, all, &transfers[i - first], piece,
				     piece->redo_slot && !copy);
	}
	all->finished = !all->pending;
	if (all->pending)
		loop_run(blocking->loop, &all->finished);
}

/* Writes the pieces' data on a queue of its own. */
static int write_pieces(const struct apply_plan *plan, bool copy)
{
	g_autofree struct transfer *transfers = g_new0(struct transfer, MIN(plan->pieces->len, WAVE_PIECES) + 1);
	struct blocking_loop *blocking = blocking_loop_get();
	struct transfers all = {0};

	if (!blocking)
		return -ENOMEM;
	for (guint first = 0; first < plan->pieces->len && all.result == 0; first += WAVE_PIECES)
		write_wave(plan, copy, first, transfers, blocking, &all);
	blocking_loop_put(blocking);
	return all.result;
}

static void publish_data_locked(struct leaf *leaf, const struct piece *piece)
{
	leaf_assert_locked(leaf);
	if (!piece->data || piece->redo_slot)
		return;
	bits_set(chunk_present(leaf, piece->chunk), piece->first, piece->blocks);
	bits_clear(chunk_zero(leaf, piece->chunk), piece->first, piece->blocks);
	leaf_page_mark_dirty_locked(leaf, piece->chunk->slot);
}

static void publish_progress(struct leaf *leaf, uint64_t progress)
{
	LOCK_GUARD(&leaf->lock);
	leaf_note_progress(leaf, progress);
}

/* Memory follows the record. */
static void publish(struct leaf *leaf, const struct apply_plan *plan)
{
	publish_progress(leaf, plan->progress);
	for (guint first = 0; first < plan->pieces->len; first += BATCH_PIECES) {
		guint end = MIN(first + BATCH_PIECES, plan->pieces->len);

		LOCK_GUARD(&leaf->lock);
		for (guint i = first; i < end; i++)
			publish_data_locked(leaf, plan_piece(plan, i));
	}
	for (guint i = 0; i < plan->pieces->len; i++) {
		const struct piece *piece = plan_piece(plan, i);

		if (!piece->data)
			leaf_zero_recorded_part(leaf, piece->chunk, piece->first, piece->blocks);
	}
	for (guint i = 0; i < plan->zeros->len; i++)
		leaf_zero_recorded_chunks(leaf, g_array_index(plan->zeros, struct interval, i), plan->bottom);
}

static void settle_work(struct loop_work *work)
{
	struct leaf_commit *commit = container_of(work, struct leaf_commit, work);
	struct leaf *leaf = commit->leaf;

	publish(leaf, commit->plan);
	if (!commit->plan->redo_slots->len)
		return;
	commit->result = write_pieces(commit->plan, true);
	if (commit->result == 0)
		commit->result = image_file_sync(&leaf->file);
}

static void settle_done(struct loop_work *work)
{
	struct leaf_commit *commit = container_of(work, struct leaf_commit, work);
	struct leaf *leaf = commit->leaf;
	int64_t bytes;

	if (commit->result < 0 || !commit->plan->redo_slots->len) {
		leaf_commit_finish(commit, commit->result);
		return;
	}
	lock_take(&leaf->lock);
	bytes = leaf_journal_build_mark_locked(leaf, LEAF_JOURNAL_APPLIED);
	lock_let_go(&leaf->lock);
	if (bytes < 0)
		leaf_commit_finish(commit, -EIO);
	else
		leaf_commit_write_record(commit, bytes, leaf_commit_finish);
}

static void settle(struct leaf_commit *commit, int result)
{
	if (result < 0) {
		leaf_commit_finish(commit, result);
		return;
	}
	commit->header_touched = true; /* the batch has happened: its copies are owed */
	commit->work =
		(struct loop_work){.work = settle_work, .done = settle_done, .file = &commit->leaf->file.aio.steps};
	loop_offload_step(aio_queue_loop(commit->queue), &commit->work);
}

static int apply_prepare(struct image_op *op)
{
	struct leaf *leaf = leaf_of(op->image);
	int result;
	struct apply_plan *plan = leaf_plan_new(leaf, op, &result);

	if (!plan)
		return result;
	plan->settle = settle;
	result = write_pieces(plan, false);
	LOCK_GUARD(&leaf->lock);
	leaf->unflushed = true;
	if (result < 0)
		leaf_plan_free_locked(plan, false);
	else
		op->driver = plan;
	return result == -EFBIG ? -ENOSPC : result;
}

static void prepare_work(struct loop_work *work)
{
	struct image_op *op = container_of(work, struct image_op, work);

	op->result = apply_prepare(op);
}

static void prepare_done(struct loop_work *work);

static void prepare(struct image_op *op)
{
	op->work = (struct loop_work){
		.work = prepare_work, .done = prepare_done, .file = &leaf_of(op->image)->file.aio.steps};
	loop_offload_step(aio_queue_loop(op->queue), &op->work);
}

struct room_wait {
	struct image_op room;
	struct image_op *op;
};

static void room_came(struct image_op *room, int result)
{
	struct room_wait *wait = container_of(room, struct room_wait, room);
	struct image_op *op = wait->op;

	g_free(wait);
	if (result < 0)
		op->done(op, result);
	else
		prepare(op);
}

static void wait_room(struct leaf *leaf, struct image_op *op)
{
	struct room_wait *wait = g_new0(struct room_wait, 1);

	wait->op = op;
	wait->room = (struct image_op){.queue = op->queue, .done = room_came};
	leaf_wait_room(&leaf->image, &wait->room);
}

static void prepare_done(struct loop_work *work)
{
	struct image_op *op = container_of(work, struct image_op, work);
	struct leaf *leaf = leaf_of(op->image);

	if (op->result == -EAGAIN)
		wait_room(leaf, op);
	else if (op->result < 0)
		op->done(op, op->result);
	else
		leaf_commit_enqueue(leaf, &leaf->applies, op);
}

void leaf_apply(struct image *image, struct image_op *op)
{
	(void)image;
	prepare(op);
}
