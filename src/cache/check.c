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

#include "core/error.h"
#include "headers.h"
#include "transfer.h"
#include "view.h"

struct check {
	struct cache_view view;
	void (*finding)(void *opaque, const char *sentence);
	void *opaque;
	struct cache_check_result *result;
	GHashTable *dropped;	/* ids */
	GHashTable *identities; /* id -> identity, 16 bytes */
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

static void check_declaration(struct check *check, const struct cache_entry *entry, uint64_t sequence)
{
	const struct cache_layer_ondisk *layer = (const struct cache_layer_ondisk *)entry->words;
	const uint8_t *known = g_hash_table_lookup(check->identities, GUINT_TO_POINTER(entry->layer));

	if (buffer_is_zero(layer->identity, sizeof(layer->identity)))
		report(check, "record %" G_GUINT64_FORMAT " declares layer %u without an identity", sequence,
		       entry->layer);
	if (known && memcmp(known, layer->identity, sizeof(layer->identity)) != 0)
		report(check, "record %" G_GUINT64_FORMAT " declares layer %u for a second image", sequence,
		       entry->layer);
	g_hash_table_insert(check->identities, GUINT_TO_POINTER(entry->layer),
			    g_memdup2(layer->identity, sizeof(layer->identity)));
}

static void check_entry(struct check *check, const struct cache_entry *entry, uint64_t sequence)
{
	if (g_hash_table_contains(check->dropped, GUINT_TO_POINTER(entry->layer)))
		report(check, "record %" G_GUINT64_FORMAT " uses layer %u, which was dropped before", sequence,
		       entry->layer);
	if (entry->kind == CACHE_ENTRY_LAYER)
		check_declaration(check, entry, sequence);
	if (entry->kind == CACHE_ENTRY_DROP)
		g_hash_table_add(check->dropped, GUINT_TO_POINTER(entry->layer));
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
		check_entry(check, &entry, sequence);
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
		if (cache_transfer_read(check->view.fd, buffer, BLOCK_SIZE, cache_slot_offset(slot)) == 0)
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
	g_autoptr(GHashTable) dropped = g_hash_table_new(NULL, NULL);
	g_autoptr(GHashTable) identities = g_hash_table_new_full(NULL, NULL, NULL, g_free);
	struct check check = {
		.finding = finding,
		.opaque = opaque,
		.result = result,
		.dropped = dropped,
		.identities = identities,
	};
	bool good;

	*result = (struct cache_check_result){0};
	if (!cache_view_open(&check.view, path, error))
		return false;
	good = check_all(&check, error);
	cache_view_close(&check.view);
	return good;
}
