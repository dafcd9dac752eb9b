/* Entries without data: what the log says of layers, zeros and epochs. */
#include "entry.h"

#include <string.h>

#include "log.h"

/* What a record that is missing had of LAYER is missed then: but for a LAYER that is not. */
static bool is_change(enum cache_entry_kind kind, const le64 *words)
{
	return kind != CACHE_ENTRY_LAYER || cache_layer_is_change((const struct cache_layer_ondisk *)words);
}

static le64 *add_locked(struct log_record *record, struct cache_layer *layer, enum cache_entry_kind kind,
			uint64_t block, const le64 *words, unsigned count)
{
	cache_assert_locked(layer->cache);
	if (is_change(kind, words) && !log_change_locked(layer->cache, record, layer, count))
		return NULL;
	return cache_record_add(log_header_of(record), layer->id, kind, block, count);
}

/* The record that the entry went to, NULL: no room. */
static struct log_record *append_locked(struct cache *cache, enum log_purpose purpose, struct cache_layer *layer,
					enum cache_entry_kind kind, uint64_t block, const le64 *words, unsigned count)
{
	cache_assert_locked(cache);
	for (int tries = 0; tries < 2; tries++) {
		struct log_record *record = log_open_record_locked(cache, purpose);
		le64 *place = record ? add_locked(record, layer, kind, block, words, count) : NULL;

		if (!record)
			return NULL;
		if (place) {
			if (count)
				memcpy(place, words, count * sizeof(*words));
			log_close_if_full_locked(cache, record);
			return record;
		}
		log_close_record_locked(cache);
	}
	return NULL;
}

bool log_declare_locked(struct cache *cache, enum log_purpose purpose, struct cache_layer *layer)
{
	struct layer_words words;
	unsigned count = layer_get_words(layer, &words);
	struct log_record *record;

	cache_assert_locked(cache);
	record = append_locked(cache, purpose, layer, CACHE_ENTRY_LAYER, 0, (const le64 *)&words, count);
	if (!record)
		return false;
	layer->declared = true;
	layer->outdated = false;
	layer->loss_declared = layer->incomplete;
	layer->declared_segment = segment_of(record->slot);
	layer->declared_sequence = record->sequence;
	layer->declared_once = layer->generation != 0;
	return true;
}

bool log_declare_if_needed_locked(struct cache *cache, enum log_purpose purpose, struct cache_layer *layer)
{
	cache_assert_locked(cache);
	return layer->is_volatile || (layer->declared && !layer->outdated) || log_declare_locked(cache, purpose, layer);
}

static bool log_gap_locked(struct cache *cache, enum log_purpose purpose, struct cache_layer *layer, uint64_t first,
			   uint64_t end)
{
	le64 word = le64_of(end - first);

	cache_assert_locked(cache);
	return first == end || append_locked(cache, purpose, layer, CACHE_ENTRY_ZERO, first, &word, 1);
}

/* Only where no LIVE block hides them: it would be removed at the next mount. */
static bool log_zeros_locked(struct cache *cache, enum log_purpose purpose, struct cache_layer *layer,
			     struct interval zeros)
{
	g_autoptr(GArray) hidden = index_list(cache->index, layer->id, zeros.first, zeros.count);
	uint64_t first = zeros.first;
	bool logged = true;

	cache_assert_locked(cache);
	for (guint i = 0; logged && i < hidden->len; i++) {
		uint64_t block = g_array_index(hidden, uint64_t, i);

		logged = log_gap_locked(cache, purpose, layer, first, block);
		first = block + 1;
	}
	return logged && log_gap_locked(cache, purpose, layer, first, zeros.first + zeros.count);
}

bool log_declare_orphan_locked(struct cache *cache, enum log_purpose purpose, struct cache_layer *layer)
{
	uint64_t before = layer->declared_segment;
	bool logged = log_declare_locked(cache, purpose, layer);

	cache_assert_locked(cache);
	for (unsigned i = 0; logged && layer->zeros && i < intervals_length(layer->zeros); i++)
		logged = log_zeros_locked(cache, purpose, layer, intervals_get(layer->zeros, i));
	if (!logged)
		layer->declared_segment = before;
	return logged;
}

bool log_forget_locked(struct cache_layer *layer, uint64_t block, uint64_t blocks)
{
	le64 word = le64_of(blocks);

	cache_assert_locked(layer->cache);
	return append_locked(layer->cache, LOG_ENTRY, layer, CACHE_ENTRY_FORGET, block, &word, 1);
}

/* ID may be an earlier one of a layer that is degraded. A DROP that is missed shows
 * nothing: what an id had is good under a stamp or a claim, and those have changed. */
bool log_drop_locked(struct cache *cache, uint32_t id)
{
	cache_assert_locked(cache);
	for (int tries = 0; tries < 2; tries++) {
		struct log_record *record = log_open_record_locked(cache, LOG_ENTRY);

		if (!record)
			return false;
		if (cache_record_add(log_header_of(record), id, CACHE_ENTRY_DROP, 0, 0)) {
			log_close_if_full_locked(cache, record);
			return true;
		}
		log_close_record_locked(cache);
	}
	return false;
}

static struct epoch_place place_of(const struct log_record *record)
{
	return (struct epoch_place){(uint32_t)record->slot, record->blocks, record->sequence};
}

bool log_zero_locked(struct cache_layer *layer, uint64_t block, uint64_t blocks, struct epoch_place *place)
{
	le64 word = le64_of(blocks);
	struct log_record *record = append_locked(layer->cache, LOG_PUT, layer, CACHE_ENTRY_ZERO, block, &word, 1);

	cache_assert_locked(layer->cache);
	if (record)
		*place = place_of(record);
	return record;
}

bool log_barrier_locked(struct cache_layer *layer, enum log_purpose purpose, struct epoch_place *place)
{
	struct log_record *record = append_locked(layer->cache, purpose, layer, CACHE_ENTRY_BARRIER, 0, NULL, 0);

	cache_assert_locked(layer->cache);
	if (record)
		*place = place_of(record);
	return record;
}

bool log_event_moved_locked(struct cache_layer *layer, const struct epoch_event *event, uint32_t *slot)
{
	le64 words[] = {le64_of(event->blocks), le64_of(event->place.order)};
	struct log_record *record;

	cache_assert_locked(layer->cache);
	if (epoch_event_is_barrier(event))
		record = append_locked(layer->cache, LOG_MOVE, layer, CACHE_ENTRY_MOVED_BARRIER, event->place.order,
				       NULL, 0);
	else
		record = append_locked(layer->cache, LOG_MOVE, layer, CACHE_ENTRY_MOVED_ZERO, event->block, words,
				       G_N_ELEMENTS(words));
	if (record)
		*slot = (uint32_t)record->slot;
	return record;
}

bool log_migrate_locked(struct cache_layer *layer, enum log_purpose purpose, enum cache_entry_kind kind,
			struct epoch_place place)
{
	struct log_record *record = append_locked(layer->cache, purpose, layer, kind, place.order, NULL, 0);

	cache_assert_locked(layer->cache);
	if (record && kind == CACHE_ENTRY_MIGRATE)
		layer->epochs->begun_segment = segment_of(record->slot);
	return record;
}
