/* Checking a cache: superblock, every record, all data, and whether the log
 * goes as far as it once did.
 *
 * Validation of a record proves its own rules; what relates records to each
 * other is looked at here. A log ends where a record is not valid, which is no
 * damage in itself: a crash leaves it so. It is damage when a record behind the
 * end says that the missing one was durable. */
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "aio/file.h"
#include "cache/format/format.h"
#include "core/error.h"
#include "cache/format/headers.h"
#include "view.h"

struct check {
	struct cache_view view;
	void (*finding)(void *opaque, const char *sentence);
	void *opaque;
	struct cache_check_result *result;
	GHashTable *layers; /* id -> struct known_layer */
	GArray *barriers;   /* struct known_barrier, in log order */
};

/* What the log has said of an id. */
struct known_layer {
	bool declared, dropped, orphan;
	uint8_t identity[16];
	uint64_t barrier_sequence; /* of the record with the last BARRIER; 0: none */
	uint64_t migrated;	   /* distance from the tail of what the last MIGRATED names; 0: none */
};

struct known_barrier {
	uint64_t distance; /* of its place, see place_distance() */
	uint32_t layer;
};

static void report(struct check *check, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void report(struct check *check, const char *format, ...)
{
	g_autofree char *sentence = NULL;
	va_list values;

	va_start(values, format);
	sentence = g_strdup_vprintf(format, values);
	va_end(values);
	check->result->damages++;
	check->finding(check->opaque, sentence);
}

/* ---- Records in log order ------------------------------------------------ */

static void report_entry(struct check *check, const struct cache_entry *entry, uint64_t sequence, const char *verb,
			 const char *rest)
{
	report(check, "record %" G_GUINT64_FORMAT " %s layer %u%s", sequence, verb, entry->layer, rest);
}

static struct known_layer *layer_of(struct check *check, uint32_t id)
{
	struct known_layer *layer = g_hash_table_lookup(check->layers, GUINT_TO_POINTER(id));

	if (!layer) {
		layer = g_new0(struct known_layer, 1);
		g_hash_table_insert(check->layers, GUINT_TO_POINTER(id), layer);
	}
	return layer;
}

static void check_declaration(struct check *check, struct known_layer *known, const struct cache_entry *entry,
			      uint64_t sequence)
{
	const struct cache_layer_ondisk *layer = (const struct cache_layer_ondisk *)entry->words;
	bool orphan = le32_get(layer->flags) & CACHE_LAYER_ORPHAN;

	if (buffer_is_zero(layer->identity, sizeof(layer->identity)))
		report_entry(check, entry, sequence, "declares", " without an identity");
	if (known->declared && memcmp(known->identity, layer->identity, sizeof(layer->identity)) != 0)
		report_entry(check, entry, sequence, "declares", " for a second image");
	if (known->orphan && !orphan)
		report_entry(check, entry, sequence, "declares", ", an orphan, for an owner");
	known->declared = true;
	known->orphan = orphan;
	memcpy(known->identity, layer->identity, sizeof(layer->identity));
}

/* ---- Barriers ------------------------------------------------------------- */

static uint64_t slot_distance(const struct check *check, uint64_t slot)
{
	return cache_slot_distance(le64_get(check->view.super.tail_segment) * CACHE_SEGMENT_BLOCKS, slot,
				   le64_get(check->view.super.ring_segments));
}

/* Of the place behind BLOCKS data blocks of the record at SLOT. */
static uint64_t place_distance(const struct check *check, uint64_t slot, uint64_t blocks)
{
	return slot_distance(check, slot) + 1 + blocks;
}

static bool has_barrier(const struct check *check, uint32_t layer, uint64_t distance)
{
	unsigned low = 0, high = check->barriers->len;

	while (low < high) {
		unsigned middle = (low + high) / 2;

		if (g_array_index(check->barriers, struct known_barrier, middle).distance < distance)
			low = middle + 1;
		else
			high = middle;
	}
	for (; low < check->barriers->len; low++) {
		const struct known_barrier *barrier = &g_array_index(check->barriers, struct known_barrier, low);

		if (barrier->distance != distance || barrier->layer == layer)
			return barrier->distance == distance;
	}
	return false;
}

/* What the tail has passed cannot be looked at: such a slot would now be one
 * behind the record. */
static void check_migration(struct check *check, struct known_layer *known, const struct cache_entry *entry,
			    uint64_t sequence, uint64_t record_slot)
{
	uint64_t slot = le64_get(entry->words[0]), distance = place_distance(check, slot, le64_get(entry->words[1]));
	bool migrated = entry->kind == CACHE_ENTRY_MIGRATED;
	const char *verb = migrated ? "says MIGRATED of" : "says MIGRATE of";

	if (slot >= le64_get(check->view.super.ring_segments) * CACHE_SEGMENT_BLOCKS)
		report_entry(check, entry, sequence, verb, " and names a slot outside the ring");
	else if (slot_distance(check, slot) > slot_distance(check, record_slot))
		return;
	else if (!has_barrier(check, entry->layer, distance))
		report_entry(check, entry, sequence, verb, " and names a place where no epoch of it ends");
	if (distance < known->migrated)
		report_entry(check, entry, sequence, verb, " and names an earlier place than its image has");
	if (migrated)
		known->migrated = distance;
}

static bool is_of_migration(enum cache_entry_kind kind)
{
	return kind == CACHE_ENTRY_MIGRATE || kind == CACHE_ENTRY_MIGRATED;
}

static bool is_of_epochs(enum cache_entry_kind kind)
{
	return kind == CACHE_ENTRY_BARRIER || is_of_migration(kind);
}

static void check_barrier(struct check *check, struct known_layer *known, const struct cache_entry *entry,
			  uint64_t sequence, uint64_t distance)
{
	struct known_barrier barrier = {distance, entry->layer};

	known->barrier_sequence = sequence;
	g_array_append_val(check->barriers, barrier);
}

/* ---- Entries --------------------------------------------------------------- */

static void check_entry(struct check *check, const struct cache_entry *entry, const struct cache_cursor *cursor,
			uint64_t sequence, uint64_t slot)
{
	struct known_layer *known = layer_of(check, entry->layer);

	if (known->dropped)
		report_entry(check, entry, sequence, "uses", ", which was dropped before");
	if (known->barrier_sequence == sequence && !is_of_migration(entry->kind))
		report_entry(check, entry, sequence, "has an entry of", " behind the end of its epoch");
	if (known->orphan && is_of_epochs(entry->kind))
		report_entry(check, entry, sequence, "writes back", ", an orphan");
	if (entry->kind == CACHE_ENTRY_LAYER)
		check_declaration(check, known, entry, sequence);
	else if (entry->kind == CACHE_ENTRY_BARRIER)
		check_barrier(check, known, entry, sequence, place_distance(check, slot, cursor->data));
	else if (is_of_migration(entry->kind))
		check_migration(check, known, entry, sequence, slot);
	known->dropped |= entry->kind == CACHE_ENTRY_DROP;
}

static void check_record(void *opaque, const struct cache_record_ondisk *record, uint64_t slot)
{
	struct check *check = opaque;
	uint64_t sequence = le64_get(record->sequence), generation = le64_get(record->generation);
	struct cache_cursor cursor = {0};
	struct cache_entry entry;

	if (generation > le64_get(check->view.super.generation))
		report(check,
		       "record %" G_GUINT64_FORMAT " in segment %" G_GUINT64_FORMAT " has generation %" G_GUINT64_FORMAT
		       ", above the superblock's %" G_GUINT64_FORMAT,
		       sequence, slot / CACHE_SEGMENT_BLOCKS, generation, le64_get(check->view.super.generation));
	while (cache_record_next(record, &cursor, &entry))
		check_entry(check, &entry, &cursor, sequence, slot);
}

static void check_damage(void *opaque, const struct cache_record_ondisk *record, uint64_t slot, unsigned index)
{
	struct cache_cursor cursor = {0};
	struct cache_entry entry;

	while (cache_record_next(record, &cursor, &entry))
		if (index - entry.first_data < entry.blocks &&
		    (entry.kind == CACHE_ENTRY_CLEAN || entry.kind == CACHE_ENTRY_DIRTY))
			report(opaque,
			       "record %" G_GUINT64_FORMAT ": the data at byte %" G_GUINT64_FORMAT
			       ", block %" G_GUINT64_FORMAT " of layer %u, is damaged",
			       le64_get(record->sequence), cache_slot_offset(slot + 1 + index),
			       entry.block + (index - entry.first_data), entry.layer);
}

/* ---- Behind the end ------------------------------------------------------ */

/* Whether RECORD knows that the one missing at the end was durable. What is
 * left of an earlier generation knows of another one. */
static bool contradicts_end(const struct check *check, const struct cache_record_ondisk *record)
{
	const struct cache_log_end *end = &check->view.end;
	le64 cache_id;

	memcpy(&cache_id, check->view.super.uuid, sizeof(cache_id));
	return cache_record_is_intact(record, le64_get(record->position), le64_get(cache_id)) &&
	       le64_get(record->sequence) > end->sequence && le64_get(record->durable) >= end->sequence &&
	       le64_get(record->generation) >= end->generation;
}

/* False after a finding: one is enough. */
static bool look_at(struct check *check, const struct cache_record_ondisk *record)
{
	const struct cache_log_end *end = &check->view.end;

	if (!contradicts_end(check, record))
		return true;
	report(check,
	       "record %" G_GUINT64_FORMAT " in segment %" G_GUINT64_FORMAT
	       " is damaged: it was durable when record %" G_GUINT64_FORMAT " was written",
	       end->sequence, end->slot / CACHE_SEGMENT_BLOCKS, le64_get(record->sequence));
	return false;
}

/* In the end's own segment the records behind it cannot be followed. */
static bool look_at_rest(struct check *check, uint64_t slot)
{
	void *buffer = aligned_alloc(BLOCK_SIZE, BLOCK_SIZE);
	bool more = true;

	do {
		if (aio_fd_read(check->view.fd, buffer, BLOCK_SIZE, cache_slot_offset(slot)) == 0)
			more = look_at(check, buffer);
	} while (more && ++slot % CACHE_SEGMENT_BLOCKS);
	free(buffer);
	return more;
}

static bool look_at_segments(struct check *check, uint64_t first, unsigned count, uint64_t ring)
{
	struct cache_segment_headers found[CACHE_HEADERS_BATCH];
	bool more = true;

	cache_headers_read(check->view.fd, first, count, ring, found);
	for (unsigned i = 0; i < count && more; i++)
		for (unsigned j = 0; j < found[i].headers->len && more; j++)
			more = look_at(check, found[i].headers->pdata[j]);
	cache_headers_clear(found, count);
	return more;
}

/* From the end to the tail. */
static void check_end(struct check *check)
{
	uint64_t ring = le64_get(check->view.super.ring_segments), tail = le64_get(check->view.super.tail_segment);
	uint64_t last = check->view.end.slot / CACHE_SEGMENT_BLOCKS;
	uint64_t left = (tail + ring - last - 1) % ring;
	bool more = look_at_rest(check, check->view.end.slot);

	while (more && left) {
		unsigned count = (unsigned)MIN(left, CACHE_HEADERS_BATCH);

		more = look_at_segments(check, last + 1, count, ring);
		last += count;
		left -= count;
	}
}

/* ---- All of it ----------------------------------------------------------- */

static bool check_log(struct check *check, GError **error)
{
	struct cache_log_reader reader = {
		.record = check_record, .damage = check_damage, .opaque = check, .all_data = true};
	struct cache_view *view = &check->view;

	if (!cache_log_read(view->fd, view->path, &view->super, &reader, &view->end, error))
		return false;
	check->result->records = view->end.records;
	check->result->blocks = view->end.blocks;
	check_end(check);
	return true;
}

/* A superblock that cannot be used is a finding, one that cannot be read not. */
static bool check_all(struct check *check, GError **error)
{
	g_autoptr(GError) refusal = NULL;

	if (cache_view_load(&check->view, &refusal) == CACHE_SUPER_GOOD) {
		check->result->bad_super_copies = check->view.bad_copies;
		return check_log(check, error);
	}
	if (!g_error_matches(refusal, LEAFDISK_ERROR, EINVAL)) {
		g_propagate_error(error, g_steal_pointer(&refusal));
		return false;
	}
	report(check, "%s", refusal->message);
	return true;
}

bool cache_check(const char *path, void (*finding)(void *opaque, const char *sentence), void *opaque,
		 struct cache_check_result *result, GError **error)
{
	g_autoptr(GHashTable) layers = g_hash_table_new_full(NULL, NULL, NULL, g_free);
	g_autoptr(GArray) barriers = g_array_new(FALSE, FALSE, sizeof(struct known_barrier));
	struct check check = {
		.finding = finding,
		.opaque = opaque,
		.result = result,
		.layers = layers,
		.barriers = barriers,
	};
	bool good;

	*result = (struct cache_check_result){0};
	if (!cache_view_open(&check.view, path, error))
		return false;
	good = check_all(&check, error);
	cache_view_close(&check.view);
	return good;
}
