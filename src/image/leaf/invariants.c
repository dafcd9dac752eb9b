/* What holds of a native layer in memory, as numbered in leaf.h. */
#include "invariants.h"

#ifdef LEAFDISK_FAULTS

#include "lock.h"
#include "slots.h"
#include "table.h"

static const char *find_breach_of_chunk_locked(struct leaf *leaf, const struct chunk *chunk)
{
	leaf_assert_locked(leaf);
	if (chunk->dead || leaf_chunk_find(leaf, chunk->index) != chunk || leaf_chunk_from(leaf, chunk->index) != chunk)
		return "1: a chunk with a slot is not the one of its number";
	if (intervals_contains(leaf->zero, chunk->index, 1, NULL))
		return "2: a chunk with a slot is among those that are zero as a whole";
	return NULL;
}

static const char *find_breach_of_chunks_locked(struct leaf *leaf)
{
	const char *breach = NULL;
	guint owned = 0;

	leaf_assert_locked(leaf);
	for (guint slot = 0; slot < leaf->slots->len && !breach; slot++) {
		const struct chunk *chunk = leaf_slot_chunk(leaf, slot);

		if (!chunk)
			continue;
		if (chunk->slot != slot)
			return "1: a chunk is in another slot than it says";
		if (chunk->index >= LEAF_CHUNK_ZERO_LIST)
			continue;
		owned++;
		breach = find_breach_of_chunk_locked(leaf, chunk);
	}
	if (!breach && (owned != g_hash_table_size(leaf->chunks) || owned != (guint)g_tree_nnodes(leaf->ordered)))
		breach = "1: a chunk has no slot";
	return breach;
}

/* Those of STATE are in LIST, each once. */
static const char *find_breach_of_list_locked(struct leaf *leaf, const GArray *list, enum slot_state state)
{
	guint count = 0;

	leaf_assert_locked(leaf);
	for (guint i = 0; i < leaf->slots->len; i++)
		count += leaf_slot(leaf, i)->state == state;
	for (guint i = 0; i < list->len; i++)
		if (leaf_slot(leaf, g_array_index(list, uint64_t, i))->state != state)
			return "3: a slot is in the list of another state than its own";
	return list->len == count ? NULL : "3: a slot is not in the list of its state, or twice";
}

static const char *find_breach_of_slots_locked(struct leaf *leaf)
{
	const struct {
		const GArray *list;
		enum slot_state state;
	} lists[] = {{leaf->free, SLOT_FREE},
		     {leaf->spare, SLOT_SPARE},
		     {leaf->freed, SLOT_FREED},
		     {leaf->freeing, SLOT_FREEING}};
	const char *breach = NULL;

	leaf_assert_locked(leaf);
	for (guint i = 0; i < leaf->slots->len; i++) {
		const struct slot *slot = leaf_slot(leaf, i);
		bool owned = slot->state == SLOT_TAKEN || slot->state == SLOT_NAMED;

		if (owned != (slot->chunk != NULL))
			return "3: a slot is owned and has no chunk, or neither";
		if ((slot->state == SLOT_FREE && slot->pins) || (slot->state == SLOT_BUSY && !slot->pins))
			return "3: a slot is free and pinned, or neither";
	}
	for (unsigned i = 0; i < G_N_ELEMENTS(lists) && !breach; i++)
		breach = find_breach_of_list_locked(leaf, lists[i].list, lists[i].state);
	return breach;
}

static const char *find_breach_of_dirty_locked(struct leaf *leaf)
{
	leaf_assert_locked(leaf);
	for (guint i = 0; i < leaf->dirty->len; i++) {
		const struct chunk *chunk = leaf->dirty->pdata[i];

		if (!chunk->dirty || chunk->dirty_position != i)
			return "4: a chunk of the next record does not know that it is";
		if (!leaf->page_dirty->data[leaf_page_of(leaf, chunk->slot)])
			return "4: a chunk of the next record is in a page that is not to be written";
	}
	return NULL;
}

const char *leaf_find_breach_locked(struct leaf *leaf)
{
	const char *breach = find_breach_of_chunks_locked(leaf);

	leaf_assert_locked(leaf);
	if (!breach)
		breach = find_breach_of_slots_locked(leaf);
	if (!breach)
		breach = find_breach_of_dirty_locked(leaf);
	return breach;
}

void leaf_check_locked(struct leaf *leaf)
{
	const char *breach;

	leaf_assert_locked(leaf);
	breach = leaf_find_breach_locked(leaf);
	if (breach)
		g_error("%s: invariant %s", leaf->image.path, breach);
}

#endif
