/* Discard and zero: blocks that read as zeros from now on.
 *
 * Whole chunks lose their slot and join the zero list, parts of a chunk get
 * zero bits. With nothing below (op->bottom) absent is as good as zero, and
 * no trace is kept. The space is punched at once: should a crash come before
 * the next commit, the old table finds zeros there, which is what was asked
 * for. The slot itself waits for that commit (invariant 6 of leaf.h), and for the
 * punch, which pins it.
 *
 * The work runs on a background thread and waits for the file alone: where a
 * block device may grow first it ends, and begins anew when that is decided. The
 * caller's range lock keeps writes to these blocks away. */
#include "discard.h"

#include <errno.h>

#include "bits.h"
#include "dirty.h"
#include "geometry.h"
#include "journal.h"
#include "lock.h"
#include "room.h"
#include "slots.h"
#include "spare.h"
#include "table.h"
#include "core/workers.h"

/* Chunks that one hold of the lock goes through. */
#define BATCH_CHUNKS 256

typedef struct zero_run zero_run;
struct zero_run {
	struct leaf *leaf;
	bool bottom;
	bool recorded;	 /* a durable record says so already */
	bool forgotten;	 /* nothing on disk names these chunks any more */
	GArray *punches; /* struct interval, bytes of the file */
	GArray *pinned;	 /* uint64_t: slots that they are in */
};

static struct zero_run *zero_run_new(struct leaf *leaf, bool bottom, bool recorded)
{
	struct zero_run *run = g_new0(struct zero_run, 1);

	run->leaf = leaf;
	run->bottom = bottom;
	run->recorded = recorded;
	run->punches = g_array_new(FALSE, FALSE, sizeof(struct interval));
	run->pinned = g_array_new(FALSE, FALSE, sizeof(uint64_t));
	return run;
}

static void zero_run_free(struct zero_run *run)
{
	g_array_free(run->punches, TRUE);
	g_array_free(run->pinned, TRUE);
	g_free(run);
}
G_DEFINE_AUTOPTR_CLEANUP_FUNC(zero_run, zero_run_free)

static void add_punch(struct zero_run *run, uint64_t offset, uint64_t length)
{
	struct interval *last =
		run->punches->len ? &g_array_index(run->punches, struct interval, run->punches->len - 1) : NULL;
	struct interval punch = {offset, length};

	if (last && last->first + last->count == offset)
		last->count += length;
	else
		g_array_append_val(run->punches, punch);
}

static void pin_locked(struct zero_run *run, uint64_t slot)
{
	leaf_assert_locked(run->leaf);
	leaf_slot_pin_locked(run->leaf, slot);
	g_array_append_val(run->pinned, slot);
}

static void mark_whole_locked(struct zero_run *run, uint64_t first, uint64_t count)
{
	struct leaf *leaf = run->leaf;

	leaf_assert_locked(run->leaf);
	if (run->bottom)
		intervals_remove(leaf->zero, first, count);
	else
		intervals_add(leaf->zero, first, count);
	if (run->recorded)
		leaf->zero_dirty |= !run->forgotten;
	else
		leaf_event_locked(leaf, run->bottom ? LEAF_JOURNAL_UNZERO : LEAF_JOURNAL_ZERO, first, count);
}

static void drop_chunk_locked(struct zero_run *run, struct chunk *chunk)
{
	leaf_assert_locked(run->leaf);
	add_punch(run, leaf_slot_offset(&run->leaf->geometry, chunk->slot), run->leaf->geometry.chunk_bytes);
	pin_locked(run, chunk->slot);
	if (run->forgotten)
		leaf_chunk_return_locked(run->leaf, chunk);
	else if (run->recorded)
		leaf_chunk_drop_locked(run->leaf, chunk);
	else
		leaf_chunk_remove_locked(run->leaf, chunk);
}

/* A step from chunk FIRST towards END. All up to where it returns is in no
 * slot, and zero from the same commit on: never absent between. */
static uint64_t zero_chunks_locked(struct zero_run *run, uint64_t first, uint64_t end)
{
	uint64_t next = first;
	unsigned dropped = 0;

	leaf_assert_locked(run->leaf);
	while (next < end && dropped < BATCH_CHUNKS) {
		struct chunk *chunk = leaf_chunk_from(run->leaf, next);
		bool inside = chunk && chunk->index < end;

		next = inside ? chunk->index + 1 : end;
		if (inside)
			drop_chunk_locked(run, chunk);
		dropped += inside;
	}
	mark_whole_locked(run, first, next - first);
	return next;
}

/* What is recorded has happened, whether its space can be given back or not. */
static int punch_all(struct zero_run *run)
{
	int result = 0;

	for (guint i = 0; i < run->punches->len && result == 0; i++) {
		struct interval *punch = &g_array_index(run->punches, struct interval, i);

		result = image_file_punch(&run->leaf->file, punch->first, punch->count);
	}
	g_array_set_size(run->punches, 0);
	lock_take(&run->leaf->lock);
	for (guint i = 0; i < run->pinned->len; i++)
		leaf_slot_unpin_locked(run->leaf, g_array_index(run->pinned, uint64_t, i));
	lock_let_go(&run->leaf->lock);
	g_array_set_size(run->pinned, 0);
	return run->recorded ? 0 : result;
}

/* Before chunks in [FIRST, END) join the zero list: it has room to be written
 * with them. Where it has none, a chunk among them gives its slot for it, with a
 * commit for which the journal has room. */
int leaf_zero_reserve_locked(struct leaf *leaf, uint64_t first, uint64_t end)
{
	const struct chunk *chunk = leaf_chunk_from(leaf, first);
	int errnum = leaf_spare_reserve_locked(leaf, 1);
	uint64_t record = leaf_journal_waiting_bytes_locked(leaf) + 2 * LEAF_PAGE_BYTES;

	leaf_assert_locked(leaf);
	return chunk && chunk->index < end && record <= leaf_journal_room(leaf) ? 0 : errnum;
}

static int reserve_locked(struct zero_run *run, uint64_t first, uint64_t end)
{
	leaf_assert_locked(run->leaf);
	if (run->recorded || (run->bottom && !intervals_length(run->leaf->zero)))
		return 0;
	return leaf_zero_reserve_locked(run->leaf, first, end);
}

static int zero_whole(struct zero_run *run, uint64_t first, uint64_t count)
{
	uint64_t end = first + count;
	int result = 0;

	while (first < end && result == 0) {
		lock_take(&run->leaf->lock);
		result = reserve_locked(run, first, end);
		if (result == 0)
			first = zero_chunks_locked(run, first, end);
		lock_let_go(&run->leaf->lock);
		result = result < 0 ? result : punch_all(run);
	}
	return result;
}

static void add_block_punches(struct zero_run *run, struct chunk *chunk, uint32_t first, uint32_t count)
{
	struct leaf *leaf = run->leaf;
	uint64_t start = leaf_slot_offset(&leaf->geometry, chunk->slot);

	for (uint32_t n; count; first += n, count -= n) {
		n = bits_run(chunk_present(leaf, chunk), chunk_zero(leaf, chunk), first, count);
		if (bits_test(chunk_present(leaf, chunk), first) && !bits_test(chunk_zero(leaf, chunk), first))
			add_punch(run, start + ((uint64_t)first << BLOCK_SHIFT), (uint64_t)n << BLOCK_SHIFT);
	}
}

/* A chunk whose blocks all became zero, or absent, needs no slot. */
static void release_if_void(struct zero_run *run, struct chunk *chunk)
{
	struct leaf *leaf = run->leaf;

	if (!chunk->writers &&
	    (leaf_chunk_is_empty(leaf, chunk) || (!run->forgotten && leaf_chunk_is_zero(leaf, chunk))) &&
	    reserve_locked(run, chunk->index, chunk->index) == 0)
		zero_chunks_locked(run, chunk->index, chunk->index + 1);
}

/* The chunk at INDEX, allocated when zero bits have to be kept in it; NULL
 * with *ERRNUM 0 when nothing is to be done. */
static struct chunk *chunk_for_zero_locked(struct zero_run *run, uint64_t index, int *errnum)
{
	struct leaf *leaf = run->leaf;
	struct chunk *chunk = leaf_chunk_find(leaf, index);
	bool zero = intervals_contains(leaf->zero, index, 1, NULL);

	leaf_assert_locked(run->leaf);
	*errnum = 0;
	if (!chunk && !zero && !run->bottom)
		chunk = leaf_chunk_allocate_locked(leaf, index, errnum);
	return chunk;
}

static void zero_bits_locked(struct zero_run *run, struct chunk *chunk, uint32_t first, uint32_t count)
{
	struct leaf *leaf = run->leaf;

	leaf_assert_locked(run->leaf);
	add_block_punches(run, chunk, first, count);
	pin_locked(run, chunk->slot);
	if (run->bottom) {
		bits_clear(chunk_present(leaf, chunk), first, count);
		bits_clear(chunk_zero(leaf, chunk), first, count);
	} else {
		bits_set(chunk_present(leaf, chunk), first, count);
		bits_set(chunk_zero(leaf, chunk), first, count);
	}
	if (!run->forgotten)
		leaf_page_mark_dirty_locked(leaf, chunk->slot);
}

static int zero_part(struct zero_run *run, uint64_t index, uint32_t first, uint32_t count)
{
	struct leaf *leaf = run->leaf;
	struct chunk *chunk;
	int errnum;

	if (!count)
		return 0;
	lock_take(&leaf->lock);
	chunk = chunk_for_zero_locked(run, index, &errnum);
	if (chunk) {
		zero_bits_locked(run, chunk, first, count);
		if (!run->recorded)
			leaf_chunk_mark_dirty_locked(leaf, chunk);
		release_if_void(run, chunk);
	}
	lock_let_go(&leaf->lock);
	return chunk ? punch_all(run) : errnum;
}

struct leaf_zero_parts leaf_zero_parts_of(const struct leaf *leaf, uint64_t first, uint64_t end, uint64_t image_end)
{
	uint32_t per_chunk = leaf->geometry.chunk_blocks;
	uint64_t first_whole = (first + per_chunk - 1) / per_chunk;
	uint64_t end_whole = end == image_end ? (end + per_chunk - 1) / per_chunk : end / per_chunk;

	if (first_whole > end_whole) /* inside one chunk */
		end_whole = first_whole;
	return (struct leaf_zero_parts){
		.head = first / per_chunk,
		.head_first = (uint32_t)(first % per_chunk),
		.head_blocks = (uint32_t)(MIN(first_whole * per_chunk, end) - first),
		.whole = {first_whole, end_whole - first_whole},
		.tail = end_whole,
		.tail_blocks = end > end_whole * per_chunk ? (uint32_t)(end - end_whole * per_chunk) : 0,
	};
}

struct leaf_zero_parts leaf_zero_parts(const struct leaf *leaf, uint64_t first, uint64_t end)
{
	return leaf_zero_parts_of(leaf, first, end, blocks_of(leaf->image.size_bytes));
}

static int zero_blocks(struct zero_run *run, uint64_t first, uint64_t end)
{
	struct leaf_zero_parts parts = leaf_zero_parts(run->leaf, first, end);
	int result = zero_part(run, parts.head, parts.head_first, parts.head_blocks);

	if (result == 0)
		result = zero_whole(run, parts.whole.first, parts.whole.count);
	if (result == 0)
		result = zero_part(run, parts.tail, 0, parts.tail_blocks);
	return result;
}

struct zero_task {
	struct loop_work work;
	struct image_op *op;
	struct image_op room;
	int result;
};

static void zero_work(struct loop_work *work)
{
	struct zero_task *task = container_of(work, struct zero_task, work);
	const struct image_op *op = task->op;
	g_autoptr(zero_run) run = zero_run_new(leaf_of(op->image), op->bottom, false);
	uint64_t first = op->offset >> BLOCK_SHIFT, count = op->length >> BLOCK_SHIFT;

	task->result = count ? zero_blocks(run, first, first + count) : 0;
}

static void zero_finish(struct zero_task *task, int result)
{
	struct image_op *op = task->op;

	g_free(task);
	op->done(op, result);
}

static void zero_done(struct loop_work *work);

static void zero_begin(struct zero_task *task)
{
	task->work = (struct loop_work){
		.work = zero_work, .done = zero_done, .file = &leaf_of(task->op->image)->file.aio.steps};
	loop_offload_step(aio_queue_loop(task->op->queue), &task->work);
}

static void zero_room_came(struct image_op *room, int result)
{
	struct zero_task *task = container_of(room, struct zero_task, room);

	if (result < 0)
		zero_finish(task, result);
	else
		zero_begin(task);
}

static void zero_done(struct loop_work *work)
{
	struct zero_task *task = container_of(work, struct zero_task, work);

	if (task->result != -EAGAIN) {
		zero_finish(task, task->result);
		return;
	}
	task->room = (struct image_op){.queue = task->op->queue, .done = zero_room_came};
	leaf_wait_room(task->op->image, &task->room);
}

void leaf_zero(struct image *image, struct image_op *op)
{
	struct zero_task *task = g_new0(struct zero_task, 1);

	(void)image;
	task->op = op;
	zero_begin(task);
}

void leaf_zero_recorded_part(struct leaf *leaf, struct chunk *chunk, uint32_t first, uint32_t count)
{
	g_autoptr(zero_run) run = zero_run_new(leaf, false, true);

	lock_take(&leaf->lock);
	zero_bits_locked(run, chunk, first, count);
	lock_let_go(&leaf->lock);
	punch_all(run);
}

void leaf_zero_recorded_chunks(struct leaf *leaf, struct interval chunks, bool bottom)
{
	g_autoptr(zero_run) run = zero_run_new(leaf, bottom, true);

	zero_whole(run, chunks.first, chunks.count);
}

void leaf_zero_put_locked(struct leaf *leaf, struct chunk *chunk, bool bottom)
{
	struct zero_run run = {.leaf = leaf, .bottom = bottom};
	bool zero = !chunk->dead && chunk->writers == 1 && leaf_chunk_is_zero(leaf, chunk);
	uint64_t index = chunk->index;

	leaf_assert_locked(leaf);
	leaf_chunk_put_locked(leaf, chunk, true);
	if (!zero || reserve_locked(&run, index, index) < 0)
		return;
	leaf_chunk_remove_locked(leaf, chunk);
	mark_whole_locked(&run, index, 1);
}

void leaf_zero_cut(struct leaf *leaf, uint64_t end)
{
	g_autoptr(zero_run) run = zero_run_new(leaf, true, true);
	uint64_t per_chunk = leaf->geometry.chunk_blocks, chunk = (end + per_chunk - 1) / per_chunk;
	uint32_t first = (uint32_t)(end % per_chunk);

	run->forgotten = true;
	if (first)
		zero_part(run, end / per_chunk, first, (uint32_t)(per_chunk - first));
	zero_whole(run, chunk, (UINT64_MAX >> leaf->geometry.chunk_shift) - chunk);
}
