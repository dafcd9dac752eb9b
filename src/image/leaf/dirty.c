/* What the next commit writes: chunks that a hard write has changed, events, and the
 * pages of the table that differ from those on disk. */
#include "dirty.h"

#include <string.h>

#include "lock.h"
#include "slots.h"

void leaf_pages_cover_locked(struct leaf *leaf)
{
	guint pages = leaf->slots->len ? (guint)leaf_page_of(leaf, leaf->slots->len - 1) + 1 : 0;
	guint old = leaf->page_dirty->len;

	leaf_assert_locked(leaf);
	if (pages <= old)
		return;
	g_byte_array_set_size(leaf->page_dirty, pages);
	g_byte_array_set_size(leaf->page_place, pages);
	g_array_set_size(leaf->page_epoch, pages);
	memset(leaf->page_dirty->data + old, 1, pages - old);
	memset(leaf->page_place->data + old, 1, pages - old);
}

void leaf_page_mark_dirty_locked(struct leaf *leaf, uint64_t slot)
{
	leaf_assert_locked(leaf);
	leaf->page_dirty->data[leaf_page_of(leaf, slot)] = 1;
}

void leaf_chunk_mark_dirty_locked(struct leaf *leaf, struct chunk *chunk)
{
	leaf_assert_locked(leaf);
	leaf_page_mark_dirty_locked(leaf, chunk->slot);
	if (chunk->dirty)
		return;
	chunk->dirty = true;
	chunk->dirty_position = leaf->dirty->len;
	g_ptr_array_add(leaf->dirty, chunk);
}

void leaf_chunk_unmark_dirty_locked(struct leaf *leaf, struct chunk *chunk)
{
	leaf_assert_locked(leaf);
	if (!chunk->dirty)
		return;
	chunk->dirty = false;
	g_ptr_array_remove_index_fast(leaf->dirty, chunk->dirty_position);
	if (chunk->dirty_position < leaf->dirty->len)
		((struct chunk *)leaf->dirty->pdata[chunk->dirty_position])->dirty_position = chunk->dirty_position;
}

void leaf_event_locked(struct leaf *leaf, uint32_t type, uint64_t chunk, uint64_t count)
{
	struct leaf_event event = {type, chunk, count};

	leaf_assert_locked(leaf);
	leaf->zero_dirty = true;
	g_array_append_val(leaf->events, event);
}

void leaf_dirty_everything_locked(struct leaf *leaf)
{
	leaf_assert_locked(leaf);
	for (guint page = 0; page < leaf->page_dirty->len; page++)
		leaf->page_dirty->data[page] = 1;
	leaf->zero_dirty = true;
	leaf->checkpoint_due = true;
}

void leaf_dirty_take_locked(struct leaf *leaf, struct leaf_dirty *taken)
{
	leaf_assert_locked(leaf);
	*taken = (struct leaf_dirty){g_array_new(FALSE, FALSE, sizeof(uint64_t)), leaf->events, leaf->free_events};
	for (guint i = 0; i < leaf->dirty->len; i++) {
		struct chunk *chunk = leaf->dirty->pdata[i];

		chunk->dirty = false;
		g_array_append_val(taken->slots, chunk->slot);
	}
	g_ptr_array_set_size(leaf->dirty, 0);
	leaf->events = g_array_new(FALSE, FALSE, sizeof(struct leaf_event));
	leaf->free_events = g_array_new(FALSE, FALSE, sizeof(uint64_t));
}

static void put_in_front(GArray *older, GArray **newer)
{
	g_array_append_vals(older, (*newer)->data, (*newer)->len);
	g_array_free(*newer, TRUE);
	*newer = older;
}

/* A slot that has lost its chunk since has an event of its own. Whether a chunk
 * had soft blocks is not known any more: it is taken to have some. */
void leaf_dirty_restore_locked(struct leaf *leaf, struct leaf_dirty *taken)
{
	leaf_assert_locked(leaf);
	if (!taken->slots)
		return;
	for (guint i = 0; i < taken->slots->len; i++) {
		struct chunk *chunk = leaf_slot_chunk(leaf, g_array_index(taken->slots, uint64_t, i));

		if (!chunk || chunk->index >= LEAF_CHUNK_ZERO_LIST)
			continue;
		leaf_chunk_mark_dirty_locked(leaf, chunk);
		chunk->soft = true;
	}
	put_in_front(taken->events, &leaf->events);
	put_in_front(taken->free_events, &leaf->free_events);
	g_array_free(taken->slots, TRUE);
	*taken = (struct leaf_dirty){0};
}

void leaf_dirty_clear(struct leaf_dirty *taken)
{
	if (!taken->slots)
		return;
	g_array_free(taken->slots, TRUE);
	g_array_free(taken->events, TRUE);
	g_array_free(taken->free_events, TRUE);
	*taken = (struct leaf_dirty){0};
}
