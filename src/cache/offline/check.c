/* Checking a cache: superblock, every record, all data, and whether the log
 * goes as far as it once did.
 *
 * Validation of a record proves its own rules; what relates records to each
 * other is looked at here. Where the log ends, and what is missing, the reader says, as it
 * does to a mount. */
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "cache/format/format.h"
#include "core/error.h"
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
	uint64_t migrated;	   /* order of what the last MIGRATED names; 0: none */
};

struct known_barrier {
	uint64_t order;
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
	struct cache_layer_ondisk layer;
	bool orphan;

	g_free(cache_entry_layer(entry, &layer));
	orphan = le32_get(layer.flags) & CACHE_LAYER_ORPHAN;
	if (buffer_is_zero(layer.identity, sizeof(layer.identity)))
		report_entry(check, entry, sequence, "declares", " without an identity");
	if (known->declared && memcmp(known->identity, layer.identity, sizeof(layer.identity)) != 0)
		report_entry(check, entry, sequence, "declares", " for a second image");
	if (known->orphan && !orphan)
		report_entry(check, entry, sequence, "declares", ", an orphan, for an owner");
	known->declared = true;
	known->orphan = orphan;
	memcpy(known->identity, layer.identity, sizeof(layer.identity));
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

static const struct known_barrier *barrier_at(const struct check *check, unsigned position)
{
	return &g_array_index(check->barriers, struct known_barrier, position);
}

/* The order of LAYER's barrier that ENTRY names; 0: there is none. */
static uint64_t find_barrier(const struct check *check, uint32_t layer, const struct cache_entry *entry)
{
	uint64_t distance = 0;

	if (entry->version_1)
		distance = place_distance(check, le64_get(entry->words[0]), le64_get(entry->words[1]));
	for (unsigned i = check->barriers->len; i-- > 0;) {
		const struct known_barrier *barrier = barrier_at(check, i);

		if (barrier->layer == layer &&
		    (entry->version_1 ? barrier->distance == distance : barrier->order == entry->order))
			return barrier->order;
		if (entry->version_1 ? barrier->distance < distance : barrier->order < entry->order)
			break;
	}
	return 0;
}

/* What the tail has passed cannot be looked at: such a slot of version 1 would now be one
 * behind the record. */
static bool is_passed(const struct check *check, const struct cache_entry *entry, uint64_t record_slot)
{
	if (entry->version_1)
		return slot_distance(check, le64_get(entry->words[0])) > slot_distance(check, record_slot);
	return entry->order < le64_get(check->view.super.tail_sequence);
}

static void check_migration(struct check *check, struct known_layer *known, const struct cache_entry *entry,
			    uint64_t sequence, uint64_t record_slot)
{
	uint64_t ring_slots = le64_get(check->view.super.ring_segments) * CACHE_SEGMENT_BLOCKS;
	const char *verb = entry->kind == CACHE_ENTRY_MIGRATED ? "says MIGRATED of" : "says MIGRATE of";
	uint64_t order;

	if (entry->version_1 && le64_get(entry->words[0]) >= ring_slots)
		report_entry(check, entry, sequence, verb, " and names a slot outside the ring");
	else if (is_passed(check, entry, record_slot))
		return;
	order = find_barrier(check, entry->layer, entry);
	if (!order)
		report_entry(check, entry, sequence, verb, " and names a place where no epoch of it ends");
	else if (order < known->migrated)
		report_entry(check, entry, sequence, verb, " and names an earlier place than its image has");
	if (order && entry->kind == CACHE_ENTRY_MIGRATED)
		known->migrated = order;
}

static bool is_of_migration(enum cache_entry_kind kind)
{
	return kind == CACHE_ENTRY_MIGRATE || kind == CACHE_ENTRY_MIGRATED;
}

/* Of no epoch, or of one that has ended before. */
static bool may_follow_barrier(enum cache_entry_kind kind)
{
	return is_of_migration(kind) || kind == CACHE_ENTRY_MOVED || kind == CACHE_ENTRY_MOVED_ZERO ||
	       kind == CACHE_ENTRY_MOVED_BARRIER || kind == CACHE_ENTRY_LAYER;
}

static bool is_of_epochs(enum cache_entry_kind kind)
{
	return kind == CACHE_ENTRY_BARRIER || is_of_migration(kind);
}

static void check_barrier(struct check *check, struct known_layer *known, const struct cache_entry *entry,
			  uint64_t sequence, uint64_t distance)
{
	struct known_barrier barrier = {sequence, distance, entry->layer};

	known->barrier_sequence = sequence;
	g_array_append_val(check->barriers, barrier);
}

/* ---- Entries --------------------------------------------------------------- */

static void check_entry(struct check *check, const struct cache_entry *entry, const struct cache_cursor *cursor,
			uint64_t sequence, uint64_t slot)
{
	struct known_layer *known = layer_of(check, entry->layer);

	if (entry->kind == CACHE_ENTRY_LAST)
		return;
	if (known->dropped)
		report_entry(check, entry, sequence, "uses", ", which was dropped before");
	if (known->barrier_sequence == sequence && !may_follow_barrier(entry->kind))
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
		if (index - entry.first_data < entry.blocks && cache_kind_has_data(entry.kind))
			report(opaque,
			       "record %" G_GUINT64_FORMAT ": the data at byte %" G_GUINT64_FORMAT
			       ", block %" G_GUINT64_FORMAT " of layer %u, is damaged",
			       le64_get(record->sequence), cache_slot_offset(slot + 1 + index),
			       entry.block + (index - entry.first_data), entry.layer);
}

/* ---- Holes --------------------------------------------------------------- */

static void check_hole(void *opaque, const struct cache_hole *hole)
{
	g_autofree char *text = cache_hole_text(hole);

	report(opaque, "%s", text);
}

/* What a mount would say. */
static void check_layer(void *opaque, struct cache_layer *layer)
{
	g_autofree char *loss = layer->incomplete ? layer_loss_text(layer) : NULL;

	if (loss)
		report(opaque, "%s: %s", layer->name, loss);
}

/* ---- All of it ----------------------------------------------------------- */

static void check_size(struct check *check)
{
	uint64_t needed = cache_segment_offset(le64_get(check->view.super.segments));

	if (check->view.file_bytes < needed)
		report(check, "it is cut off, and has %" G_GUINT64_FORMAT " bytes of %" G_GUINT64_FORMAT,
		       check->view.file_bytes, needed);
}

static bool check_log(struct check *check, GError **error)
{
	struct cache_log_reader reader = {
		.record = check_record,
		.damage = check_damage,
		.hole = check_hole,
		.opaque = check,
		.all_data = true,
	};
	struct cache_view *view = &check->view;

	check_size(check);
	cache_log_read(view->fd, &view->super, &reader, &view->end);
	check->result->records = view->end.records;
	check->result->blocks = view->end.blocks;
	cache_log_end_clear(&view->end);
	if (!cache_view_recover(view, error))
		return false;
	layers_foreach(view->layers, check_layer, check);
	if (view->end.unknown)
		report(check, "changes of layers of which nothing is left may be lost as well");
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
