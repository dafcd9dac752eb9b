/* Checkpoint: the table is written back and the journal starts anew.
 *
 * Order, which a crash needs: changed pages go to the place that is not
 * current, the zero list to slots of its own, all with the next epoch; flush;
 * then the header takes that epoch (both copies, each flushed). Until the
 * header is durable the new pages do not count, because their epoch is above
 * its; after it the old journal does not, because its records' is below. */
#include <errno.h>

#include "core/counters.h"
#include "leaf.h"

struct page_copy {
	uint64_t page; /* UINT64_MAX: a page of the zero list */
	uint64_t position;
	struct leaf_page_ondisk *data;
};

struct leaf_checkpoint {
	struct leaf_header_ondisk header;
	GArray *pages; /* struct page_copy */
};

void leaf_checkpoint_free(struct leaf_checkpoint *checkpoint)
{
	if (!checkpoint)
		return;
	for (guint i = 0; i < checkpoint->pages->len; i++)
		g_free(g_array_index(checkpoint->pages, struct page_copy, i).data);
	g_array_free(checkpoint->pages, TRUE);
	g_free(checkpoint);
}

static struct leaf_page_ondisk *add_page(struct leaf_checkpoint *checkpoint, uint64_t page, uint64_t position)
{
	struct page_copy copy = {page, position, g_new0(struct leaf_page_ondisk, 1)};

	g_array_append_val(checkpoint->pages, copy);
	return copy.data;
}

static void add_zero_page(struct leaf *leaf, struct leaf_checkpoint *checkpoint, uint64_t number)
{
	uint64_t per_slot = leaf->geometry.chunk_bytes / LEAF_PAGE_BYTES;
	struct chunk *slot = leaf->zero_slots->pdata[number / per_slot];
	uint64_t position = leaf_slot_offset(&leaf->geometry, slot->slot) + number % per_slot * LEAF_PAGE_BYTES;
	struct leaf_page_ondisk *page = add_page(checkpoint, UINT64_MAX, position);
	struct leaf_interval_ondisk *out = (void *)page->body;
	unsigned first = (unsigned)(number * LEAF_INTERVALS_PER_PAGE);
	unsigned count = MIN(LEAF_INTERVALS_PER_PAGE, intervals_length(leaf->zero) - first);

	for (unsigned i = 0; i < count; i++) {
		struct interval interval = intervals_get(leaf->zero, first + i);

		out[i] = (struct leaf_interval_ondisk){le64_of(interval.first), le64_of(interval.count)};
	}
	page->entries = le32_of(count);
	leaf_page_seal(page, LEAF_ZERO_MAGIC, position, le64_get(checkpoint->header.epoch), number, leaf->image_id);
}

static void remove_slots(struct leaf *leaf, GPtrArray *slots)
{
	for (guint i = 0; i < slots->len; i++)
		leaf_chunk_remove_locked(leaf, slots->pdata[i]);
	g_ptr_array_free(slots, TRUE);
}

static int take_zero_slots(struct leaf *leaf, uint64_t count, GPtrArray *slots)
{
	int errnum = 0;

	for (uint64_t n = 0; n < count; n++) {
		struct chunk *slot = leaf_slot_take_locked(leaf, LEAF_CHUNK_ZERO_LIST + n, &errnum);

		if (!slot)
			return errnum == -EAGAIN ? -ENOSPC : errnum;
		leaf_page_mark_dirty_locked(leaf, slot->slot);
		g_ptr_array_add(slots, slot);
	}
	return 0;
}

/* The list ends with a page that is not full. */
static int add_zero_list(struct leaf *leaf, struct leaf_checkpoint *checkpoint)
{
	unsigned intervals = intervals_length(leaf->zero);
	uint64_t pages = intervals ? intervals / LEAF_INTERVALS_PER_PAGE + 1 : 0;
	uint64_t per_slot = leaf->geometry.chunk_bytes / LEAF_PAGE_BYTES;
	GPtrArray *slots = g_ptr_array_new();
	int errnum = take_zero_slots(leaf, (pages + per_slot - 1) / per_slot, slots);

	if (errnum) {
		remove_slots(leaf, slots);
		return errnum;
	}
	remove_slots(leaf, leaf->zero_slots);
	leaf->zero_slots = slots;
	for (uint64_t number = 0; number < pages; number++)
		add_zero_page(leaf, checkpoint, number);
	return 0;
}

static void add_table_page(struct leaf *leaf, struct leaf_checkpoint *checkpoint, uint64_t page)
{
	const struct leaf_geometry *g = &leaf->geometry;
	unsigned place = 1u - leaf->page_place->data[page];
	uint64_t position = leaf_page_offset(g, page) + (uint64_t)place * LEAF_PAGE_BYTES;
	uint64_t first = page * g->entries_per_page;
	struct leaf_page_ondisk *out = add_page(checkpoint, page, position);

	for (uint32_t i = 0; i < g->entries_per_page; i++) {
		struct chunk *chunk = leaf_slot_chunk(leaf, first + i);
		le64 *entry = (void *)(out->body + (size_t)i * g->entry_bytes);

		if (chunk && (chunk->index >= LEAF_CHUNK_ZERO_LIST || !leaf_chunk_is_empty(leaf, chunk)))
			leaf_entry_encode(leaf, chunk, entry);
		else
			entry[0] = le64_of(LEAF_CHUNK_FREE);
		if (chunk)
			chunk->soft = false;
	}
	leaf_page_seal(out, LEAF_TABLE_MAGIC, position, le64_get(checkpoint->header.epoch), first, leaf->image_id);
}

static void set_digest(struct leaf *leaf, struct leaf_checkpoint *checkpoint)
{
	uint64_t digest = le64_get(leaf->header.table_digest), epoch = le64_get(checkpoint->header.epoch);

	for (guint i = 0; i < checkpoint->pages->len; i++) {
		uint64_t page = g_array_index(checkpoint->pages, struct page_copy, i).page;

		if (page == UINT64_MAX)
			continue;
		digest -= leaf_page_digest(page, g_array_index(leaf->page_epoch, uint64_t, page));
		digest += leaf_page_digest(page, epoch);
	}
	checkpoint->header.table_digest = le64_of(digest);
}

struct leaf_checkpoint *leaf_checkpoint_prepare_locked(struct leaf *leaf, int *errnum)
{
	struct leaf_checkpoint *checkpoint = g_new0(struct leaf_checkpoint, 1);

	checkpoint->pages = g_array_new(FALSE, FALSE, sizeof(struct page_copy));
	checkpoint->header = leaf->header;
	checkpoint->header.epoch = le64_of(le64_get(leaf->header.epoch) + 1);
	*errnum = leaf->zero_dirty ? add_zero_list(leaf, checkpoint) : 0;
	if (*errnum) {
		leaf_checkpoint_free(checkpoint);
		return NULL;
	}
	leaf_table_assert_locked(leaf);
	for (guint page = 0; page < leaf->page_dirty->len; page++) {
		if (leaf->page_dirty->data[page])
			add_table_page(leaf, checkpoint, page);
		leaf->page_dirty->data[page] = 0;
	}
	set_digest(leaf, checkpoint);
	checkpoint->header.slot_count = le64_of(leaf->slots->len);
	checkpoint->header.zero_list_slots = le64_of(leaf->zero_slots->len);
	checkpoint->header.journal_sequence = le64_of(leaf->journal_sequence);
	leaf->zero_dirty = false;
	leaf->checkpoint_due = false;
	leaf_forget_dirty_locked(leaf);
	return checkpoint;
}

int leaf_checkpoint_write(struct leaf *leaf, struct leaf_checkpoint *checkpoint, bool *header_touched)
{
	int result;

	*header_touched = false;
	for (guint i = 0; i < checkpoint->pages->len; i++) {
		struct page_copy *copy = &g_array_index(checkpoint->pages, struct page_copy, i);

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
	for (guint i = 0; i < checkpoint->pages->len; i++) {
		uint64_t page = g_array_index(checkpoint->pages, struct page_copy, i).page;

		if (page == UINT64_MAX)
			continue;
		leaf->page_place->data[page] ^= 1;
		g_array_index(leaf->page_epoch, uint64_t, page) = le64_get(checkpoint->header.epoch);
	}
	leaf->header = checkpoint->header;
	leaf->journal_position = le64_get(leaf->header.journal_offset);
	counter_add(image_checkpoints, 1);
}

void leaf_dirty_everything_locked(struct leaf *leaf)
{
	for (guint page = 0; page < leaf->page_dirty->len; page++)
		leaf->page_dirty->data[page] = 1;
	leaf->zero_dirty = true;
	leaf->checkpoint_due = true;
}

int leaf_checkpoint_everything(struct leaf *leaf)
{
	struct leaf_checkpoint *checkpoint;
	bool touched;
	int result;

	leaf_dirty_everything_locked(leaf);
	checkpoint = leaf_checkpoint_prepare_locked(leaf, &result);
	if (!checkpoint)
		return result;
	result = leaf_checkpoint_write(leaf, checkpoint, &touched);
	if (result == 0)
		leaf_checkpoint_done_locked(leaf, checkpoint);
	leaf_checkpoint_free(checkpoint);
	return result;
}
