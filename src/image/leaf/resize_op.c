/* image_resize: what growth needs is found, then the resize waits for its commit
 * (resize.c). */
#include "resize_op.h"

#include "commit.h"
#include "discard.h"
#include "lock.h"
#include "resize.h"
#include "room.h"
#include "table.h"
#include "core/workers.h"

/* What is below must not show through where the disk was shorter before. The
 * last chunk of before has the first part of that, unless it is zeros. */
static int find_partial(struct leaf *leaf, struct leaf_resize *resize)
{
	uint64_t first = blocks_of(resize->old_bytes), end = blocks_of(resize->new_bytes);
	struct leaf_zero_parts *zeros = &resize->zeros;
	int errnum = 0;

	*zeros = leaf_zero_parts_of(leaf, first, end, end);
	LOCK_GUARD(&leaf->lock);
	if (zeros->head_blocks && !intervals_contains(leaf->zero, zeros->head, 1, NULL)) {
		resize->partial = leaf_chunk_find(leaf, zeros->head);
		if (!resize->partial)
			resize->partial = leaf_chunk_allocate_locked(leaf, zeros->head, &errnum);
	}
	if (resize->partial) {
		resize->partial->users++;
		resize->partial->writers++;
	}
	return errnum;
}

static void prepare_work(struct loop_work *work)
{
	struct leaf_resize *resize = container_of(work, struct leaf_resize, work);
	struct leaf *leaf = leaf_of(resize->op->image);

	resize->result = leaf_resize_clear_tail(leaf, resize->old_bytes);
	if (resize->result == 0 && !resize->op->bottom && blocks_of(resize->old_bytes) < blocks_of(resize->new_bytes))
		resize->result = find_partial(leaf, resize);
}

static void give_up(struct leaf_resize *resize, int result)
{
	struct image_op *op = resize->op;

	g_free(resize);
	op->done(op, result);
}

static void prepare_done(struct loop_work *work);

static void prepare(struct leaf_resize *resize)
{
	resize->work = (struct loop_work){
		.work = prepare_work, .done = prepare_done, .file = &leaf_of(resize->op->image)->file.aio.steps};
	loop_offload_step(aio_queue_loop(resize->op->queue), &resize->work);
}

static void room_came(struct image_op *room, int result)
{
	struct leaf_resize *resize = container_of(room, struct leaf_resize, room);

	if (result < 0)
		give_up(resize, result);
	else
		prepare(resize);
}

static void prepare_done(struct loop_work *work)
{
	struct leaf_resize *resize = container_of(work, struct leaf_resize, work);
	struct leaf *leaf = leaf_of(resize->op->image);

	if (resize->result == -EAGAIN) {
		resize->room = (struct image_op){.queue = resize->op->queue, .done = room_came};
		leaf_wait_room(&leaf->image, &resize->room);
	} else if (resize->result < 0) {
		give_up(resize, resize->result);
	} else {
		leaf_commit_enqueue(leaf, &leaf->resizes, resize->op);
	}
}

void leaf_resize(struct image *image, struct image_op *op)
{
	struct leaf *leaf = leaf_of(image);
	struct leaf_resize *resize;

	if (op->length > LEAF_SIZE_MAX(leaf->geometry.chunk_bytes)) {
		image_op_complete(op, -EFBIG);
		return;
	}
	resize = g_new0(struct leaf_resize, 1);
	resize->op = op;
	resize->old_bytes = image->size_bytes;
	resize->new_bytes = op->length;
	op->driver = resize;
	if (resize->new_bytes > resize->old_bytes)
		prepare(resize);
	else
		leaf_commit_enqueue(leaf, &leaf->resizes, op);
}
