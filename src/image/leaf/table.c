/* Chunks and slots in memory: find, allocate, free, and what is dirty.
 *
 * A freed slot goes through `freed` and, with the commit that makes it
 * durable, `freeing` before it is `free` (invariant 5 of leaf.h). */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "core/counters.h"
#include "core/fault.h"
#include "leaf.h"

/* The file is extended ahead of use in steps: an extending O_DIRECT write is
 * synchronous in most file systems. It stays sparse. */
#define FILE_STEP_BYTES (UINT64_C(64) << 20)

static struct chunk *chunk_new(const struct leaf *leaf, uint64_t index, uint64_t slot)
{
	struct chunk *chunk = g_malloc0(sizeof(*chunk) + 2 * leaf->geometry.words * sizeof(uint64_t));

	chunk->index = index;
	chunk->slot = slot;
	return chunk;
}

struct chunk *leaf_chunk_find(struct leaf *leaf, uint64_t index)
{
	return g_hash_table_lookup(leaf->chunks, &index);
}

static void sorted_drop(struct leaf *leaf)
{
	if (leaf->sorted)
		g_array_free(leaf->sorted, TRUE);
	leaf->sorted = NULL;
}

static gint compare_indexes(gconstpointer a, gconstpointer b)
{
	uint64_t first = *(const uint64_t *)a, second = *(const uint64_t *)b;

	return first < second ? -1 : first > second;
}

static void sorted_make(struct leaf *leaf)
{
	GHashTableIter iter;
	gpointer key;

	if (leaf->sorted)
		return;
	leaf->sorted = g_array_sized_new(FALSE, FALSE, sizeof(uint64_t), g_hash_table_size(leaf->chunks));
	g_hash_table_iter_init(&iter, leaf->chunks);
	while (g_hash_table_iter_next(&iter, &key, NULL))
		g_array_append_vals(leaf->sorted, key, 1);
	g_array_sort(leaf->sorted, compare_indexes);
}

uint64_t leaf_chunks_without_slot_locked(struct leaf *leaf, uint64_t index, uint64_t limit)
{
	guint low = 0, high;

	sorted_make(leaf);
	high = leaf->sorted->len;
	while (low < high) {
		guint middle = low + (high - low) / 2;

		if (g_array_index(leaf->sorted, uint64_t, middle) < index)
			low = middle + 1;
		else
			high = middle;
	}
	return low < leaf->sorted->len ? MIN(limit, g_array_index(leaf->sorted, uint64_t, low) - index) : limit;
}

uint64_t leaf_page_of(const struct leaf *leaf, uint64_t slot)
{
	return slot / leaf->geometry.entries_per_page;
}

void leaf_pages_cover_locked(struct leaf *leaf)
{
	guint pages = leaf->slots->len ? (guint)leaf_page_of(leaf, leaf->slots->len - 1) + 1 : 0;
	guint old = leaf->page_dirty->len;

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
	leaf->page_dirty->data[leaf_page_of(leaf, slot)] = 1;
}

void leaf_chunk_mark_dirty_locked(struct leaf *leaf, struct chunk *chunk)
{
	leaf_page_mark_dirty_locked(leaf, chunk->slot);
	if (chunk->dirty)
		return;
	chunk->dirty = true;
	chunk->dirty_position = leaf->dirty->len;
	g_ptr_array_add(leaf->dirty, chunk);
}

static void unmark_dirty(struct leaf *leaf, struct chunk *chunk)
{
	if (!chunk->dirty)
		return;
	chunk->dirty = false;
	g_ptr_array_remove_index_fast(leaf->dirty, chunk->dirty_position);
	if (chunk->dirty_position < leaf->dirty->len)
		((struct chunk *)leaf->dirty->pdata[chunk->dirty_position])->dirty_position = chunk->dirty_position;
}

void leaf_forget_dirty_locked(struct leaf *leaf)
{
	for (guint i = 0; i < leaf->dirty->len; i++)
		((struct chunk *)leaf->dirty->pdata[i])->dirty = false;
	g_ptr_array_set_size(leaf->dirty, 0);
	g_array_set_size(leaf->events, 0);
	g_array_set_size(leaf->free_events, 0);
}

/* Makes the file reach to the end of SLOT. */
static int cover_slot(struct leaf *leaf, uint64_t slot)
{
	uint64_t end = leaf_slot_offset(&leaf->geometry, slot) + leaf->geometry.chunk_bytes;
	uint64_t bytes = round_up(end, FILE_STEP_BYTES);
	int fault;

	if (end <= leaf->file_bytes)
		return 0;
	if (leaf->file.block_device)
		return leaf_no_room_locked(leaf);
	fault = fault_hit("image.extend", leaf->file.path);
	if (fault)
		return fault;
	if (ftruncate(leaf->file.aio.buffered_fd, (off_t)bytes) < 0)
		return errno == EFBIG || errno == EINVAL ? -EFBIG : -errno;
	leaf->file_bytes = bytes;
	return 0;
}

struct chunk *leaf_slot_take_locked(struct leaf *leaf, uint64_t index, int *errnum)
{
	struct chunk *chunk;
	uint64_t slot;

	if (leaf->free->len) {
		slot = g_array_index(leaf->free, uint64_t, leaf->free->len - 1);
		g_array_set_size(leaf->free, leaf->free->len - 1);
	} else {
		slot = leaf->slots->len;
		*errnum = cover_slot(leaf, slot);
		if (*errnum)
			return NULL;
		g_ptr_array_add(leaf->slots, NULL);
		leaf_pages_cover_locked(leaf);
	}
	chunk = chunk_new(leaf, index, slot);
	leaf->slots->pdata[slot] = chunk;
	return chunk;
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

	if (!chunk)
		return NULL;
	g_hash_table_insert(leaf->chunks, &chunk->index, chunk);
	sorted_drop(leaf);
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

void leaf_slots_cover_locked(struct leaf *leaf, uint64_t slot)
{
	if (slot < leaf->slots->len)
		return;
	g_ptr_array_set_size(leaf->slots, (gint)slot + 1);
	leaf_pages_cover_locked(leaf);
}

struct chunk *leaf_chunk_load(struct leaf *leaf, uint64_t index, uint64_t slot)
{
	struct chunk *chunk;

	leaf_slots_cover_locked(leaf, slot);
	if (leaf->slots->pdata[slot] || (index < LEAF_CHUNK_ZERO_LIST && leaf_chunk_find(leaf, index)))
		return NULL;
	chunk = chunk_new(leaf, index, slot);
	leaf->slots->pdata[slot] = chunk;
	if (index < LEAF_CHUNK_ZERO_LIST)
		g_hash_table_insert(leaf->chunks, &chunk->index, chunk);
	return chunk;
}

static void slot_release(struct chunk *chunk, GArray *slots)
{
	g_array_append_val(slots, chunk->slot);
	g_free(chunk);
}

/* The slot goes to SLOTS, or with the last user to leaf->freed. */
static void take_out(struct leaf *leaf, struct chunk *chunk, GArray *slots)
{
	if (chunk->index < LEAF_CHUNK_ZERO_LIST)
		g_hash_table_remove(leaf->chunks, &chunk->index);
	sorted_drop(leaf);
	unmark_dirty(leaf, chunk);
	leaf->slots->pdata[chunk->slot] = NULL;
	leaf_page_mark_dirty_locked(leaf, chunk->slot);
	counter_add(image_chunks_freed, 1);
	if (chunk->users)
		chunk->dead = true;
	else
		slot_release(chunk, slots);
}

void leaf_chunk_remove_locked(struct leaf *leaf, struct chunk *chunk)
{
	g_array_append_val(leaf->free_events, chunk->slot);
	take_out(leaf, chunk, leaf->freed);
}

void leaf_chunk_drop_locked(struct leaf *leaf, struct chunk *chunk)
{
	take_out(leaf, chunk, leaf->freeing);
}

void leaf_slot_return_locked(struct leaf *leaf, struct chunk *chunk)
{
	leaf->slots->pdata[chunk->slot] = NULL;
	slot_release(chunk, leaf->free);
}

void leaf_chunk_put_locked(struct leaf *leaf, struct chunk *chunk, bool writer)
{
	chunk->users--;
	chunk->writers -= writer;
	if (chunk->dead && !chunk->users)
		slot_release(chunk, leaf->freed);
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

void leaf_event_locked(struct leaf *leaf, uint32_t type, uint64_t chunk, uint64_t count)
{
	struct leaf_event event = {type, chunk, count};

	leaf->zero_dirty = true;
	g_array_append_val(leaf->events, event);
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

void leaf_table_find_free(struct leaf *leaf)
{
	g_autofree uint8_t *owed = redo_slots(leaf);

	g_array_set_size(leaf->free, 0);
	for (uint64_t slot = leaf->slots->len; slot-- > 0;)
		if (!leaf->slots->pdata[slot])
			g_array_append_val(owed[slot] ? leaf->freed : leaf->free, slot);
}

void leaf_table_init(struct leaf *leaf)
{
	g_mutex_init(&leaf->lock);
	g_cond_init(&leaf->grown);
	leaf->chunks = g_hash_table_new(g_int64_hash, g_int64_equal);
	leaf->slots = g_ptr_array_new();
	leaf->free = g_array_new(FALSE, FALSE, sizeof(uint64_t));
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
	list_init(&leaf->room_waiters);
}

void leaf_table_clear(struct leaf *leaf)
{
	for (guint i = 0; i < leaf->slots->len; i++)
		g_free(leaf->slots->pdata[i]);
	sorted_drop(leaf);
	g_hash_table_destroy(leaf->chunks);
	g_ptr_array_free(leaf->slots, TRUE);
	g_ptr_array_free(leaf->dirty, TRUE);
	g_ptr_array_free(leaf->zero_slots, TRUE);
	g_array_free(leaf->free, TRUE);
	g_array_free(leaf->freed, TRUE);
	g_array_free(leaf->freeing, TRUE);
	g_array_free(leaf->free_events, TRUE);
	g_array_free(leaf->events, TRUE);
	g_array_free(leaf->redo, TRUE);
	g_byte_array_free(leaf->page_dirty, TRUE);
	g_byte_array_free(leaf->page_place, TRUE);
	g_array_free(leaf->page_epoch, TRUE);
	intervals_free(leaf->zero);
	g_mutex_clear(&leaf->lock);
	g_cond_clear(&leaf->grown);
}

void leaf_table_assert_locked(struct leaf *leaf)
{
#ifdef LEAFDISK_FAULTS
	guint owned = 0;

	for (guint slot = 0; slot < leaf->slots->len; slot++) {
		struct chunk *chunk = leaf->slots->pdata[slot];

		if (!chunk || chunk->index >= LEAF_CHUNK_ZERO_LIST)
			continue;
		owned++;
		g_assert(chunk->slot == slot && !chunk->dead);			  /* 1 */
		g_assert(leaf_chunk_find(leaf, chunk->index) == chunk);		  /* 1 */
		g_assert(!intervals_contains(leaf->zero, chunk->index, 1, NULL)); /* 2 */
	}
	g_assert(owned == g_hash_table_size(leaf->chunks)); /* 1, 3 */
	for (guint i = 0; i < leaf->free->len; i++)
		g_assert(!leaf->slots->pdata[g_array_index(leaf->free, uint64_t, i)]); /* 3 */
#else
	(void)leaf;
#endif
}
