/* The commit queue: commits are serial. What is queued while one runs is for the
 * next: all flushes share it; a batch, or a resize, goes with it one at a time.
 *
 * Order, which a crash needs (invariants 4 and 5 of leaf.h):
 *   1. what is dirty is taken down as a record; or as a checkpoint when the
 *      journal has no room or the disk changes its size: exactly the blocks whose
 *      data was written by now;
 *   2. the file is flushed, so that data is durable;
 *   3. the record (or the checkpoint) is written and the file flushed again;
 *   4. the waiters are answered, and the slots that it freed become free.
 * A write that finishes after 1 is in the next commit, with its data. A
 * checkpoint does all of it on a background thread, a record goes through the
 * queue of whoever came first.
 *
 * Where there is no room (ENOSPC, EDQUOT) for a record or the table's pages,
 * nothing is lost, and the disk is as before: what was taken down is dirty again.
 * A batch in the record has not happened, and the next commit, a checkpoint,
 * makes that sure. Any other failure leaves it open what is on disk, and the
 * image is FAILED.
 *
 * Of a scratch image memory alone counts: its commits write and flush nothing, so
 * none can leave it FAILED. */
#include "commit.h"

#include <errno.h>
#include <string.h>

#include "checkpoint.h"
#include "core/counters.h"
#include "core/log.h"
#include "core/verdict.h"
#include "dirty.h"
#include "invariants.h"
#include "journal.h"
#include "lock.h"
#include "plan.h"
#include "resize.h"
#include "room.h"
#include "slots.h"
#include "table.h"
#include "core/workers.h"

static void commit_run(struct leaf *leaf);

static void commit_task(struct loop_task *task)
{
	struct leaf_commit *commit = container_of(task, struct leaf_commit, task);

	commit_run(commit->leaf);
}

static struct leaf_commit *commit_new(struct leaf *leaf)
{
	struct list *first = list_first(&leaf->flushes);
	struct leaf_commit *commit = g_new0(struct leaf_commit, 1);

	if (!first)
		first = list_first(&leaf->applies);
	if (!first)
		first = list_first(&leaf->resizes);
	commit->leaf = leaf;
	commit->queue = container_of(first, struct image_op, link)->queue;
	commit->task.run = commit_task;
	list_init(&commit->waiters);
	list_splice(&commit->waiters, &leaf->flushes);
	return commit;
}

static void take_resize(struct leaf *leaf, struct leaf_commit *commit)
{
	struct list *first = list_pop(&leaf->resizes);

	if (!first)
		return;
	list_append(&commit->waiters, first);
	commit->resize = leaf_resize_of(container_of(first, struct image_op, link));
	commit->whole = true;
}

/* One batch a commit. It waits for the next when a checkpoint has to make
 * room in the journal first, or is due: a checkpoint has no place for a batch.
 * An empty journal has room for every batch that was planned. */
static void take_apply(struct leaf *leaf, struct leaf_commit *commit)
{
	struct list *first = list_first(&leaf->applies);
	struct image_op *op = first ? container_of(first, struct image_op, link) : NULL;

	if (!op || commit->whole)
		return;
	if (!leaf_plan_fits_locked(leaf, leaf_plan_of(op))) {
		commit->whole = true;
		return;
	}
	list_remove(&op->link);
	list_append(&commit->waiters, &op->link);
	commit->plan = leaf_plan_of(op);
}

static void take_down(struct leaf *leaf, struct leaf_commit *commit)
{
	commit->record_bytes =
		commit->whole ? -1
			      : leaf_journal_build_locked(leaf, commit->plan, leaf_plan_add_entries, &commit->taken);
	commit->whole = commit->record_bytes < 0;
	if (commit->whole)
		return;
	commit->data_flush = leaf->unflushed;
	leaf->unflushed = false;
	if (commit->record_bytes > 0)
		leaf_slots_commit_begins_locked(leaf);
}

/* True: a commit was begun, and commit_run() is to follow without the lock. */
static bool commit_begin_locked(struct leaf *leaf)
{
	leaf_assert_locked(leaf);
	if (leaf->commit ||
	    (list_is_empty(&leaf->flushes) && list_is_empty(&leaf->applies) && list_is_empty(&leaf->resizes)))
		return false;
	leaf->commit = commit_new(leaf);
	leaf->commit->whole = leaf->checkpoint_due;
	take_resize(leaf, leaf->commit);
	take_apply(leaf, leaf->commit);
	take_down(leaf, leaf->commit);
	return true;
}

/* A checkpoint that could not be prepared has written nothing. */
static bool is_recoverable(const struct leaf_commit *commit, int result)
{
	bool written = !commit->whole || commit->checkpoint;

	return !commit->header_touched &&
	       (!written || verdict_final(STORE_IMAGE, STORE_COMMIT, result) != VERDICT_FAIL);
}

static void succeed_locked(struct leaf *leaf, struct leaf_commit *commit)
{
	leaf_assert_locked(leaf);
	if (commit->checkpoint)
		leaf_checkpoint_done_locked(leaf, commit->checkpoint);
}

static void fail_locked(struct leaf *leaf, struct leaf_commit *commit, int result)
{
	leaf_assert_locked(leaf);
	leaf->unflushed = true;
	leaf_dirty_restore_locked(leaf, &commit->taken);
	leaf->checkpoint_due |= commit->plan != NULL;
	if (is_recoverable(commit, result)) {
		if (commit->checkpoint)
			leaf_checkpoint_undo_locked(leaf, commit->checkpoint);
		return;
	}
	leaf->image.failed = true;
	if (leaf->image.quiet)
		return;
	log_error("%s: a flush failed (%s): what is on disk is uncertain, no more writes until it is opened anew",
		  leaf->image.path, strerror(-result));
}

/* A batch that waits for this checkpoint would wait for ever; once the image is
 * FAILED nobody's turn comes. */
static void fail_waiting_locked(struct leaf *leaf, struct leaf_commit *commit, int result)
{
	struct list *node;

	leaf_assert_locked(leaf);
	while ((node = list_pop(&leaf->applies))) {
		struct image_op *op = container_of(node, struct image_op, link);

		leaf_plan_free_locked(leaf_plan_of(op), false);
		image_op_complete(op, result == -EFBIG ? -ENOSPC : result);
	}
	if (!leaf->image.failed)
		return;
	list_splice(&commit->waiters, &leaf->flushes);
	while ((node = list_pop(&leaf->resizes))) {
		struct image_op *op = container_of(node, struct image_op, link);

		leaf_resize_free_locked(leaf, leaf_resize_of(op));
		image_op_complete(op, -EIO);
	}
}

/* The flushes that shared the commit of a resize that cannot be done are for the
 * next one. */
static void send_flushes_back_locked(struct leaf *leaf, struct leaf_commit *commit)
{
	struct list *resize = commit->waiters.prev;

	leaf_assert_locked(leaf);
	list_remove(resize);
	list_splice(&leaf->flushes, &commit->waiters);
	list_append(&commit->waiters, resize);
}

static void answer(struct leaf_commit *commit, int result)
{
	struct list *node;

	while ((node = list_pop(&commit->waiters)))
		image_op_complete(container_of(node, struct image_op, link), result);
}

void leaf_commit_finish(struct leaf_commit *commit, int result)
{
	struct leaf *leaf = commit->leaf;
	bool again;

	lock_take(&leaf->lock);
	if (result == 0)
		succeed_locked(leaf, commit);
	else
		fail_locked(leaf, commit, result);
	leaf_slots_commit_ends_locked(leaf, result == 0);
	if (commit->plan)
		leaf_plan_free_locked(commit->plan, result < 0);
	if (commit->resize)
		leaf_resize_free_locked(leaf, commit->resize);
	if (result < 0 && commit->resize && !leaf->image.failed)
		send_flushes_back_locked(leaf, commit);
	if (result < 0)
		fail_waiting_locked(leaf, commit, result);
	leaf->commit = NULL;
	leaf_check_locked(leaf);
	again = commit_begin_locked(leaf);
	if (again)
		loop_post(aio_queue_loop(leaf->commit->queue), &leaf->commit->task);
	lock_let_go(&leaf->lock);
	answer(commit, result);
	leaf_checkpoint_free(commit->checkpoint);
	leaf_dirty_clear(&commit->taken);
	g_free(commit);
}

static void submit(struct leaf_commit *commit, enum aio_op op, void (*done)(struct aio_request *request, int result))
{
	struct leaf *leaf = commit->leaf;
	bool write = op == AIO_WRITE;

	commit->aio = (struct aio_request){
		.op = op,
		.file = &leaf->file.aio,
		.buffer = write ? leaf->record : NULL,
		.offset = write ? leaf->journal_position : 0,
		.length = write ? (uint32_t)commit->record_bytes : 0,
		.done = done,
	};
	aio_submit(commit->queue, &commit->aio);
}

static void record_flushed(struct aio_request *request, int result)
{
	struct leaf_commit *commit = container_of(request, struct leaf_commit, aio);
	struct leaf *leaf = commit->leaf;

	if (result == 0) {
		counter_add(image_commits, 1);
		LOCK_GUARD(&leaf->lock);
		leaf->journal_position += (uint64_t)commit->record_bytes;
		leaf->journal_sequence++;
	}
	commit->next(commit, result);
}

static void record_written(struct aio_request *request, int result)
{
	struct leaf_commit *commit = container_of(request, struct leaf_commit, aio);

	if (result < 0)
		commit->next(commit, result);
	else
		submit(commit, AIO_DATASYNC, record_flushed);
}

void leaf_commit_write_record(struct leaf_commit *commit, int64_t bytes,
			      void (*next)(struct leaf_commit *commit, int result))
{
	commit->record_bytes = bytes;
	commit->next = next;
	submit(commit, AIO_WRITE, record_written);
}

static bool prepare_checkpoint(struct leaf_commit *commit)
{
	struct leaf *leaf = commit->leaf;

	LOCK_GUARD(&leaf->lock);
	commit->checkpoint = leaf_checkpoint_prepare_locked(leaf, commit->resize, &commit->taken, &commit->result);
	if (commit->checkpoint) {
		commit->data_flush = leaf->unflushed;
		leaf->unflushed = false;
		leaf_slots_commit_begins_locked(leaf);
	}
	return commit->checkpoint;
}

static int write_checkpoint(struct leaf_commit *commit)
{
	struct leaf *leaf = commit->leaf;
	int result;

	if (leaf->image.scratch)
		return 0;
	result = commit->data_flush ? image_file_sync(&leaf->file) : 0;
	if (result == 0)
		return leaf_checkpoint_write(leaf, commit->checkpoint, &commit->header_touched);
	commit->header_touched = true; /* nothing is certain any more */
	return result;
}

static void checkpoint_work(struct loop_work *work)
{
	struct leaf_commit *commit = container_of(work, struct leaf_commit, work);

	if (!prepare_checkpoint(commit))
		return;
	commit->result = write_checkpoint(commit);
	if (commit->result == 0 && commit->resize)
		leaf_resize_settle(commit->leaf, commit->resize);
}

static void checkpoint_done(struct loop_work *work);

static void begin_checkpoint(struct leaf_commit *commit)
{
	commit->work = (struct loop_work){
		.work = checkpoint_work, .done = checkpoint_done, .file = &commit->leaf->file.aio.steps};
	loop_offload_step(aio_queue_loop(commit->queue), &commit->work);
}

static void room_came(struct image_op *room, int result)
{
	struct leaf_commit *commit = container_of(room, struct leaf_commit, room);

	if (result < 0)
		leaf_commit_finish(commit, result);
	else
		begin_checkpoint(commit);
}

static void checkpoint_done(struct loop_work *work)
{
	struct leaf_commit *commit = container_of(work, struct leaf_commit, work);

	if (commit->checkpoint || commit->result != -EAGAIN) {
		leaf_commit_finish(commit, commit->result);
		return;
	}
	commit->room = (struct image_op){.queue = commit->queue, .done = room_came};
	leaf_wait_room(&commit->leaf->image, &commit->room);
}

/* The data is durable. */
static void write_metadata(struct leaf_commit *commit)
{
	if (commit->record_bytes > 0) {
		leaf_commit_write_record(commit, commit->record_bytes,
					 commit->plan ? commit->plan->settle : leaf_commit_finish);
	} else {
		leaf_commit_finish(commit, commit->result);
	}
}

static void data_flushed(struct aio_request *request, int result)
{
	struct leaf_commit *commit = container_of(request, struct leaf_commit, aio);

	if (result < 0) {
		commit->header_touched = true; /* nothing is certain any more */
		leaf_commit_finish(commit, result);
	} else {
		write_metadata(commit);
	}
}

static void commit_run(struct leaf *leaf)
{
	struct leaf_commit *commit = leaf->commit;

	if (commit->whole) {
		begin_checkpoint(commit);
	} else if (leaf->image.scratch) {
		leaf_commit_finish(commit, 0);
	} else if (commit->data_flush) {
		submit(commit, AIO_DATASYNC, data_flushed);
	} else {
		write_metadata(commit);
	}
}

/* False: a commit failed since the caller looked. */
static bool enqueue_locked(struct leaf *leaf, struct list *list, struct image_op *op)
{
	leaf_assert_locked(leaf);
	if (!leaf->image.failed) {
		list_append(list, &op->link);
		return true;
	}
	if (list == &leaf->applies)
		leaf_plan_free_locked(leaf_plan_of(op), false);
	if (list == &leaf->resizes)
		leaf_resize_free_locked(leaf, leaf_resize_of(op));
	return false;
}

void leaf_commit_enqueue(struct leaf *leaf, struct list *list, struct image_op *op)
{
	bool waits, begun;

	lock_take(&leaf->lock);
	waits = enqueue_locked(leaf, list, op);
	begun = waits && commit_begin_locked(leaf);
	lock_let_go(&leaf->lock);
	if (!waits)
		image_op_complete(op, -EIO);
	if (begun)
		commit_run(leaf);
}

void leaf_flush(struct image *image, struct image_op *op)
{
	struct leaf *leaf = leaf_of(image);

	leaf_commit_enqueue(leaf, &leaf->flushes, op);
}
