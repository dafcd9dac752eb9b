/* Which slot is next, and the reserve of slots for the zero list.
 *
 * A checkpoint writes the zero list to other slots than it has. Those it always
 * finds in the reserve, which is filled before anything else gets a slot and
 * before the list gets longer: what would need more than there is finds no room
 * while nothing has changed yet. */
#include "spare.h"

#include "geometry.h"
#include "grow.h"
#include "lock.h"
#include "room.h"
#include "slots.h"

/* Whether the file has room for SLOT. */
static int cover_slot(struct leaf *leaf, uint64_t slot)
{
	if (leaf_room_covers_locked(leaf, slot))
		return 0;
	return leaf->file.block_device ? leaf_no_room_locked(leaf) : -EAGAIN;
}

static uint64_t pop(GArray *list)
{
	uint64_t slot = g_array_index(list, uint64_t, list->len - 1);

	g_array_set_size(list, list->len - 1);
	return slot;
}

/* A slot that nobody has, in no list. */
static int find_slot(struct leaf *leaf, uint64_t *slot)
{
	int errnum;

	if (leaf->free->len) {
		*slot = pop(leaf->free);
		return 0;
	}
	*slot = leaf->slots->len;
	errnum = cover_slot(leaf, *slot);
	if (errnum == 0)
		leaf_slots_cover_locked(leaf, *slot);
	return errnum;
}

/* Twice what a list takes, less what lists have now: for the next, and, as that
 * then has them, for the one after. */
static uint64_t spare_needed(const struct leaf *leaf, unsigned more)
{
	uint64_t intervals = (uint64_t)intervals_length(leaf->zero) + leaf->zero_promised + more;
	uint64_t both = 2 * MAX(leaf_zero_list_slots(&leaf->geometry, intervals), 1);
	uint64_t held = leaf->zero_slots->len + leaf->zero_retiring;

	return both > held ? both - held : 0;
}

int leaf_spare_reserve_locked(struct leaf *leaf, unsigned more)
{
	uint64_t needed = spare_needed(leaf, more), slot;

	leaf_assert_locked(leaf);
	while (leaf->spare->len < needed) {
		int errnum = find_slot(leaf, &slot);

		if (errnum)
			return errnum;
		leaf_slot_set_state_locked(leaf, slot, SLOT_SPARE);
	}
	return 0;
}

void leaf_spare_trim_locked(struct leaf *leaf)
{
	uint64_t enough = spare_needed(leaf, LEAF_INTERVALS_PER_PAGE);

	leaf_assert_locked(leaf);
	while (leaf->spare->len > enough)
		leaf_slot_set_state_locked(leaf, pop(leaf->spare), SLOT_FREE);
}

/* An image that was full before there was a reserve has none. */
struct chunk *leaf_spare_take_locked(struct leaf *leaf, uint64_t index, int *errnum)
{
	uint64_t slot;

	leaf_assert_locked(leaf);
	*errnum = 0;
	if (leaf->spare->len)
		slot = pop(leaf->spare);
	else
		*errnum = find_slot(leaf, &slot);
	if (*errnum < 0 && leaf->file.block_device)
		*errnum = -ENOSPC;
	return *errnum ? NULL : leaf_slot_give_locked(leaf, slot, index);
}

void leaf_spare_return_locked(struct leaf *leaf, struct chunk *chunk)
{
	leaf_assert_locked(leaf);
	leaf_slot_release_locked(leaf, chunk, SLOT_SPARE);
	g_free(chunk);
}

struct chunk *leaf_slot_take_locked(struct leaf *leaf, uint64_t index, int *errnum)
{
	uint64_t slot;

	leaf_assert_locked(leaf);
	*errnum = leaf_spare_reserve_locked(leaf, 1);
	if (*errnum == 0)
		*errnum = find_slot(leaf, &slot);
	return *errnum ? NULL : leaf_slot_give_locked(leaf, slot, index);
}
