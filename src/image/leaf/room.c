/* Room for slots: the file is extended ahead of use, a block device by a command.
 *
 * An extending O_DIRECT write is synchronous in most file systems, so the file is
 * extended in steps, and stays sparse. A step begins on a background thread when
 * half of the one before is used: writers rarely wait for it. Who finds no slot
 * that the file covers gets -EAGAIN and waits here; an error of the step goes to
 * exactly those that wait for it. */
#include <errno.h>
#include <unistd.h>

#include "core/fault.h"
#include "core/verdict.h"
#include "leaf.h"

#define STEP_BYTES (UINT64_C(64) << 20)

struct extension {
	struct loop_work work;
	struct leaf *leaf;
};

static uint64_t end_of_next_slot(const struct leaf *leaf)
{
	return leaf_slot_offset(&leaf->geometry, leaf->slots->len) + leaf->geometry.chunk_bytes;
}

static int set_length(struct leaf *leaf, uint64_t bytes)
{
	int fault = fault_hit("image.extend", leaf->file.path);

	if (fault)
		return fault;
	if (ftruncate(leaf->file.aio.buffered_fd, (off_t)bytes) < 0)
		return errno == EINVAL ? -EFBIG : -errno;
	return 0;
}

/* One at a time for a leaf: the file never becomes shorter. Where a step is too
 * long, what is needed may not be. */
static int extend(struct leaf *leaf)
{
	uint64_t needed, bytes, from;
	int result;

	g_mutex_lock(&leaf->lock);
	needed = end_of_next_slot(leaf);
	from = leaf->file_bytes;
	g_mutex_unlock(&leaf->lock);
	bytes = round_up(needed + STEP_BYTES / 2, STEP_BYTES);
	if (bytes <= from)
		return 0;
	result = set_length(leaf, bytes);
	if (error_class_of(STORE_EXTEND, result) == ERROR_NO_ROOM && needed > from) {
		bytes = needed;
		result = set_length(leaf, bytes);
	}
	g_mutex_lock(&leaf->lock);
	if (result == 0)
		leaf->file_bytes = bytes;
	leaf->extended_in_vain = result < 0;
	g_mutex_unlock(&leaf->lock);
	return result;
}

int leaf_room_extend(struct leaf *leaf)
{
	return extend(leaf);
}

void leaf_room_came_locked(struct leaf *leaf, int result)
{
	struct list waiters;
	struct list *node;

	list_init(&waiters);
	list_splice(&waiters, &leaf->room_waiters);
	while ((node = list_pop(&waiters)))
		image_op_complete(container_of(node, struct image_op, link), result);
}

static void extended_locked(struct leaf *leaf, int result)
{
	leaf->extending = false;
	leaf_room_came_locked(leaf, result);
	g_cond_broadcast(&leaf->extended);
}

int leaf_room_extend_locked(struct leaf *leaf)
{
	int result;

	if (leaf->extending || leaf->file.block_device)
		return -EAGAIN;
	leaf->extending = true;
	g_mutex_unlock(&leaf->lock);
	result = extend(leaf);
	g_mutex_lock(&leaf->lock);
	extended_locked(leaf, result);
	return result;
}

/* The leaf may be closed as soon as its lock is free. */
static void extend_work(struct loop_work *work)
{
	struct leaf *leaf = container_of(work, struct extension, work)->leaf;
	int result = extend(leaf);

	g_mutex_lock(&leaf->lock);
	extended_locked(leaf, result);
	g_mutex_unlock(&leaf->lock);
}

static void extend_done(struct loop_work *work)
{
	g_free(container_of(work, struct extension, work));
}

/* leaf->extending is set, and the lock is free again. */
static void begin(struct leaf *leaf, struct loop *loop)
{
	struct extension *extension = g_new0(struct extension, 1);

	extension->leaf = leaf;
	extension->work = (struct loop_work){.work = extend_work, .done = extend_done};
	loop_offload_step(loop, &extension->work);
}

bool leaf_room_ahead_locked(struct leaf *leaf)
{
	if (leaf->extending || leaf->extended_in_vain || leaf->file.block_device || leaf->free->len ||
	    leaf->file_bytes >= end_of_next_slot(leaf) + STEP_BYTES / 2)
		return false;
	leaf->extending = true;
	return true;
}

void leaf_room_ahead(struct leaf *leaf, struct loop *loop)
{
	begin(leaf, loop);
}

static bool must_extend(const struct leaf *leaf)
{
	return !leaf->file.block_device && !leaf->free->len && end_of_next_slot(leaf) > leaf->file_bytes;
}

void leaf_wait_room(struct image *image, struct image_op *op)
{
	struct leaf *leaf = leaf_of(image);
	bool begins, waits;

	g_mutex_lock(&leaf->lock);
	begins = !leaf->extending && must_extend(leaf);
	leaf->extending |= begins;
	waits = leaf->extending || leaf->grow;
	if (waits)
		list_append(&leaf->room_waiters, &op->link);
	g_mutex_unlock(&leaf->lock);
	if (begins)
		begin(leaf, aio_queue_loop(op->queue));
	if (!waits)
		image_op_complete(op, 0);
}

void leaf_room_settle(struct leaf *leaf)
{
	g_mutex_lock(&leaf->lock);
	while (leaf->extending)
		g_cond_wait(&leaf->extended, &leaf->lock);
	g_mutex_unlock(&leaf->lock);
	leaf_grow_detach(leaf);
}
