/* Checkpoint: the table is written back and the journal starts anew.
 *
 * Order, which a crash needs: changed pages go to the place that is not
 * current, the zero list to slots of its own, all with the next epoch; flush;
 * then the header takes that epoch (both copies, each flushed). Until the
 * header is durable the new pages do not count, because their epoch is above
 * its; after it the old journal does not, because its records' is below. */
#include "checkpoint.h"

#include <errno.h>
#include <string.h>

#include "core/counters.h"
#include "dirty.h"
#include "format.h"
#include "geometry.h"
#include "header.h"
#include "lock.h"
#include "memory.h"
#include "resize.h"
#include "room.h"
#include "slots.h"
#include "spare.h"
#include "table.h"

/* A page to be written, in memory. */
#define PAGE_MEMORY (LEAF_PAGE_BYTES + 128)

enum page_kind { PAGE_TABLE, PAGE_ZERO_LIST };

struct page_copy {
	enum page_kind kind;
	uint64_t page; /* of the table */
	uint64_t position;
	struct leaf_page_ondisk *data;
};

struct leaf_checkpoint {
	struct leaf_header_ondisk header;
	GArray *pages;		 /* struct page_copy */
	GPtrArray *zero_retired; /* struct chunk: slots of the zero list of before; NULL: it stays */
	GArray *soft;		 /* uint64_t indexes of chunks with soft blocks, which it names */
	bool due;		 /* nothing less would have done */
};

void leaf_checkpoint_free(struct leaf_checkpoint *checkpoint)
{
	if (!checkpoint)
		return;
	for (guint i = 0; i < checkpoint->pages->len; i++)
		g_free(g_array_index(checkpoint->pages, struct page_copy, i).data);
	g_array_free(checkpoint->pages, TRUE);
	g_array_free(checkpoint->soft, TRUE);
	if (checkpoint->zero_retired)
		g_ptr_array_free(checkpoint->zero_retired, TRUE);
	g_free(checkpoint);
}

static struct leaf_page_ondisk *add_page(struct leaf_checkpoint *checkpoint, enum page_kind kind, uint64_t page,
					 uint64_t position)
{
	struct page_copy copy = {kind, page, position, g_new0(struct leaf_page_ondisk, 1)};

	g_array_append_val(checkpoint->pages, copy);
	return copy.data;
}

static void add_zero_page(struct leaf *leaf, struct leaf_checkpoint *checkpoint, const struct intervals *zero,
			  uint64_t number)
{
	uint64_t per_slot = leaf->geometry.chunk_bytes / LEAF_PAGE_BYTES;
	struct chunk *slot = leaf->zero_slots->pdata[number / per_slot];
	uint64_t position = leaf_slot_offset(&leaf->geometry, slot->slot) + number % per_slot * LEAF_PAGE_BYTES;
	struct leaf_page_ondisk *page = add_page(checkpoint, PAGE_ZERO_LIST, 0, position);
	struct leaf_interval_ondisk *out = (void *)page->body;
	unsigned first = (unsigned)(number * LEAF_INTERVALS_PER_PAGE);
	unsigned count = MIN(LEAF_INTERVALS_PER_PAGE, intervals_length(zero) - first);

	for (unsigned i = 0; i < count; i++) {
		struct interval interval = intervals_get(zero, first + i);

		out[i] = (struct leaf_interval_ondisk){le64_of(interval.first), le64_of(interval.count)};
	}
	page->entries = le32_of(count);
	leaf_page_seal(page, LEAF_ZERO_MAGIC, position, le64_get(checkpoint->header.epoch), number, leaf->image_id);
}

/* Nobody will read the list in them. */
static void return_slots(struct leaf *leaf, GPtrArray *slots)
{
	for (guint i = 0; i < slots->len; i++) {
		leaf_slot_unname_locked(leaf, slots->pdata[i]);
		leaf_spare_return_locked(leaf, slots->pdata[i]);
	}
	g_ptr_array_free(slots, TRUE);
}

static GPtrArray *take_slots(struct leaf *leaf, uint64_t count, int *errnum)
{
	GPtrArray *slots = g_ptr_array_new();

	for (uint64_t n = 0; n < count; n++) {
		struct chunk *slot = leaf_spare_take_locked(leaf, LEAF_CHUNK_ZERO_LIST + n, errnum);

		if (!slot) {
			return_slots(leaf, slots);
			return NULL;
		}
		leaf_page_mark_dirty_locked(leaf, slot->slot);
		g_ptr_array_add(slots, slot);
	}
	return slots;
}

/* The list goes to other slots than it has: until the header is durable the old
 * one counts. */
static int add_zero_list(struct leaf *leaf, struct leaf_checkpoint *checkpoint, const struct intervals *zero)
{
	uint64_t pages = leaf_zero_list_pages(intervals_length(zero));
	int errnum = 0;
	GPtrArray *slots = take_slots(leaf, leaf_zero_list_slots(&leaf->geometry, intervals_length(zero)), &errnum);

	if (!slots)
		return errnum;
	for (guint i = 0; i < leaf->zero_slots->len; i++) {
		struct chunk *old = leaf->zero_slots->pdata[i];

		old->dead = true;
		leaf_page_mark_dirty_locked(leaf, old->slot);
	}
	checkpoint->zero_retired = leaf->zero_slots;
	leaf->zero_retiring = leaf->zero_slots->len;
	leaf->zero_slots = slots;
	for (uint64_t number = 0; number < pages; number++)
		add_zero_page(leaf, checkpoint, zero, number);
	return 0;
}

/* True: the entry is that of a free slot. */
static bool encode_entry(struct leaf *leaf, const struct leaf_resize *resize, struct leaf_checkpoint *checkpoint,
			 struct chunk *chunk, le64 *entry)
{
	if (!chunk || chunk->dead)
		return false;
	if (chunk->soft)
		g_array_append_val(checkpoint->soft, chunk->index);
	chunk->soft = false;
	if (chunk->index < LEAF_CHUNK_ZERO_LIST)
		return leaf_resize_encode_locked(leaf, resize, chunk, entry);
	leaf_entry_encode(leaf, chunk, entry);
	return true;
}

/* The page goes to the place that does not count. */
static void add_table_page(struct leaf *leaf, const struct leaf_resize *resize, struct leaf_checkpoint *checkpoint,
			   uint64_t page)
{
	const struct leaf_geometry *g = &leaf->geometry;
	unsigned place = 1u - leaf->page_place->data[page];
	uint64_t position = leaf_page_offset(g, page) + (uint64_t)place * LEAF_PAGE_BYTES;
	uint64_t first = page * g->entries_per_page;
	struct leaf_page_ondisk *out = add_page(checkpoint, PAGE_TABLE, page, position);

	for (uint32_t i = 0; i < g->entries_per_page; i++) {
		le64 *entry = (void *)(out->body + (size_t)i * g->entry_bytes);
		struct chunk *chunk = leaf_slot_chunk(leaf, first + i);

		if (encode_entry(leaf, resize, checkpoint, chunk, entry)) {
			leaf_slot_name_locked(leaf, chunk);
			continue;
		}
		memset(entry, 0, g->entry_bytes);
		entry[0] = le64_of(LEAF_CHUNK_FREE);
	}
	leaf_page_seal(out, LEAF_TABLE_MAGIC, position, le64_get(checkpoint->header.epoch), first, leaf->image_id);
}

static const struct page_copy *page_copy(const struct leaf_checkpoint *checkpoint, guint i)
{
	return &g_array_index(checkpoint->pages, struct page_copy, i);
}

static void set_digest(struct leaf *leaf, struct leaf_checkpoint *checkpoint)
{
	uint64_t digest = le64_get(leaf->header.table_digest), epoch = le64_get(checkpoint->header.epoch);

	for (guint i = 0; i < checkpoint->pages->len; i++) {
		const struct page_copy *copy = page_copy(checkpoint, i);
		uint64_t page = copy->page;

		if (copy->kind != PAGE_TABLE)
			continue;
		digest -= leaf_page_digest(page, g_array_index(leaf->page_epoch, uint64_t, page));
		digest += leaf_page_digest(page, epoch);
	}
	checkpoint->header.table_digest = le64_of(digest);
}

/* The checkpoint does not name their soft blocks after all. A hard write that came
 * meanwhile took them for named: so the next record names them. */
static void soft_undo_locked(struct leaf *leaf, struct leaf_checkpoint *checkpoint)
{
	leaf_assert_locked(leaf);
	for (guint i = 0; i < checkpoint->soft->len; i++) {
		struct chunk *chunk = leaf_chunk_find(leaf, g_array_index(checkpoint->soft, uint64_t, i));

		if (chunk)
			leaf_chunk_mark_dirty_locked(leaf, chunk);
	}
	g_array_set_size(checkpoint->soft, 0);
}

static int add_pages(struct leaf *leaf, const struct leaf_resize *resize, struct leaf_checkpoint *checkpoint)
{
	struct intervals *zero = leaf->zero_dirty ? leaf_resize_zero_locked(leaf, resize) : NULL;
	int errnum = zero ? add_zero_list(leaf, checkpoint, zero) : 0;

	intervals_free(zero);
	for (guint page = 0; page < leaf->page_dirty->len && !errnum; page++) {
		if (leaf->page_dirty->data[page])
			add_table_page(leaf, resize, checkpoint, page);
		leaf->page_dirty->data[page] = 0;
	}
	return errnum;
}

static void fill_header(struct leaf *leaf, const struct leaf_resize *resize, struct leaf_checkpoint *checkpoint)
{
	struct leaf_header_ondisk *header = &checkpoint->header;

	set_digest(leaf, checkpoint);
	header->size_bytes = le64_of(leaf_resize_size(leaf, resize));
	header->slot_count = le64_of(leaf->slots->len);
	header->zero_list_slots = le64_of(leaf->zero_slots->len);
	header->journal_sequence = le64_of(leaf->journal_sequence);
}

struct leaf_checkpoint *leaf_checkpoint_prepare_locked(struct leaf *leaf, const struct leaf_resize *resize,
						       struct leaf_dirty *taken, int *errnum)
{
	struct leaf_checkpoint *checkpoint = g_new0(struct leaf_checkpoint, 1);

	leaf_assert_locked(leaf);
	checkpoint->pages = g_array_new(FALSE, FALSE, sizeof(struct page_copy));
	checkpoint->soft = g_array_new(FALSE, FALSE, sizeof(uint64_t));
	checkpoint->due = leaf->checkpoint_due;
	checkpoint->header = leaf->header;
	checkpoint->header.epoch = le64_of(le64_get(leaf->header.epoch) + 1);
	leaf_resize_mark_locked(leaf, resize);
	*errnum = add_pages(leaf, resize, checkpoint);
	if (*errnum) {
		soft_undo_locked(leaf, checkpoint);
		leaf_checkpoint_free(checkpoint);
		return NULL;
	}
	fill_header(leaf, resize, checkpoint);
	leaf->zero_dirty = false;
	leaf->checkpoint_due = false;
	leaf_dirty_take_locked(leaf, taken);
	return checkpoint;
}

int leaf_checkpoint_write(struct leaf *leaf, struct leaf_checkpoint *checkpoint, bool *header_touched)
{
	int result;

	*header_touched = false;
	for (guint i = 0; i < checkpoint->pages->len; i++) {
		const struct page_copy *copy = page_copy(checkpoint, i);

		result = image_file_write(&leaf->file, copy->data, LEAF_PAGE_BYTES, copy->position);
		if (result < 0)
			return result;
	}
	result = image_file_sync(&leaf->file);
	if (result < 0)
		return result;
	*header_touched = true;
	return leaf_header_write(&leaf->file, &checkpoint->header);
}

void leaf_checkpoint_done_locked(struct leaf *leaf, struct leaf_checkpoint *checkpoint)
{
	leaf_assert_locked(leaf);
	for (guint i = 0; i < checkpoint->pages->len; i++) {
		const struct page_copy *copy = page_copy(checkpoint, i);
		uint64_t page = copy->page;

		if (copy->kind != PAGE_TABLE)
			continue;
		leaf->page_place->data[page] ^= 1;
		g_array_index(leaf->page_epoch, uint64_t, page) = le64_get(checkpoint->header.epoch);
	}
	leaf->header = checkpoint->header;
	leaf->journal_position = le64_get(leaf->header.journal_offset);
	if (checkpoint->zero_retired)
		return_slots(leaf, g_steal_pointer(&checkpoint->zero_retired));
	leaf->zero_retiring = 0;
	leaf_spare_trim_locked(leaf);
	counter_add(image_checkpoints, 1);
}

void leaf_checkpoint_undo_locked(struct leaf *leaf, struct leaf_checkpoint *checkpoint)
{
	leaf_assert_locked(leaf);
	for (guint i = 0; i < checkpoint->pages->len; i++)
		if (page_copy(checkpoint, i)->kind == PAGE_TABLE)
			leaf->page_dirty->data[page_copy(checkpoint, i)->page] = 1;
	soft_undo_locked(leaf, checkpoint);
	leaf->checkpoint_due |= checkpoint->due;
	if (!checkpoint->zero_retired)
		return;
	leaf->zero_dirty = true;
	leaf->zero_retiring = 0;
	return_slots(leaf, leaf->zero_slots);
	leaf->zero_slots = g_steal_pointer(&checkpoint->zero_retired);
	for (guint i = 0; i < leaf->zero_slots->len; i++)
		((struct chunk *)leaf->zero_slots->pdata[i])->dead = false;
}

int leaf_checkpoint_everything(struct leaf *leaf)
{
	struct leaf_dirty taken = {0};
	struct leaf_checkpoint *checkpoint;
	bool touched;
	int result;

	if (!leaf_memory_is_there(leaf->file.path,
				  (leaf->page_dirty->len + leaf_zero_list_pages(intervals_length(leaf->zero))) *
					  PAGE_MEMORY))
		return -ENOMEM;
	leaf_dirty_everything_locked(leaf);
	do
		checkpoint = leaf_checkpoint_prepare_locked(leaf, NULL, &taken, &result);
	while (result == -EAGAIN && (result = leaf_room_extend(leaf)) == 0);
	leaf_dirty_clear(&taken);
	if (!checkpoint)
		return result;
	result = leaf_checkpoint_write(leaf, checkpoint, &touched);
	if (result == 0)
		leaf_checkpoint_done_locked(leaf, checkpoint);
	leaf_checkpoint_free(checkpoint);
	return result;
}
