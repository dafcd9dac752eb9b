/* Chunks in memory: find, allocate, remove, and what is dirty.
 *
 * The hash finds a chunk on the data path; the tree has the same chunks in
 * order, for those who ask what comes next. */
#include "table.h"

#include <pthread.h>

#include "bits.h"
#include "core/counters.h"
#include "dirty.h"
#include "lock.h"
#include "slots.h"
#include "spare.h"

/* Of this process alone: nobody can make an image whose chunks collide. */
static uint64_t hash_factor;

static void choose_hash_factor(void)
{
	hash_factor = (uint64_t)g_random_int() << 32 | g_random_int() | 1;
}

static guint hash_index(gconstpointer index)
{
	return (guint)(*(const uint64_t *)index * hash_factor >> 32);
}

struct chunk *leaf_chunk_find(struct leaf *leaf, uint64_t index)
{
	return g_hash_table_lookup(leaf->chunks, &index);
}

static gint compare_indexes(gconstpointer a, gconstpointer b, gpointer unused)
{
	uint64_t first = *(const uint64_t *)a, second = *(const uint64_t *)b;

	(void)unused;
	return first < second ? -1 : first > second;
}

struct chunk *leaf_chunk_from(struct leaf *leaf, uint64_t index)
{
	GTreeNode *node = g_tree_lower_bound(leaf->ordered, &index);

	return node ? g_tree_node_value(node) : NULL;
}

uint64_t leaf_chunks_without_slot_locked(struct leaf *leaf, uint64_t index, uint64_t limit)
{
	const struct chunk *next = leaf_chunk_from(leaf, index);

	leaf_assert_locked(leaf);
	return next ? MIN(limit, next->index - index) : limit;
}

static void chunk_insert(struct leaf *leaf, struct chunk *chunk)
{
	g_hash_table_insert(leaf->chunks, &chunk->index, chunk);
	g_tree_insert(leaf->ordered, &chunk->index, chunk);
}

static void chunk_delete(struct leaf *leaf, struct chunk *chunk)
{
	g_hash_table_remove(leaf->chunks, &chunk->index);
	g_tree_remove(leaf->ordered, &chunk->index);
}

/* Blocks of chunk INDEX that are inside the image. */
static uint32_t blocks_inside(const struct leaf *leaf, uint64_t index)
{
	uint64_t blocks = blocks_of(leaf->image.size_bytes), first = index * leaf->geometry.chunk_blocks;

	return blocks > first ? (uint32_t)MIN(blocks - first, leaf->geometry.chunk_blocks) : 0;
}

struct chunk *leaf_chunk_allocate_locked(struct leaf *leaf, uint64_t index, int *errnum)
{
	struct chunk *chunk = leaf_slot_take_locked(leaf, index, errnum);

	leaf_assert_locked(leaf);
	if (!chunk)
		return NULL;
	chunk_insert(leaf, chunk);
	counter_add(image_chunks_allocated, 1);
	if (intervals_contains(leaf->zero, index, 1, NULL)) {
		bits_set(chunk_present(leaf, chunk), 0, blocks_inside(leaf, index));
		bits_set(chunk_zero(leaf, chunk), 0, blocks_inside(leaf, index));
		intervals_remove(leaf->zero, index, 1);
		leaf->zero_dirty = true;
		leaf_chunk_mark_dirty_locked(leaf, chunk);
	}
	return chunk;
}

struct chunk *leaf_chunk_load(struct leaf *leaf, uint64_t index, uint64_t slot)
{
	struct chunk *chunk;

	leaf_slots_cover_locked(leaf, slot);
	if (leaf_slot_chunk(leaf, slot) || (index < LEAF_CHUNK_ZERO_LIST && leaf_chunk_find(leaf, index)))
		return NULL;
	chunk = leaf_chunk_new(leaf, index, slot);
	leaf_slot_load(leaf, chunk);
	if (index < LEAF_CHUNK_ZERO_LIST)
		chunk_insert(leaf, chunk);
	return chunk;
}

void leaf_chunk_unload(struct leaf *leaf, struct chunk *chunk)
{
	if (chunk->index < LEAF_CHUNK_ZERO_LIST)
		chunk_delete(leaf, chunk);
	leaf_slot_unload(leaf, chunk);
	leaf_page_mark_dirty_locked(leaf, chunk->slot);
	g_free(chunk);
}

/* The chunk goes; its slot becomes STATE. */
static void take_out(struct leaf *leaf, struct chunk *chunk, enum slot_state state)
{
	if (chunk->index < LEAF_CHUNK_ZERO_LIST)
		chunk_delete(leaf, chunk);
	leaf_chunk_unmark_dirty_locked(leaf, chunk);
	if (state != SLOT_FREE)
		leaf_page_mark_dirty_locked(leaf, chunk->slot);
	chunk->dead = chunk->users;
	if (chunk->dead)
		leaf_slot_pin_locked(leaf, chunk->slot);
	leaf_slot_release_locked(leaf, chunk, state);
	if (!chunk->dead)
		g_free(chunk);
}

void leaf_chunk_remove_locked(struct leaf *leaf, struct chunk *chunk)
{
	bool named = leaf_slot_is_named(leaf, chunk);

	leaf_assert_locked(leaf);
	if (named)
		g_array_append_val(leaf->free_events, chunk->slot);
	counter_add(image_chunks_freed, 1);
	take_out(leaf, chunk, named ? SLOT_FREED : SLOT_FREE);
}

void leaf_chunk_drop_locked(struct leaf *leaf, struct chunk *chunk)
{
	leaf_assert_locked(leaf);
	counter_add(image_chunks_freed, 1);
	take_out(leaf, chunk, leaf_slot_is_named(leaf, chunk) ? SLOT_FREEING : SLOT_FREE);
}

void leaf_chunk_return_locked(struct leaf *leaf, struct chunk *chunk)
{
	leaf_assert_locked(leaf);
	leaf_slot_unname_locked(leaf, chunk);
	take_out(leaf, chunk, SLOT_FREE);
}

static void bury(struct leaf *leaf, struct chunk *chunk)
{
	leaf_slot_unpin_locked(leaf, chunk->slot);
	g_free(chunk);
}

void leaf_chunk_put_locked(struct leaf *leaf, struct chunk *chunk, bool writer)
{
	leaf_assert_locked(leaf);
	chunk->users--;
	chunk->writers -= writer;
	if (chunk->dead && !chunk->users)
		bury(leaf, chunk);
	else if (!chunk->dead && !chunk->writers && leaf_chunk_is_empty(leaf, chunk))
		leaf_chunk_remove_locked(leaf, chunk);
}

bool leaf_chunk_is_empty(const struct leaf *leaf, struct chunk *chunk)
{
	return !bits_any_set(chunk_present(leaf, chunk), 0, leaf->geometry.chunk_blocks);
}

bool leaf_chunk_is_zero(const struct leaf *leaf, struct chunk *chunk)
{
	return bits_all_set(chunk_zero(leaf, chunk), 0, blocks_inside(leaf, chunk->index));
}

void leaf_table_init(struct leaf *leaf)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, choose_hash_factor);
	lock_init(&leaf->lock, LOCK_RANK_LEAF);
	condition_init(&leaf->extended);
	leaf->chunks = g_hash_table_new(hash_index, g_int64_equal);
	leaf->ordered = g_tree_new_full(compare_indexes, NULL, NULL, NULL);
	leaf->slots = g_array_new(FALSE, TRUE, sizeof(struct slot));
	leaf->free = g_array_new(FALSE, FALSE, sizeof(uint64_t));
	leaf->spare = g_array_new(FALSE, FALSE, sizeof(uint64_t));
	leaf->freed = g_array_new(FALSE, FALSE, sizeof(uint64_t));
	leaf->freeing = g_array_new(FALSE, FALSE, sizeof(uint64_t));
	leaf->free_events = g_array_new(FALSE, FALSE, sizeof(uint64_t));
	leaf->events = g_array_new(FALSE, FALSE, sizeof(struct leaf_event));
	leaf->redo = g_array_new(FALSE, FALSE, sizeof(struct leaf_redo));
	leaf->dirty = g_ptr_array_new();
	leaf->zero_slots = g_ptr_array_new();
	leaf->page_dirty = g_byte_array_new();
	leaf->page_place = g_byte_array_new();
	leaf->page_epoch = g_array_new(FALSE, TRUE, sizeof(uint64_t));
	leaf->zero = intervals_new();
	list_init(&leaf->flushes);
	list_init(&leaf->applies);
	list_init(&leaf->resizes);
	list_init(&leaf->room_waiters);
}

void leaf_table_clear(struct leaf *leaf)
{
	for (guint i = 0; i < leaf->slots->len; i++)
		g_free(leaf_slot_chunk(leaf, i));
	g_hash_table_destroy(leaf->chunks);
	g_tree_destroy(leaf->ordered);
	g_array_free(leaf->slots, TRUE);
	g_ptr_array_free(leaf->dirty, TRUE);
	g_ptr_array_free(leaf->zero_slots, TRUE);
	g_array_free(leaf->free, TRUE);
	g_array_free(leaf->spare, TRUE);
	g_array_free(leaf->freed, TRUE);
	g_array_free(leaf->freeing, TRUE);
	g_array_free(leaf->free_events, TRUE);
	g_array_free(leaf->events, TRUE);
	g_array_free(leaf->redo, TRUE);
	g_byte_array_free(leaf->page_dirty, TRUE);
	g_byte_array_free(leaf->page_place, TRUE);
	g_array_free(leaf->page_epoch, TRUE);
	intervals_free(leaf->zero);
	lock_destroy(&leaf->lock);
	condition_destroy(&leaf->extended);
}
