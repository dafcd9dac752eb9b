/* Data: slots in the open record, new ones or the same again. */
#include "data.h"

#include "entry.h"
#include "log.h"

/* Of a layer that mirrors what is written, an older copy may be in the log still. */
static bool is_change(const struct cache_layer *layer, enum cache_entry_kind kind)
{
	return kind != CACHE_ENTRY_CLEAN || (layer->writable && !layer->epochs);
}

/* GRANT's blocks and words are in RECORD. */
static void take_slots(struct log_record *record, struct log_grant *grant)
{
	grant->record = record;
	grant->slot = (uint32_t)(record->slot + 1 + record->blocks);
	grant->data = slot_data(record->buffer->data, grant->slot);
	record->blocks += grant->blocks;
	record->copies++;
}

/* Adds blocks to the open RECORD. They extend one entry, so their words are
 * consecutive. */
static bool add_run_locked(struct log_record *record, struct cache_layer *layer, enum cache_entry_kind kind,
			   uint64_t limit, struct log_grant *grant)
{
	struct cache_record_ondisk *header = log_header_of(record);
	uint64_t most = MIN(limit, log_blocks_left(record));

	cache_assert_locked(layer->cache);
	if (is_change(layer, kind) && !log_change_locked(layer->cache, record, layer, 1))
		return false;
	grant->words = cache_record_add_block(header, grant->layer, kind, grant->block);
	if (!grant->words)
		return false;
	grant->blocks = 1;
	while (grant->blocks < most && cache_record_add_block(header, grant->layer, kind, grant->block + grant->blocks))
		grant->blocks++;
	grant->order = record->sequence;
	take_slots(record, grant);
	return true;
}

bool log_reserve_locked(struct cache *cache, enum log_purpose purpose, struct cache_layer *layer,
			enum cache_entry_kind kind, uint64_t block, uint64_t limit, struct log_grant *grant)
{
	cache_assert_locked(cache);
	*grant = (struct log_grant){.layer = layer->id, .block = block};
	if (!log_declare_if_needed_locked(cache, purpose, layer))
		return false;
	for (int tries = 0; tries < 2; tries++) {
		struct log_record *record = log_open_record_locked(cache, purpose);

		if (!record)
			return false;
		if (add_run_locked(record, layer, kind, limit, grant)) {
			log_close_if_full_locked(cache, record);
			return true;
		}
		log_close_record_locked(cache);
	}
	return false;
}

/* Words of a MOVED entry of one block. */
#define MOVED_WORDS 2

static bool add_moved_locked(struct log_record *record, struct cache_layer *layer, uint64_t order,
			     struct log_grant *grant)
{
	cache_assert_locked(layer->cache);
	if (!log_change_locked(layer->cache, record, layer, MOVED_WORDS))
		return false;
	grant->words = cache_record_add_moved(log_header_of(record), layer->id, grant->block, order);
	if (!grant->words)
		return false;
	grant->blocks = 1;
	take_slots(record, grant);
	return true;
}

bool log_reserve_moved_locked(struct cache_layer *layer, uint64_t block, uint64_t order, struct log_grant *grant)
{
	struct cache *cache = layer->cache;

	cache_assert_locked(cache);
	*grant = (struct log_grant){.layer = layer->id, .block = block, .order = order & (CACHE_ORDER_END - 1)};
	if (!log_declare_if_needed_locked(cache, LOG_MOVE, layer))
		return false;
	for (int tries = 0; tries < 2; tries++) {
		struct log_record *record = log_open_record_locked(cache, LOG_MOVE);

		if (!record)
			return false;
		if (add_moved_locked(record, layer, order, grant)) {
			log_close_if_full_locked(cache, record);
			return true;
		}
		log_close_record_locked(cache);
	}
	return false;
}

/* Behind the open record's header there is nothing else in its segment. What was moved
 * there is older than the record. */
bool log_overwrite_locked(struct cache *cache, struct cache_layer *layer, uint64_t block, uint64_t limit,
			  struct log_grant *grant)
{
	struct log_record *record = cache->log.open;
	uint32_t slot = record ? index_find(cache->index, layer->id, block) : INDEX_NO_SLOT;
	struct index_entry entry;
	unsigned run;

	cache_assert_locked(cache);
	if (slot == INDEX_NO_SLOT || slot <= record->slot || segment_of(slot) != segment_of(record->slot))
		return false;
	index_get(cache->index, slot, &entry);
	if (!(entry.flags & INDEX_PINNED) || (entry.flags & INDEX_BUSY) || entry.order != record->sequence)
		return false;
	*grant = (struct log_grant){
		.record = record,
		.layer = layer->id,
		.block = block,
		.slot = slot,
		.order = record->sequence,
	};
	grant->words = cache_record_words(log_header_of(record), slot - (uint32_t)record->slot - 1, &run);
	if (!grant->words)
		return false;
	grant->blocks = (unsigned)index_run(cache->index, slot, layer->id, block, MIN(limit, run));
	grant->data = slot_data(record->buffer->data, slot);
	record->copies++;
	return true;
}
