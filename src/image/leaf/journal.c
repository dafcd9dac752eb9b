/* The journal: one record per commit, replayed at open.
 *
 * A record holds, in this order, what became zero or stopped being so, which
 * slots became free, the state of every chunk that changed, and a batch. Each
 * entry is the whole new state of what it names, so replaying a record twice
 * changes nothing. A record is valid if and only if its checksum holds and it
 * continues the epoch and the sequence that the header names; replay ends at
 * the first that is not. */
#include "journal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "bits.h"
#include "core/error.h"
#include "dirty.h"
#include "format.h"
#include "geometry.h"
#include "lock.h"
#include "memory.h"
#include "plan.h"
#include "report.h"
#include "slots.h"
#include "table.h"

/* No file system keeps the data of a slot in less than this. */
#define SLOT_SPACE_BYTES 512
/* Slots whose data is a hole (zeros, in a sparse copy) and which no entry names:
 * of soft writes, and of batches that came to nothing. */
#define SLOTS_WITHOUT_SPACE (UINT64_C(1) << 20)
/* Of an entry that names a slot and may be the first to. */
#define ENTRY_BYTES_MIN (sizeof(struct leaf_journal_entry_ondisk) + 3 * sizeof(le64))
/* What the intervals or copies owed that an entry adds take, when their array has just
 * become twice as long, for each of its bytes. */
#define EVENT_BYTES_PER_BYTE 3
/* Entries after which the replay looks whether it may go on. */
#define LOOK_ENTRIES 1024

le64 *record_add(struct record_builder *builder, enum leaf_journal_type type, unsigned values)
{
	uint64_t bytes = sizeof(struct leaf_journal_entry_ondisk) + values * sizeof(le64);
	struct leaf_journal_entry_ondisk *entry = (void *)(builder->record + builder->used);

	if (builder->overflow || bytes > builder->room - builder->used) {
		builder->overflow = true;
		return NULL;
	}
	entry->type = le32_of(type);
	entry->bytes = le32_of((uint32_t)bytes);
	builder->used += bytes;
	builder->entries++;
	return entry->value;
}

static void add_events(struct leaf *leaf, struct record_builder *builder)
{
	for (guint i = 0; i < leaf->events->len; i++) {
		struct leaf_event *event = &g_array_index(leaf->events, struct leaf_event, i);
		le64 *value = record_add(builder, event->type, 2);

		if (!value)
			return;
		value[0] = le64_of(event->chunk);
		value[1] = le64_of(event->count);
	}
	for (guint i = 0; i < leaf->free_events->len; i++) {
		le64 *value = record_add(builder, LEAF_JOURNAL_FREE, 1);

		if (!value)
			return;
		value[0] = le64_of(g_array_index(leaf->free_events, uint64_t, i));
	}
}

static void add_chunks(struct leaf *leaf, struct record_builder *builder)
{
	for (guint i = 0; i < leaf->dirty->len; i++) {
		struct chunk *chunk = leaf->dirty->pdata[i];
		le64 *value = record_add(builder, LEAF_JOURNAL_CHUNK, 2 + 2 * leaf->geometry.words);

		if (!value)
			return;
		value[0] = le64_of(chunk->slot);
		leaf_entry_encode(leaf, chunk, value + 1);
		leaf_slot_name_locked(leaf, chunk);
		chunk->soft = false;
	}
}

uint64_t leaf_journal_waiting_bytes_locked(const struct leaf *leaf)
{
	uint64_t header = sizeof(struct leaf_journal_entry_ondisk);

	leaf_assert_locked(leaf);
	return leaf->dirty->len * (header + (2 + 2 * (uint64_t)leaf->geometry.words) * sizeof(le64)) +
	       leaf->events->len * (header + 2 * sizeof(le64)) + leaf->free_events->len * (header + sizeof(le64));
}

bool leaf_record_allocate_locked(struct leaf *leaf)
{
	leaf_assert_locked(leaf);
	void *memory = NULL;

	if (!leaf->record && posix_memalign(&memory, LEAF_PAGE_BYTES, le64_get(leaf->header.journal_bytes)) == 0)
		leaf->record = memory;
	return leaf->record;
}

uint64_t leaf_journal_room(const struct leaf *leaf)
{
	return le64_get(leaf->header.journal_offset) + le64_get(leaf->header.journal_bytes) - leaf->journal_position;
}

static bool builder_init(struct leaf *leaf, struct record_builder *builder)
{
	*builder = (struct record_builder){
		.used = sizeof(struct leaf_record_ondisk),
		.room = leaf_journal_room(leaf),
	};
	if (builder->room < LEAF_PAGE_BYTES || !leaf_record_allocate_locked(leaf))
		return false;
	builder->record = leaf->record;
	return true;
}

static int64_t builder_seal(struct leaf *leaf, struct record_builder *builder)
{
	uint64_t bytes = round_up(builder->used, LEAF_PAGE_BYTES);

	memset(builder->record + builder->used, 0, bytes - builder->used);
	leaf_record_seal(builder->record, (uint32_t)bytes, leaf->journal_position, le64_get(leaf->header.epoch),
			 leaf->journal_sequence, leaf->image_id, builder->entries, leaf->slots->len);
	return (int64_t)bytes;
}

int64_t leaf_journal_build_locked(struct leaf *leaf, const struct apply_plan *plan, leaf_plan_adder *add,
				  struct leaf_dirty *taken)
{
	struct record_builder builder;

	leaf_assert_locked(leaf);
	if (!leaf->dirty->len && !leaf->events->len && !leaf->free_events->len && !plan)
		return 0;
	if (!builder_init(leaf, &builder))
		return -1;
	add_events(leaf, &builder);
	add_chunks(leaf, &builder);
	if (plan)
		add(plan, &builder);
	if (builder.overflow)
		return -1;
	leaf_dirty_take_locked(leaf, taken);
	return builder_seal(leaf, &builder);
}

int64_t leaf_journal_build_mark_locked(struct leaf *leaf, enum leaf_journal_type type)
{
	struct record_builder builder;

	leaf_assert_locked(leaf);
	if (!builder_init(leaf, &builder))
		return -1;
	record_add(&builder, type, 0);
	return builder_seal(leaf, &builder);
}

/* The chunk that is, or now comes to be, in SLOT. NULL: the one or the other
 * is out of range or has another. */
static struct chunk *chunk_in_slot(struct leaf *leaf, uint64_t index, uint64_t slot, struct leaf_report *report)
{
	struct chunk *chunk = index < LEAF_CHUNK_ZERO_LIST ? leaf_chunk_find(leaf, index) : NULL;

	if (index >= leaf_chunk_count(leaf, leaf->image.size_bytes) || slot >= leaf->slots_max)
		return NULL;
	if (!chunk && leaf_memory_ask_slots(leaf, slot + 1, report))
		chunk = leaf_chunk_load(leaf, index, slot);
	if (!chunk || chunk->slot != slot)
		return NULL;
	leaf_page_mark_dirty_locked(leaf, slot);
	return chunk;
}

static bool replay_chunk(struct leaf *leaf, const le64 *value, struct leaf_report *report)
{
	uint64_t slot = le64_get(value[0]), index = le64_get(value[1]);
	uint32_t words = leaf->geometry.words;
	struct chunk *chunk = chunk_in_slot(leaf, index, slot, report);

	if (!chunk)
		return false;
	for (uint32_t i = 0; i < 2 * words; i++)
		chunk->bits[i] = le64_get(value[2 + i]);
	for (uint32_t i = 0; i < words; i++)
		if (chunk->bits[words + i] & ~chunk->bits[i])
			return false;
	if (intervals_contains(leaf->zero, index, 1, NULL)) {
		intervals_remove(leaf->zero, index, 1);
		leaf->zero_dirty = true;
	}
	return true;
}

/* Blocks of the disk, all in one chunk. */
static bool blocks_are_sane(const struct leaf *leaf, uint64_t block, uint64_t count)
{
	uint64_t blocks = blocks_of(leaf->image.size_bytes), per_chunk = leaf->geometry.chunk_blocks;

	return count && block < blocks && count <= blocks - block && count <= per_chunk - block % per_chunk;
}

static bool replay_blocks(struct leaf *leaf, enum leaf_journal_type type, const le64 *value, struct leaf_report *report)
{
	uint64_t block = le64_get(value[0]), count = le64_get(value[1]);
	uint64_t index = block / leaf->geometry.chunk_blocks;
	uint32_t first = (uint32_t)(block % leaf->geometry.chunk_blocks);
	struct chunk *chunk;

	if (!blocks_are_sane(leaf, block, count) || intervals_contains(leaf->zero, index, 1, NULL))
		return false;
	chunk = chunk_in_slot(leaf, index, le64_get(value[2]), report);
	if (!chunk)
		return false;
	bits_set(chunk_present(leaf, chunk), first, (uint32_t)count);
	if (type == LEAF_JOURNAL_ZEROS)
		bits_set(chunk_zero(leaf, chunk), first, (uint32_t)count);
	else
		bits_clear(chunk_zero(leaf, chunk), first, (uint32_t)count);
	return true;
}

static bool replay_free(struct leaf *leaf, const le64 *value)
{
	uint64_t slot = le64_get(value[0]);
	struct chunk *chunk;

	if (slot >= leaf->slots_max)
		return false;
	chunk = leaf_slot_chunk(leaf, slot);
	if (!chunk)
		return true;
	if (chunk->index >= LEAF_CHUNK_ZERO_LIST)
		return false;
	leaf_chunk_unload(leaf, chunk);
	return true;
}

static void unload_chunks(struct leaf *leaf, uint64_t first, uint64_t count)
{
	struct chunk *chunk;

	while ((chunk = leaf_chunk_from(leaf, first)) && chunk->index - first < count) {
		count -= chunk->index + 1 - first;
		first = chunk->index + 1;
		leaf_chunk_unload(leaf, chunk);
	}
}

static bool replay_drop(struct leaf *leaf, const le64 *value)
{
	uint64_t first = le64_get(value[0]), count = le64_get(value[1]);
	uint64_t limit = leaf_chunk_count(leaf, leaf->image.size_bytes);

	if (first > limit || count > limit - first)
		return false;
	unload_chunks(leaf, first, count);
	intervals_remove(leaf->zero, first, count);
	leaf->zero_dirty = true;
	return true;
}

static bool replay_zero(struct leaf *leaf, enum leaf_journal_type type, const le64 *value)
{
	uint64_t first = le64_get(value[0]), count = le64_get(value[1]);
	uint64_t limit = leaf_chunk_count(leaf, leaf->image.size_bytes);

	if (first > limit || count > limit - first)
		return false;
	if (type == LEAF_JOURNAL_ZERO)
		intervals_add(leaf->zero, first, count);
	else
		intervals_remove(leaf->zero, first, count);
	leaf->zero_dirty = true;
	return true;
}

static bool replay_apply(struct leaf *leaf, const le64 *value, struct leaf_report *report)
{
	struct leaf_redo redo = {le64_get(value[0]), le64_get(value[1]), le64_get(value[2]), le64_get(value[3])};
	uint64_t blocks = blocks_of(leaf->image.size_bytes);

	if (!redo.blocks || redo.blocks > leaf->geometry.chunk_blocks ||
	    redo.slot_block > leaf->geometry.chunk_blocks - redo.blocks || redo.block > blocks ||
	    redo.blocks > blocks - redo.block || redo.slot >= leaf->slots_max ||
	    !leaf_memory_ask_slots(leaf, redo.slot + 1, report))
		return false;
	leaf_slots_cover_locked(leaf, redo.slot);
	g_array_append_val(leaf->redo, redo);
	return true;
}

/* What an earlier claim has left in the journal says nothing of this one. */
static void replay_progress(struct leaf *leaf, const le64 *value)
{
	if (memcmp(value, leaf->header.claim, IMAGE_CLAIM_BYTES) == 0)
		leaf_note_progress(leaf, le64_get(value[IMAGE_CLAIM_BYTES / sizeof(le64)]));
}

static unsigned entry_values(const struct leaf *leaf, uint32_t type)
{
	static const unsigned values[] = {
		[LEAF_JOURNAL_FREE] = 1,  [LEAF_JOURNAL_ZERO] = 2,     [LEAF_JOURNAL_UNZERO] = 2,
		[LEAF_JOURNAL_APPLY] = 4, [LEAF_JOURNAL_DATA] = 3,     [LEAF_JOURNAL_ZEROS] = 3,
		[LEAF_JOURNAL_DROP] = 2,  [LEAF_JOURNAL_PROGRESS] = 3,
	};

	if (type == LEAF_JOURNAL_CHUNK)
		return 2 + 2 * leaf->geometry.words;
	return type < G_N_ELEMENTS(values) ? values[type] : 0;
}

static bool replay_entry(struct leaf *leaf, const struct leaf_journal_entry_ondisk *entry, struct leaf_report *report)
{
	uint32_t type = le32_get(entry->type);

	if (le32_get(entry->bytes) != sizeof(*entry) + entry_values(leaf, type) * sizeof(le64))
		return false;
	switch (type) {
	case LEAF_JOURNAL_CHUNK:
		return replay_chunk(leaf, entry->value, report);
	case LEAF_JOURNAL_FREE:
		return replay_free(leaf, entry->value);
	case LEAF_JOURNAL_ZERO:
	case LEAF_JOURNAL_UNZERO:
		return replay_zero(leaf, type, entry->value);
	case LEAF_JOURNAL_APPLY:
		return replay_apply(leaf, entry->value, report);
	case LEAF_JOURNAL_APPLIED:
		g_array_set_size(leaf->redo, 0);
		return true;
	case LEAF_JOURNAL_DATA:
	case LEAF_JOURNAL_ZEROS:
		return replay_blocks(leaf, type, entry->value, report);
	case LEAF_JOURNAL_DROP:
		return replay_drop(leaf, entry->value);
	case LEAF_JOURNAL_PROGRESS:
		replay_progress(leaf, entry->value);
		return true;
	default:
		return false;
	}
}

static bool replay_record(struct leaf *leaf, const uint8_t *data, uint32_t bytes, struct leaf_report *report)
{
	const struct leaf_record_ondisk *record = (const void *)data;
	uint32_t position = sizeof(*record);

	for (uint32_t i = 0; i < le32_get(record->entries); i++) {
		const struct leaf_journal_entry_ondisk *entry = (const void *)(data + position);
		uint32_t left = bytes - position, length;

		if (left < sizeof(*entry) || (i % LOOK_ENTRIES == 0 && !leaf_load_goes_on(report)))
			return false;
		length = le32_get(entry->bytes);
		if (length < sizeof(*entry) || length > left || !is_aligned(length, sizeof(le64)) ||
		    !replay_entry(leaf, entry, report))
			return false;
		position += length;
	}
	return true;
}

/* After the last record that counts there is none of this epoch: each was
 * flushed before the next was written. */
static void check_nothing_follows(struct leaf *leaf, const uint8_t *journal, uint64_t at, uint64_t bytes,
				  struct leaf_report *report)
{
	uint64_t start = le64_get(leaf->header.journal_offset), epoch = le64_get(leaf->header.epoch);

	for (; at < bytes && leaf_load_goes_on(report); at += LEAF_PAGE_BYTES) {
		const struct leaf_record_ondisk *record = (const void *)(journal + at);
		uint64_t sequence = le64_get(record->sequence);

		if (le64_get(record->epoch) != epoch || sequence <= leaf->journal_sequence ||
		    !leaf_record_validate(record, bytes - at, start + at, epoch, sequence, leaf->image_id))
			continue;
		leaf_damage(report,
			    "record %" G_GUINT64_FORMAT " of the journal is damaged, record %" G_GUINT64_FORMAT
			    " behind it is not",
			    leaf->journal_sequence, sequence);
		return;
	}
}

/* Slots that were taken since the table was written: an entry of the journal names
 * each, or its data has space in the file, but for few. What memory they take
 * follows that, not the numbers that a record gives. */
static uint64_t slots_max(const struct leaf *leaf)
{
	uint64_t named = le64_get(leaf->header.journal_bytes) / ENTRY_BYTES_MIN;
	uint64_t taken = image_file_allocated(&leaf->file) / SLOT_SPACE_BYTES + named + SLOTS_WITHOUT_SPACE;
	uint64_t possible = leaf_slots_within(&leaf->geometry, leaf->file_bytes);

	return MIN(MIN(possible, leaf->slots->len + taken), G_MAXINT);
}

int64_t leaf_journal_replay(struct leaf *leaf, struct leaf_report *report)
{
	uint64_t start = le64_get(leaf->header.journal_offset), bytes = le64_get(leaf->header.journal_bytes);
	g_autofree uint8_t *journal = leaf_memory_ask_new(report, bytes);
	int64_t records = 0;
	uint64_t at;
	int result;

	if (!journal || !leaf_memory_ask(report, intervals_length(leaf->zero) * 3 * sizeof(struct interval) +
							 bytes * EVENT_BYTES_PER_BYTE))
		return -1;
	result = image_file_read(&leaf->file, journal, bytes, start);
	if (result < 0) {
		error_set_errno(report->error, -result, "%s: its journal cannot be read", report->path);
		return -1;
	}
	leaf->slots_max = slots_max(leaf);
	for (at = 0; at < bytes; records++) {
		uint32_t length =
			leaf_record_validate(journal + at, bytes - at, start + at, le64_get(leaf->header.epoch),
					     leaf->journal_sequence, leaf->image_id);

		if (!length)
			break;
		if (!replay_record(leaf, journal + at, length, report)) {
			leaf_damage(report, "record %" G_GUINT64_FORMAT " of the journal contradicts the chunk table",
				    leaf->journal_sequence);
			return report->finding ? records : -1;
		}
		at += length;
		leaf->journal_position = start + at;
		leaf->journal_sequence++;
	}
	check_nothing_follows(leaf, journal, at, bytes, report);
	return report->damages && !report->finding ? -1 : records;
}
