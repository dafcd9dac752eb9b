/* Slots: who has one, and when it may be handed out again.
 *
 *            reserve         take for the zero list
 *     FREE ---------> SPARE <----------------------> TAKEN
 *          <---------
 *            take, or give back (pinned: BUSY)
 *     FREE <-----------------------------------> TAKEN
 *      ^ ^                                        | ^
 *      | |   a record or a page that has it is    | | those that had it do not
 *      | |   made                                 v | count (any more)
 *      | |                                       NAMED
 *      | |   owner goes, by the record under way  | | owner goes
 *      | |                          FREEING <-----+ +-----> FREED
 *      | | the commit is durable     | ^ |  the commit fails  ^ |
 *      | +---------------------------+ | +--------------------+ |
 *      |   (pinned: BUSY)              +------------------------+ a commit begins
 *      +--- BUSY, when the last pin is gone
 *
 * A slot is NAMED from before the first write that may put its number where a
 * load finds it, until that is known not to count: the disk has to be told when
 * its owner goes. Of one that is TAKEN the disk knows nothing: it is free as soon
 * as its owner goes, and what fails takes no room from what comes next.
 *
 * Two things keep a slot from its next owner: that a durable table or record
 * may name its last one (FREED, FREEING: invariant 6 of leaf.h), and that a
 * punch or a transfer of it is under way, which would fall on the next owner's
 * data (pins). They are independent, and a slot is free when both are gone. */
#include "slots.h"

#include "dirty.h"
#include "lock.h"

#ifdef LEAFDISK_FAULTS
static const bool allowed[SLOT_STATES][SLOT_STATES] = {
	[SLOT_FREE] = {[SLOT_TAKEN] = true, [SLOT_SPARE] = true},
	[SLOT_SPARE] = {[SLOT_TAKEN] = true, [SLOT_FREE] = true},
	[SLOT_TAKEN] = {[SLOT_NAMED] = true, [SLOT_FREE] = true, [SLOT_BUSY] = true, [SLOT_SPARE] = true},
	[SLOT_NAMED] = {[SLOT_TAKEN] = true, [SLOT_FREED] = true, [SLOT_FREEING] = true},
	[SLOT_FREED] = {[SLOT_FREEING] = true},
	[SLOT_FREEING] = {[SLOT_FREED] = true, [SLOT_FREE] = true, [SLOT_BUSY] = true},
	[SLOT_BUSY] = {[SLOT_FREE] = true},
};
#endif

static GArray *list_of(struct leaf *leaf, enum slot_state state)
{
	switch (state) {
	case SLOT_FREE:
		return leaf->free;
	case SLOT_SPARE:
		return leaf->spare;
	case SLOT_FREED:
		return leaf->freed;
	case SLOT_FREEING:
		return leaf->freeing;
	default:
		return NULL;
	}
}

void leaf_slot_set_state_locked(struct leaf *leaf, uint64_t number, enum slot_state state)
{
	struct slot *slot = leaf_slot(leaf, number);
	GArray *list;

	leaf_assert_locked(leaf);
	if (state == SLOT_FREE && slot->pins)
		state = SLOT_BUSY;
#ifdef LEAFDISK_FAULTS
	g_assert(allowed[slot->state][state]);
#endif
	slot->state = state;
	list = list_of(leaf, state);
	if (list)
		g_array_append_val(list, number);
}

void leaf_slots_cover_locked(struct leaf *leaf, uint64_t slot)
{
	leaf_assert_locked(leaf);
	if (slot < leaf->slots->len)
		return;
	g_array_set_size(leaf->slots, (guint)slot + 1);
	leaf_pages_cover_locked(leaf);
}

struct chunk *leaf_chunk_new(const struct leaf *leaf, uint64_t index, uint64_t slot)
{
	struct chunk *chunk = g_malloc0(sizeof(*chunk) + 2 * leaf->geometry.words * sizeof(uint64_t));

	chunk->index = index;
	chunk->slot = slot;
	return chunk;
}

struct chunk *leaf_slot_give_locked(struct leaf *leaf, uint64_t slot, uint64_t index)
{
	struct chunk *chunk = leaf_chunk_new(leaf, index, slot);

	leaf_assert_locked(leaf);
	leaf_slot(leaf, slot)->chunk = chunk;
	leaf_slot_set_state_locked(leaf, slot, SLOT_TAKEN);
	return chunk;
}

void leaf_slot_release_locked(struct leaf *leaf, struct chunk *chunk, enum slot_state state)
{
	leaf_assert_locked(leaf);
	leaf_slot(leaf, chunk->slot)->chunk = NULL;
	leaf_slot_set_state_locked(leaf, chunk->slot, state);
}

void leaf_slot_name_locked(struct leaf *leaf, const struct chunk *chunk)
{
	leaf_assert_locked(leaf);
	if (!leaf_slot_is_named(leaf, chunk))
		leaf_slot_set_state_locked(leaf, chunk->slot, SLOT_NAMED);
}

void leaf_slot_unname_locked(struct leaf *leaf, const struct chunk *chunk)
{
	leaf_assert_locked(leaf);
	if (leaf_slot_is_named(leaf, chunk))
		leaf_slot_set_state_locked(leaf, chunk->slot, SLOT_TAKEN);
}

void leaf_slot_pin_locked(struct leaf *leaf, uint64_t slot)
{
	leaf_assert_locked(leaf);
	leaf_slot(leaf, slot)->pins++;
}

void leaf_slot_unpin_locked(struct leaf *leaf, uint64_t number)
{
	struct slot *slot = leaf_slot(leaf, number);

	leaf_assert_locked(leaf);
	if (--slot->pins == 0 && slot->state == SLOT_BUSY)
		leaf_slot_set_state_locked(leaf, number, SLOT_FREE);
}

static void move_all(struct leaf *leaf, GArray *from, enum slot_state state)
{
	for (guint i = 0; i < from->len; i++)
		leaf_slot_set_state_locked(leaf, g_array_index(from, uint64_t, i), state);
	g_array_set_size(from, 0);
}

void leaf_slots_commit_begins_locked(struct leaf *leaf)
{
	leaf_assert_locked(leaf);
	move_all(leaf, leaf->freed, SLOT_FREEING);
}

void leaf_slots_commit_ends_locked(struct leaf *leaf, bool durable)
{
	leaf_assert_locked(leaf);
	move_all(leaf, leaf->freeing, durable ? SLOT_FREE : SLOT_FREED);
}

void leaf_slot_load(struct leaf *leaf, struct chunk *chunk)
{
	*leaf_slot(leaf, chunk->slot) = (struct slot){.chunk = chunk, .state = SLOT_NAMED};
}

void leaf_slot_unload(struct leaf *leaf, struct chunk *chunk)
{
	*leaf_slot(leaf, chunk->slot) = (struct slot){0};
}

/* Per slot whether a copy is owed from it: it is read again after a crash, as
 * long as the record that says so counts. */
static uint8_t *redo_slots(const struct leaf *leaf)
{
	uint8_t *owed = g_malloc0(leaf->slots->len);

	for (guint i = 0; i < leaf->redo->len; i++)
		owed[g_array_index(leaf->redo, struct leaf_redo, i).slot] = 1;
	return owed;
}

void leaf_slots_find_free(struct leaf *leaf)
{
	g_autofree uint8_t *owed = redo_slots(leaf);

	g_array_set_size(leaf->free, 0);
	for (uint64_t number = leaf->slots->len; number-- > 0;) {
		struct slot *slot = leaf_slot(leaf, number);

		if (slot->chunk)
			continue;
		slot->state = owed[number] ? SLOT_FREED : SLOT_FREE;
		g_array_append_val(list_of(leaf, slot->state), number);
	}
}
