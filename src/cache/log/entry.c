/* Entries without data: what the log says of layers, zeros and epochs. */
#include "entry.h"

#include <string.h>

#include "log.h"

/* The record that the entry went to, NULL: no room. */
static struct log_record *append_locked(struct cache *cache, enum log_purpose purpose, uint32_t layer,
					enum cache_entry_kind kind, uint64_t block, const le64 *words, unsigned count)
{
	cache_assert_locked(cache);
	for (int tries = 0; tries < 2; tries++) {
		struct log_record *record = log_open_record_locked(cache, purpose);
		le64 *place = record ? cache_record_add(log_header_of(record), layer, kind, block, count) : NULL;

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
	struct {
		struct cache_layer_ondisk fixed;
		char name[CACHE_LAYER_NAME_BYTES];
	} ondisk = {0};
	size_t name_bytes = strnlen(layer->name, CACHE_LAYER_NAME_BYTES - 1);
	size_t words = (sizeof(ondisk.fixed) + round_up(name_bytes, sizeof(le64))) / sizeof(le64);
	struct log_record *record;

	cache_assert_locked(cache);
	memcpy(ondisk.fixed.identity, layer->identity, CACHE_ID_BYTES);
	ondisk.fixed.stamp = le64_of(layer->stamp);
	ondisk.fixed.size_bytes = le64_of(layer->size_bytes);
	ondisk.fixed.generation = le64_of(layer->generation);
	ondisk.fixed.flags = le32_of(layer->orphan ? CACHE_LAYER_ORPHAN : 0);
	ondisk.fixed.name_bytes = le32_of((uint32_t)name_bytes);
	memcpy(ondisk.name, layer->name, name_bytes);
	record = append_locked(cache, purpose, layer->id, CACHE_ENTRY_LAYER, 0, (const le64 *)&ondisk, (unsigned)words);
	if (!record)
		return false;
	layer->declared = true;
	layer->outdated = false;
	layer->declared_segment = segment_of(record->slot);
	return true;
}

bool log_declare_if_needed_locked(struct cache *cache, enum log_purpose purpose, struct cache_layer *layer)
{
	cache_assert_locked(cache);
	return layer->is_volatile || (layer->declared && !layer->outdated) || log_declare_locked(cache, purpose, layer);
}

/* Only where no LIVE block hides them: it would be removed at the next mount. */
static bool log_zeros_locked(struct cache *cache, enum log_purpose purpose, const struct cache_layer *layer,
			     struct interval zeros)
{
	uint64_t end = zeros.first + zeros.count;

	cache_assert_locked(cache);
	for (uint64_t block = zeros.first; block < end;) {
		uint64_t gap = index_gap(cache->index, layer->id, block, end - block);
		le64 word = le64_of(gap);

		if (gap > 0 && !append_locked(cache, purpose, layer->id, CACHE_ENTRY_ZERO, block, &word, 1))
			return false;
		block += MAX(gap, 1);
	}
	return true;
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

bool log_forget_locked(struct cache *cache, uint32_t layer, uint64_t block, uint64_t blocks)
{
	le64 word = le64_of(blocks);

	cache_assert_locked(cache);
	return append_locked(cache, LOG_ENTRY, layer, CACHE_ENTRY_FORGET, block, &word, 1);
}

bool log_drop_locked(struct cache *cache, uint32_t layer)
{
	cache_assert_locked(cache);
	return append_locked(cache, LOG_ENTRY, layer, CACHE_ENTRY_DROP, 0, NULL, 0);
}

static struct epoch_place place_of(const struct log_record *record)
{
	return (struct epoch_place){(uint32_t)record->slot, record->blocks};
}

bool log_zero_locked(struct cache *cache, uint32_t layer, uint64_t block, uint64_t blocks, struct epoch_place *place)
{
	le64 word = le64_of(blocks);
	struct log_record *record = append_locked(cache, LOG_PUT, layer, CACHE_ENTRY_ZERO, block, &word, 1);

	cache_assert_locked(cache);
	if (record)
		*place = place_of(record);
	return record;
}

bool log_barrier_locked(struct cache *cache, enum log_purpose purpose, uint32_t layer, struct epoch_place *place)
{
	struct log_record *record = append_locked(cache, purpose, layer, CACHE_ENTRY_BARRIER, 0, NULL, 0);

	cache_assert_locked(cache);
	if (record)
		*place = place_of(record);
	return record;
}

bool log_migrate_locked(struct cache *cache, enum cache_entry_kind kind, uint32_t layer, struct epoch_place place)
{
	le64 words[2] = {le64_of(place.slot), le64_of(place.blocks)};

	cache_assert_locked(cache);
	return append_locked(cache, LOG_MOVE, layer, kind, 0, words, 2);
}
