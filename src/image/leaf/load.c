/* Loading a leaf: header, chunk table, zero list, journal.
 *
 * The same code opens an image, where the first damage ends it, and checks
 * one, where each damage is reported and what is damaged is left out. Nothing
 * is written here.
 *
 * An image may come from anybody. What it costs to load it, in memory and in
 * time, follows the space that its file has, not the numbers in it: memory for
 * the table is taken page by page, the journal names no slot that the file has
 * no use for, and what is not sound is given up at the first damage. A limit on
 * the processor time, which grows with the sound pages, stands behind that. */
#include "load.h"

#include <errno.h>
#include <string.h>

#include "core/error.h"
#include "format.h"
#include "geometry.h"
#include "grow.h"
#include "header.h"
#include "journal.h"
#include "mark.h"
#include "lock.h"
#include "memory.h"
#include "plan.h"
#include "redo.h"
#include "report.h"
#include "room.h"
#include "slots.h"
#include "table.h"

/* Pages of the zero list for which memory is asked at once. */
#define ZERO_PAGES_STEP 64
/* Of an interval in its array, when that has just become twice as long. */
#define INTERVAL_BYTES (3 * sizeof(struct interval))
/* Of a slot in the list of free ones, likewise, and what finds them. */
#define FREE_SLOT_BYTES 32

static bool entry_is_sane(const struct leaf *leaf, uint64_t index, const uint64_t *bits, const char **why)
{
	uint32_t words = leaf->geometry.words, blocks = leaf->geometry.chunk_blocks;

	*why = "is past the end of the disk";
	if (index >= leaf_chunk_count(leaf, leaf->image.size_bytes))
		return false;
	*why = "has a zero bit on a block that is not present";
	for (uint32_t i = 0; i < words; i++)
		if (bits[words + i] & ~bits[i])
			return false;
	*why = "has bits past the end of the chunk";
	return blocks % 64 == 0 || !(bits[words - 1] >> (blocks % 64));
}

static void load_entry(struct leaf *leaf, uint64_t slot, const le64 *values, struct leaf_report *report)
{
	uint64_t index = le64_get(values[0]);
	uint32_t words = 2 * leaf->geometry.words;
	uint64_t bits[2 * LEAF_CHUNK_BYTES_MAX / BLOCK_SIZE / 64];
	struct chunk *chunk;
	const char *why;

	if (index == LEAF_CHUNK_FREE)
		return;
	for (uint32_t i = 0; i < words; i++)
		bits[i] = le64_get(values[1 + i]);
	if (index < LEAF_CHUNK_ZERO_LIST && !entry_is_sane(leaf, index, bits, &why)) {
		leaf_damage(report, "chunk %" G_GUINT64_FORMAT " in slot %" G_GUINT64_FORMAT " %s", index, slot, why);
		return;
	}
	chunk = leaf_chunk_load(leaf, index, slot);
	if (!chunk) {
		leaf_damage(report, "chunk %" G_GUINT64_FORMAT " is in two slots, the second is %" G_GUINT64_FORMAT,
			    index, slot);
		return;
	}
	memcpy(chunk->bits, bits, words * sizeof(bits[0]));
	if (index >= LEAF_CHUNK_ZERO_LIST)
		g_ptr_array_add(leaf->zero_slots, chunk);
}

/* PLACES holds both places of the page; the table has SLOTS in all. Memory for
 * them is taken page by page, never on the word of the header alone. */
static void load_page(struct leaf *leaf, uint64_t page, uint64_t slots, const struct leaf_page_ondisk *places,
		      struct leaf_report *report)
{
	const struct leaf_geometry *g = &leaf->geometry;
	uint64_t epoch = le64_get(leaf->header.epoch), first = page * g->entries_per_page;
	uint64_t position = leaf_page_offset(g, page);
	uint64_t end = MIN(first + g->entries_per_page, slots);
	int best = -1;

	for (int i = 0; i < 2; i++)
		if (leaf_page_is_valid(&places[i], LEAF_TABLE_MAGIC, position + (uint64_t)i * LEAF_PAGE_BYTES, epoch,
				       first, leaf->image_id) &&
		    (best < 0 || le64_get(places[i].epoch) > le64_get(places[best].epoch)))
			best = i;
	leaf_slots_cover_locked(leaf, end - 1);
	if (best < 0) {
		leaf_damage(report, "page %" G_GUINT64_FORMAT " of the chunk table is damaged in both places", page);
		return;
	}
	report->pages++;
	leaf->page_place->data[page] = (uint8_t)best;
	g_array_index(leaf->page_epoch, uint64_t, page) = le64_get(places[best].epoch);
	/* A checkpoint that a crash cut off left its page in the other place:
	 * the next one has the same epoch and must not make that page count. */
	leaf->page_dirty->data[page] = leaf_page_is_valid(&places[1 - best], LEAF_TABLE_MAGIC,
							  position + (uint64_t)(1 - best) * LEAF_PAGE_BYTES, UINT64_MAX,
							  first, leaf->image_id) &&
				       le64_get(places[1 - best].epoch) > epoch;
	for (uint64_t slot = first; slot < end; slot++)
		load_entry(leaf, slot, (const void *)(places[best].body + (slot - first) * g->entry_bytes), report);
}

static bool load_group(struct leaf *leaf, uint64_t first_page, uint64_t pages, uint64_t slots,
		       struct leaf_report *report)
{
	size_t bytes = pages * 2 * LEAF_PAGE_BYTES;
	g_autofree struct leaf_page_ondisk *area = leaf_memory_ask_new(report, bytes);
	uint64_t end = MIN((first_page + pages) * leaf->geometry.entries_per_page, slots);
	int result;

	if (!area || !leaf_memory_ask_slots(leaf, end, report))
		return false;
	result = image_file_read(&leaf->file, area, bytes, leaf_page_offset(&leaf->geometry, first_page));
	if (result < 0)
		return error_set_errno(report->error, -result, "%s: its chunk table cannot be read", report->path);
	for (uint64_t i = 0; i < pages && leaf_load_goes_on(report); i++)
		load_page(leaf, first_page + i, slots, &area[2 * i], report);
	return leaf_load_goes_on(report);
}

/* A place that should count and is damaged lets an older one count. */
static void check_digest(struct leaf *leaf, struct leaf_report *report)
{
	uint64_t digest = 0;

	for (guint page = 0; page < leaf->page_epoch->len; page++)
		digest += leaf_page_digest(page, g_array_index(leaf->page_epoch, uint64_t, page));
	if (digest != le64_get(leaf->header.table_digest) && !report->damages)
		leaf_damage(report, "a page of the chunk table is damaged, what is left of it is out of date");
	leaf->header.table_digest = le64_of(digest);
}

static bool load_table(struct leaf *leaf, struct leaf_report *report)
{
	const struct leaf_geometry *g = &leaf->geometry;
	uint64_t slots = le64_get(leaf->header.slot_count);
	uint64_t room = leaf_slots_within(g, leaf->file_bytes);
	uint64_t pages;

	if (slots > room) {
		leaf_damage(report,
			    "it is truncated: %" G_GUINT64_FORMAT " bytes hold %" G_GUINT64_FORMAT
			    " chunks, the chunk table has %" G_GUINT64_FORMAT,
			    leaf->file_bytes, room, slots);
		slots = room;
	}
	if (!leaf_load_goes_on(report) || slots > G_MAXINT)
		return leaf_load_goes_on(report) &&
		       error_set(report->error, EFBIG, "%s: has too many chunks", report->path);
	pages = (slots + g->entries_per_page - 1) / g->entries_per_page;
	for (uint64_t page = 0; page < pages; page += g->pages_per_group)
		if (!load_group(leaf, page, MIN(g->pages_per_group, pages - page), slots, report))
			return false;
	check_digest(leaf, report);
	return leaf_load_goes_on(report);
}

static bool load_interval(struct leaf *leaf, struct interval interval, uint64_t *floor, struct leaf_report *report)
{
	uint64_t limit = leaf_chunk_count(leaf, leaf->image.size_bytes);

	if (interval.count == 0 || interval.first < *floor || interval.first >= limit ||
	    interval.count > limit - interval.first)
		return leaf_damage(report,
				   "the zero list has a bad run: %" G_GUINT64_FORMAT " chunks at %" G_GUINT64_FORMAT,
				   interval.count, interval.first);
	intervals_add(leaf->zero, interval.first, interval.count);
	*floor = interval.first + interval.count;
	return true;
}

static int compare_chunks(const void *left, const void *right)
{
	const struct chunk *a = *(struct chunk *const *)left, *b = *(struct chunk *const *)right;

	return (a->index > b->index) - (a->index < b->index);
}

/* The slots are in order. */
static struct chunk *zero_slot(const struct leaf *leaf, uint64_t n)
{
	struct chunk *chunk = n < leaf->zero_slots->len ? leaf->zero_slots->pdata[n] : NULL;

	return chunk && chunk->index == LEAF_CHUNK_ZERO_LIST + n ? chunk : NULL;
}

/* *LAST: the list ends with this page. */
static bool load_zero_page(struct leaf *leaf, uint64_t number, uint64_t *floor, bool *last, struct leaf_report *report)
{
	uint64_t per_slot = leaf->geometry.chunk_bytes / LEAF_PAGE_BYTES;
	struct chunk *slot = zero_slot(leaf, number / per_slot);
	uint64_t position;
	struct leaf_page_ondisk page;
	const struct leaf_interval_ondisk *intervals = (const void *)page.body;
	uint32_t count;

	if (!slot)
		return leaf_damage(report, "slot %" G_GUINT64_FORMAT " of the zero list is missing", number / per_slot);
	position = leaf_slot_offset(&leaf->geometry, slot->slot) + number % per_slot * LEAF_PAGE_BYTES;
	if (image_file_read(&leaf->file, &page, sizeof(page), position) < 0 ||
	    !leaf_page_is_valid(&page, LEAF_ZERO_MAGIC, position, le64_get(leaf->header.epoch), number,
				leaf->image_id) ||
	    le32_get(page.entries) > LEAF_INTERVALS_PER_PAGE)
		return leaf_damage(report, "page %" G_GUINT64_FORMAT " of the zero list is damaged", number);
	count = le32_get(page.entries);
	for (uint32_t i = 0; i < count; i++) {
		struct interval interval = {le64_get(intervals[i].chunk), le64_get(intervals[i].count)};

		if (!load_interval(leaf, interval, floor, report))
			return false;
	}
	*last = count < LEAF_INTERVALS_PER_PAGE;
	return true;
}

/* Asked once for many pages. */
static bool zero_page_fits(const struct leaf *leaf, uint64_t number, struct leaf_report *report)
{
	uint64_t intervals = intervals_length(leaf->zero) + ZERO_PAGES_STEP * LEAF_INTERVALS_PER_PAGE;

	return number % ZERO_PAGES_STEP != 0 || leaf_memory_ask(report, intervals * INTERVAL_BYTES);
}

static void load_zero_list(struct leaf *leaf, struct leaf_report *report)
{
	uint64_t floor = 0;
	bool last = false;

	if (leaf->zero_slots->len != le64_get(leaf->header.zero_list_slots)) {
		leaf_damage(report, "the zero list fills %u slots, the header says %" G_GUINT64_FORMAT,
			    leaf->zero_slots->len, le64_get(leaf->header.zero_list_slots));
		return;
	}
	g_ptr_array_sort(leaf->zero_slots, compare_chunks);
	for (uint64_t number = 0; leaf->zero_slots->len && !last; number++)
		if (!leaf_load_goes_on(report) || !zero_page_fits(leaf, number, report) ||
		    !load_zero_page(leaf, number, &floor, &last, report))
			return;
}

/* A chunk that is both in a slot and in the zero list. */
static void check_zero_overlap(struct leaf *leaf, struct leaf_report *report)
{
	bool go_on = leaf_load_goes_on(report);

	for (guint slot = 0; slot < leaf->slots->len && go_on; slot++) {
		struct chunk *chunk = leaf_slot_chunk(leaf, slot);

		if (!chunk || chunk->index >= LEAF_CHUNK_ZERO_LIST ||
		    !intervals_contains(leaf->zero, chunk->index, 1, NULL))
			continue;
		leaf_damage(report, "chunk %" G_GUINT64_FORMAT " is in slot %u and in the zero list", chunk->index,
			    slot);
		intervals_remove(leaf->zero, chunk->index, 1);
		leaf->zero_dirty = true;
		go_on = leaf_load_goes_on(report);
	}
}

static void use_header(struct leaf *leaf)
{
	const struct leaf_header_ondisk *h = &leaf->header;

	leaf_geometry_init(&leaf->geometry, le32_get(h->chunk_bytes), le64_get(h->data_offset));
	memcpy(leaf->image.uuid, h->uuid, sizeof(h->uuid));
	memcpy(leaf->image.identity, h->uuid, sizeof(h->uuid));
	memcpy(&leaf->image_id, h->uuid, sizeof(leaf->image_id));
	leaf->image_id = le64toh(leaf->image_id);
	leaf->image.generation = le64_get(h->generation);
	leaf->image.has_claim = ANSWER_YES;
	leaf->image.marked = true;
	if (le64_get(h->features_read_only) & LEAF_FEATURE_CLAIM)
		memcpy(leaf->image.claim, h->claim, sizeof(leaf->image.claim));
	if (!(le64_get(h->features_incompatible) & LEAF_FEATURE_PROGRESS))
		leaf->header.progress = le64_of(0);
	leaf->image.progress = le64_get(h->progress);
	leaf->image.chunk_bytes = le32_get(h->chunk_bytes);
	leaf->image.size_bytes = le64_get(h->size_bytes);
	leaf_parent_decode(h, &leaf->image.parent);
	leaf->image.apply_extents_max = leaf_plan_extents_max(le64_get(h->journal_bytes));
	leaf->journal_position = le64_get(h->journal_offset);
	leaf->journal_sequence = le64_get(h->journal_sequence);
}

static bool load_header(struct leaf *leaf, unsigned flags, struct leaf_report *report)
{
	bool read_only;
	int64_t bytes;

	if (!leaf_header_read(&leaf->file, &leaf->header, report) ||
	    !leaf_header_usable(&leaf->header, report->path, &read_only, report->error))
		return false;
	if (read_only && (flags & IMAGE_WRITABLE))
		return error_set(report->error, EROFS,
				 "%s: has features that this version may only read; open it read-only", report->path);
	if (!leaf_mark_allows(&leaf->header, flags, report))
		return false;
	use_header(leaf);
	bytes = aio_file_size(&leaf->file.aio);
	if (bytes < 0)
		return error_set_errno(report->error, (int)-bytes, "%s: has no size", report->path);
	leaf->file_bytes = (uint64_t)bytes;
	if (leaf->file_bytes < leaf->geometry.data_offset)
		return error_set(report->error, EIO,
				 "%s: is truncated: %" G_GUINT64_FORMAT
				 " bytes, its chunks begin at %" G_GUINT64_FORMAT,
				 report->path, leaf->file_bytes, leaf->geometry.data_offset);
	return true;
}

struct leaf *leaf_load(int fd, const char *path, unsigned flags, struct leaf_report *report)
{
	struct leaf *leaf = g_new0(struct leaf, 1);

	leaf_report_begin(report);
	leaf_own(leaf);
	leaf_table_init(leaf);
	leaf->image = (struct image){
		.format = IMAGE_FORMAT_LEAF,
		.path = g_strdup(path),
		.writable = flags & IMAGE_WRITABLE,
		.scratch = flags & IMAGE_SCRATCH,
	};
	if (!image_file_open(&leaf->file, fd, path, flags, report->error))
		goto fail;
	leaf->image.device = leaf->file.device;
	leaf->image.inode = leaf->file.inode;
	leaf->image.locked = leaf->file.reaches;
	if (!load_header(leaf, flags, report) || !load_table(leaf, report))
		goto fail;
	load_zero_list(leaf, report);
	if (leaf_journal_replay(leaf, report) < 0)
		goto fail;
	check_zero_overlap(leaf, report);
	leaf_redo_check(leaf, report);
	if (!leaf_load_goes_on(report) || !leaf_memory_ask(report, leaf->slots->len * FREE_SLOT_BYTES))
		goto fail;
	leaf_slots_find_free(leaf);
	return leaf;
fail:
	if (!*report->error)
		error_set(report->error, EIO, "%s: has more damage than is worth listing", path);
	leaf_free(leaf);
	return NULL;
}

void leaf_free(struct leaf *leaf)
{
	if (!leaf)
		return;
	leaf_room_settle(leaf);
	leaf_grow_detach(leaf);
	image_file_close(&leaf->file);
	leaf_table_clear(leaf);
	image_parent_clear(&leaf->image.parent);
	free(leaf->record);
	g_free(leaf->image.path);
	g_free(leaf);
}
