/* Room for slots: the file is extended ahead of use, a block device by a command.
 *
 * An extending O_DIRECT write is synchronous in most file systems, so the file is
 * extended in steps, and stays sparse. A step begins on a background thread when
 * half of the one before is used: writers rarely wait for it. Who finds no slot
 * that the file covers gets -EAGAIN and waits here; an error of the step goes to
 * exactly those that wait for it.
 *
 * The pages of the table that stand before the slots are written with the step,
 * in both places: a checkpoint then finds their room on a full file system too. */
#include "room.h"

#include <errno.h>

#include "core/verdict.h"
#include "geometry.h"
#include "lock.h"
#include "core/workers.h"

#define STEP_BYTES (UINT64_C(64) << 20)

static uint64_t end_of_next_slot(const struct leaf *leaf)
{
	return leaf_slot_offset(&leaf->geometry, leaf->slots->len) + leaf->geometry.chunk_bytes;
}

static int set_length(struct leaf *leaf, uint64_t bytes)
{
	int result = image_file_set_length(&leaf->file, bytes);

	return result == -EINVAL ? -EFBIG : result;
}

/* Nothing on disk names the pages from *ROOM on. */
static int write_pages(struct leaf *leaf, uint64_t *room, uint64_t end)
{
	static const uint8_t blank[2 * LEAF_PAGE_BYTES];
	int result = 0;

	while (result == 0 && *room < end) {
		result = image_file_write(&leaf->file, blank, sizeof(blank), leaf_page_offset(&leaf->geometry, *room));
		*room += result == 0;
	}
	return result;
}

/* Where a step is too long, what is NEEDED may not be. *BYTES: how long the file is. */
static int lengthen(struct leaf *leaf, uint64_t needed, uint64_t *bytes)
{
	uint64_t from = *bytes;
	int result;

	*bytes = round_up(needed + STEP_BYTES / 2, STEP_BYTES);
	if (*bytes <= from) {
		*bytes = from;
		return 0;
	}
	result = set_length(leaf, *bytes);
	if (error_class_of(STORE_EXTEND, result) != ERROR_NO_ROOM)
		return result;
	*bytes = MAX(needed, from);
	return *bytes > from ? set_length(leaf, *bytes) : 0;
}

/* One at a time for a leaf: the file never becomes shorter. */
static int extend(struct leaf *leaf)
{
	uint64_t needed, bytes, room, page;
	bool longer;
	int result;

	lock_take(&leaf->lock);
	needed = end_of_next_slot(leaf);
	page = leaf_page_of(leaf, leaf->slots->len);
	bytes = leaf->file_bytes;
	/* A checkpoint may be writing any page that slots stand in already. */
	leaf->page_room = MAX(leaf->page_room, leaf->page_dirty->len);
	room = leaf->page_room;
	lock_let_go(&leaf->lock);
	result = lengthen(leaf, needed, &bytes);
	longer = result == 0;
	if (longer)
		result =
			write_pages(leaf, &room, leaf_page_of(leaf, leaf_slots_within(&leaf->geometry, bytes) - 1) + 1);
	lock_take(&leaf->lock);
	if (longer)
		leaf->file_bytes = bytes;
	leaf->page_room = room;
	leaf->extended_in_vain = result < 0;
	lock_let_go(&leaf->lock);
	return longer && room > page ? 0 : result;
}

int leaf_room_extend(struct leaf *leaf)
{
	return extend(leaf);
}

void leaf_room_came_locked(struct leaf *leaf, int result)
{
	struct list waiters;
	struct list *node;

	leaf_assert_locked(leaf);
	list_init(&waiters);
	list_splice(&waiters, &leaf->room_waiters);
	while ((node = list_pop(&waiters)))
		image_op_complete(container_of(node, struct image_op, link), result);
}

static void extended_locked(struct leaf *leaf, int result)
{
	leaf_assert_locked(leaf);
	leaf->extending = false;
	leaf_room_came_locked(leaf, result);
	condition_broadcast(&leaf->extended);
}

int leaf_room_extend_relock(struct leaf *leaf)
{
	int result;

	leaf_assert_locked(leaf);
	if (leaf->extending || leaf->file.block_device)
		return -EAGAIN;
	leaf->extending = true;
	lock_let_go(&leaf->lock);
	result = extend(leaf);
	lock_take(&leaf->lock);
	extended_locked(leaf, result);
	return result;
}

/* The leaf may be closed as soon as its lock is free, and the loop of whoever
 * asked may be gone before. */
static void extend_work(struct loop_work *work)
{
	struct leaf *leaf = container_of(work, struct leaf, extension);
	int result = extend(leaf);

	LOCK_GUARD(&leaf->lock);
	extended_locked(leaf, result);
}

/* leaf->extending is set, and the lock is free again. */
void leaf_room_ahead(struct leaf *leaf)
{
	leaf->extension.work = extend_work;
	leaf->extension.file = &leaf->file.aio.steps;
	loop_offload_step_apart(&leaf->extension);
}

bool leaf_room_ahead_locked(struct leaf *leaf)
{
	leaf_assert_locked(leaf);
	if (leaf->extending || leaf->extended_in_vain || leaf->file.block_device || leaf->free->len ||
	    leaf->file_bytes >= end_of_next_slot(leaf) + STEP_BYTES / 2)
		return false;
	leaf->extending = true;
	return true;
}

bool leaf_room_covers_locked(const struct leaf *leaf, uint64_t slot)
{
	leaf_assert_locked(leaf);
	return leaf_slot_offset(&leaf->geometry, slot) + leaf->geometry.chunk_bytes <= leaf->file_bytes &&
	       (leaf->file.block_device || leaf_page_of(leaf, slot) < leaf->page_room);
}

static bool must_extend(const struct leaf *leaf)
{
	return !leaf->file.block_device && !leaf->free->len && !leaf_room_covers_locked(leaf, leaf->slots->len);
}

void leaf_wait_room(struct image *image, struct image_op *op)
{
	struct leaf *leaf = leaf_of(image);
	bool begins, waits;

	lock_take(&leaf->lock);
	begins = !leaf->extending && must_extend(leaf);
	leaf->extending |= begins;
	waits = leaf->extending || leaf->grow;
	if (waits)
		list_append(&leaf->room_waiters, &op->link);
	lock_let_go(&leaf->lock);
	if (begins)
		leaf_room_ahead(leaf);
	if (!waits)
		image_op_complete(op, 0);
}

void leaf_room_settle(struct leaf *leaf)
{
	LOCK_GUARD(&leaf->lock);
	while (leaf->extending)
		lock_wait(&leaf->lock, &leaf->extended);
}
