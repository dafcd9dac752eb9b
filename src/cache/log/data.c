/* Data: slots in the open record, new ones or the same again. */
#include "data.h"

#include "entry.h"
#include "log.h"

/* Of a layer that mirrors what is written, an older copy may be in the log still. */
static bool is_change(const struct cache_layer *layer, enum cache_entry_kind kind)
{
	return kind != CACHE_ENTRY_CLEAN || (layer->writable && !layer->epochs);
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
	grant->record = record;
	grant->order = record->sequence;
	grant->slot = (uint32_t)(record->slot + 1 + record->blocks);
	grant->data = slot_data(record->buffer->data, grant->slot);
	record->blocks += grant->blocks;
	record->copies++;
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

/* Behind the open record's header there is nothing else in its segment. */
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
	if (!(entry.flags & INDEX_PINNED) || (entry.flags & INDEX_BUSY))
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
