/* Emptying one segment: what is dropped, what is appended again.
 *
 * A first look, under the lock, drops the clean cold blocks and notes the rest:
 * pinned blocks always, clean ones that were read since they came as long as
 * moving takes no more than half of what the segment frees, and none where room
 * is scarce. The segment is
 * read once, each noted block is checked and appended at the head, and becomes
 * LIVE there unless it was superseded meanwhile. Layers that were declared here
 * are declared again. At last, without LIVE slots and readers, the segment is
 * cleared (invariant 5).
 *
 * Dirty blocks move with their order, and those that were superseded since do so too
 * where an epoch ends between the two, the last of each record: a batch has the versions of
 * its epochs. Zero ranges and barriers move likewise (events.c). */
#include "move.h"

#include <string.h>

#include "cache/content/put.h"
#include "core/counters.h"
#include "cache/content/dirty.h"
#include "cache/content/layer.h"
#include "cache/log/data.h"
#include "cache/log/entry.h"
#include "cache/log/log.h"
#include "cache/log/space.h"
#include "cache/log/wake.h"
#include "cache/watch.h"
#include "events.h"

/* One a second. */
#define UNREADABLE_TRIES 30

struct victim {
	struct cache *cache;
	uint64_t segment;
	unsigned count; /* of blocks noted to be moved */
	uint8_t blocks[CACHE_SEGMENT_BLOCKS];
	bool readable; /* all of it was read */
	unsigned *moved;
};

/* Needs the segment's records to be durable, its buffer to be gone. */
static bool wait_for_buffer_relock(struct cache *cache, uint64_t segment)
{
	cache_assert_locked(cache);
	while (cache->segments[segment].buffer) {
		log_flush_locked(cache);
		if (!wake_wait_reclaim_relock(cache))
			return false;
	}
	return true;
}

/* ---- What moves ---------------------------------------------------------- */

static bool get_live_locked(struct cache *cache, uint32_t slot, struct index_entry *entry)
{
	cache_assert_locked(cache);
	index_get(cache->index, slot, entry);
	return (entry->flags & INDEX_LIVE) && layers_by_id(cache->layers, entry->layer);
}

static unsigned count_pinned_locked(struct victim *victim)
{
	uint32_t first = (uint32_t)(victim->segment * CACHE_SEGMENT_BLOCKS);
	struct index_entry entry;
	unsigned count = 0;

	cache_assert_locked(victim->cache);
	for (unsigned i = 0; i < CACHE_SEGMENT_BLOCKS; i++)
		if (get_live_locked(victim->cache, first + i, &entry) && (entry.flags & INDEX_PINNED))
			count++;
	return count;
}

static void drop_locked(struct cache *cache, const struct index_entry *entry)
{
	cache_assert_locked(cache);
	index_remove(cache->index, entry->layer, entry->block);
	cache_layer_account_locked(layers_by_id(cache->layers, entry->layer), entry->flags, -1);
	counter_add(cache_dropped_blocks, 1);
}

/* Of a layer that is written back, LIVE or superseded. */
static struct cache_layer *dirty_layer_locked(struct cache *cache, const struct index_entry *entry)
{
	struct cache_layer *layer = NULL;

	cache_assert_locked(cache);
	if ((entry->flags & INDEX_DATA) && (entry->flags & INDEX_PINNED))
		layer = layers_by_id(cache->layers, entry->layer);
	return layer && layer->epochs ? layer : NULL;
}

/* The epoch of ENTRY, in SLOT, has newer content of its block. */
static bool is_over_in_epoch_locked(struct cache_layer *layer, uint32_t slot, const struct index_entry *entry)
{
	uint32_t live = index_find(layer->cache->index, layer->id, entry->block);
	struct index_entry newer;

	cache_assert_locked(layer->cache);
	if (entry->flags & INDEX_LIVE)
		return false;
	if (events_zero_in_record(layer->epochs, slot, entry->block, entry->order))
		return true;
	if (live == INDEX_NO_SLOT)
		return false;
	index_get(layer->cache->index, live, &newer);
	return newer.order >= entry->order && epochs_is_one_epoch(layer->epochs, entry->order, newer.order);
}

/* Its record has a newer version, further on in the segment: of one order moved apart nobody
 * could tell which that is. */
static bool is_repeated_locked(const struct victim *victim, unsigned at, const struct index_entry *entry)
{
	uint32_t first = (uint32_t)(victim->segment * CACHE_SEGMENT_BLOCKS);
	struct index_entry other;

	cache_assert_locked(victim->cache);
	for (unsigned i = at + 1; i < CACHE_SEGMENT_BLOCKS && !(entry->flags & INDEX_LIVE); i++) {
		index_get(victim->cache->index, first + i, &other);
		if ((other.flags & INDEX_DATA) && (other.flags & INDEX_PINNED) && other.layer == entry->layer &&
		    other.block == entry->block && other.order == entry->order)
			return true;
	}
	return false;
}

static void choose_dirty_locked(struct victim *victim, struct cache_layer *layer, unsigned at,
				const struct index_entry *entry)
{
	uint32_t slot = (uint32_t)(victim->segment * CACHE_SEGMENT_BLOCKS) + at;

	cache_assert_locked(layer->cache);
	if (is_over_in_epoch_locked(layer, slot, entry) || is_repeated_locked(victim, at, entry))
		cache_dirty_drop_locked(layer, slot);
	else
		victim->blocks[victim->count++] = (uint8_t)at;
}

static void choose_locked(struct victim *victim)
{
	uint32_t first = (uint32_t)(victim->segment * CACHE_SEGMENT_BLOCKS);
	unsigned hot_budget = (CACHE_SEGMENT_BLOCKS - count_pinned_locked(victim)) / 2;

	cache_assert_locked(victim->cache);
	if (space_is_scarce_locked(victim->cache))
		hot_budget = 0;
	for (unsigned i = 0; i < CACHE_SEGMENT_BLOCKS; i++) {
		struct index_entry entry;
		struct cache_layer *dirty;
		bool live = get_live_locked(victim->cache, first + i, &entry);

		dirty = dirty_layer_locked(victim->cache, &entry);
		if (dirty) {
			choose_dirty_locked(victim, dirty, i, &entry);
		} else if (!live) {
			continue;
		} else if (entry.flags & INDEX_PINNED) {
			victim->blocks[victim->count++] = (uint8_t)i;
		} else if ((entry.flags & INDEX_HOT) && hot_budget > 0) {
			hot_budget--;
			victim->blocks[victim->count++] = (uint8_t)i;
		} else {
			drop_locked(victim->cache, &entry);
		}
	}
}

/* ---- Moving -------------------------------------------------------------- */

static uint8_t *data_of(const struct victim *victim, unsigned block)
{
	return victim->cache->reclaim.data + ((size_t)block << BLOCK_SHIFT);
}

static bool read_watched(struct cache *cache, void *data, size_t length, uint64_t slot)
{
	const struct aio_file *file;
	struct cache_watch watch;
	int result;

	lock_take(&cache->lock);
	watch_begin_locked(cache, &watch);
	file = cache_file_of_locked(cache, slot);
	lock_let_go(&cache->lock);
	result = cache_storage_read(file, data, length, cache_slot_offset(slot));
	lock_take(&cache->lock);
	watch_end_locked(cache, &watch);
	lock_let_go(&cache->lock);
	return result == 0;
}

/* Only the blocks that move matter: one by one where not all can be read. */
static void read_segment(struct victim *victim)
{
	uint64_t slot = victim->segment * CACHE_SEGMENT_BLOCKS;

	victim->readable = true;
	if (victim->count > 0)
		victim->readable = read_watched(victim->cache, data_of(victim, 0), CACHE_SEGMENT_BYTES, slot);
}

static bool read_block(const struct victim *victim, unsigned block)
{
	uint64_t slot = victim->segment * CACHE_SEGMENT_BLOCKS + block;

	if (victim->readable || read_watched(victim->cache, data_of(victim, block), BLOCK_SIZE, slot))
		return true;
	memset(data_of(victim, block), 0, BLOCK_SIZE);
	return false;
}

static bool is_wanted_locked(struct cache *cache, uint32_t slot, struct index_entry *entry)
{
	cache_assert_locked(cache);
	return get_live_locked(cache, slot, entry) || dirty_layer_locked(cache, entry);
}

static bool reserve_locked(struct cache *cache, const struct index_entry *entry, bool intact, struct log_grant *grant)
{
	uint64_t order = entry->order;
	struct cache_layer *layer = layers_by_id(cache->layers, entry->layer);
	enum cache_entry_kind kind = entry->flags & INDEX_PINNED ? CACHE_ENTRY_DIRTY : CACHE_ENTRY_CLEAN;

	cache_assert_locked(cache);
	if (!(entry->flags & INDEX_LIVE))
		order |= CACHE_ORDER_SUPERSEDED;
	if (!intact || (entry->flags & INDEX_LOST))
		order |= CACHE_ORDER_DAMAGED;
	if (dirty_layer_locked(cache, entry) || (layer->orphan && (entry->flags & INDEX_PINNED)))
		return log_reserve_moved_locked(layer, entry->block, order, grant);
	return log_reserve_locked(cache, LOG_MOVE, layer, kind, entry->block, 1, grant);
}

/* What was superseded keeps the mark. */
static bool is_being_superseded(const struct index_entry *entry)
{
	return (entry->flags & INDEX_LIVE) && (entry->flags & INDEX_BUSY);
}

/* Waits until no put is about to supersede the block (invariant 7) and there is
 * room for it. False: it need not move, or *STOP: cannot. */
static bool reserve_move_relock(struct victim *victim, uint32_t slot, bool intact, struct index_entry *entry,
				struct log_grant *grant, bool *stop)
{
	struct cache *cache = victim->cache;

	cache_assert_locked(victim->cache);
	while (is_wanted_locked(cache, slot, entry)) {
		if (!is_being_superseded(entry) && reserve_locked(cache, entry, intact, grant))
			return true;
		*stop = !space_has_segments_locked(cache, LOG_MOVE) || !wake_wait_reclaim_relock(cache);
		if (*stop)
			return false;
	}
	return false;
}

/* What no read finds any more is for a batch only. */
static void publish_superseded_locked(struct cache *cache, const struct log_grant *grant, unsigned flags)
{
	struct index_entry entry = {
		.layer = grant->layer,
		.block = grant->block,
		.flags = flags,
		.checksum = cache_checksum_short(le64_get(*grant->words)),
		.order = grant->order,
	};

	cache_assert_locked(cache);
	index_insert_superseded(cache->index, grant->slot, &entry);
}

/* As it is now: it may be superseded, or clean, since it was looked at. */
static void publish_move_locked(struct victim *victim, uint32_t slot, bool intact, const struct log_grant *grant)
{
	struct cache *cache = victim->cache;
	struct index_entry now;
	bool live = get_live_locked(cache, slot, &now);
	struct cache_layer *dirty = dirty_layer_locked(cache, &now);
	unsigned flags = now.flags & (INDEX_PINNED | INDEX_LOST | INDEX_BUSY);

	cache_assert_locked(victim->cache);
	flags |= INDEX_PROVEN | (intact ? 0 : INDEX_LOST);
	if (live)
		content_publish_locked(cache, layers_by_id(cache->layers, now.layer), grant, 0, flags);
	else if (dirty)
		publish_superseded_locked(cache, grant, flags & ~(unsigned)INDEX_BUSY);
	if (dirty) {
		index_set_flags(cache->index, slot, 0, INDEX_PINNED);
		cache_dirty_move_locked(dirty, slot, grant->slot, grant->order);
	}
	log_copied_locked(cache, grant->record);
	++*victim->moved;
}

/* What cannot be read may be read the next time. Whether to wait for that: of a pinned
 * block, which nobody else has, for a while. */
static bool may_come_back_locked(struct victim *victim, uint32_t slot, bool readable)
{
	struct index_entry entry;

	cache_assert_locked(victim->cache);
	if (readable || !is_wanted_locked(victim->cache, slot, &entry) || !(entry.flags & INDEX_PINNED))
		return false;
	return victim->cache->reclaim.unreadable++ < UNREADABLE_TRIES;
}

/* A clean block that is damaged is dropped, a pinned one moves as lost. */
static bool drop_damaged_locked(struct victim *victim, uint32_t slot, bool intact)
{
	struct index_entry entry;

	cache_assert_locked(victim->cache);
	if (intact || !is_wanted_locked(victim->cache, slot, &entry) || (entry.flags & INDEX_LOST))
		return false;
	counter_add(cache_damaged_blocks, 1);
	if (entry.flags & INDEX_PINNED)
		return false;
	drop_locked(victim->cache, &entry);
	return true;
}

/* False: the segment cannot be finished. */
static bool move_block(struct victim *victim, unsigned block)
{
	uint32_t slot = (uint32_t)(victim->segment * CACHE_SEGMENT_BLOCKS + block);
	struct cache *cache = victim->cache;
	bool readable = read_block(victim, block), intact = readable;
	uint32_t checksum = cache_checksum_short(cache_data_checksum(data_of(victim, block)));
	struct index_entry entry;
	struct log_grant grant;
	bool reserved = false, stop = false;

	lock_take(&cache->lock);
	index_get(cache->index, slot, &entry);
	intact = intact && entry.checksum == checksum;
	stop = may_come_back_locked(victim, slot, readable);
	if (!stop && !drop_damaged_locked(victim, slot, intact))
		reserved = reserve_move_relock(victim, slot, intact, &entry, &grant, &stop);
	lock_let_go(&cache->lock);
	if (!reserved)
		return !stop;
	content_copy(&grant, data_of(victim, block));
	lock_take(&cache->lock);
	publish_move_locked(victim, slot, intact, &grant);
	lock_let_go(&cache->lock);
	return true;
}

static bool move_blocks(struct victim *victim)
{
	for (unsigned i = 0; i < victim->count; i++)
		if (!move_block(victim, victim->blocks[i]))
			return false;
	return true;
}

/* ---- Layers -------------------------------------------------------------- */

struct declared {
	uint64_t segment;
	struct cache_layer *found;
};

static void find_declared(void *opaque, struct cache_layer *layer)
{
	struct declared *declared = opaque;

	if (layer->declared && layer->declared_segment == declared->segment)
		declared->found = layer;
}

static bool declare_locked(struct cache *cache, struct cache_layer *layer)
{
	cache_assert_locked(cache);
	return layer->orphan ? log_declare_orphan_locked(cache, LOG_MOVE, layer)
			     : log_declare_locked(cache, LOG_MOVE, layer);
}

/* A closed layer with nothing cached is forgotten instead. */
static bool declare_again_relock(struct cache *cache, uint64_t segment)
{
	cache_assert_locked(cache);
	for (;;) {
		struct declared declared = {.segment = segment};

		layers_foreach(cache->layers, find_declared, &declared);
		if (!declared.found)
			return true;
		if (declared.found->opens == 0 && declared.found->live_blocks == 0 && !declared.found->zeros &&
		    !declared.found->incomplete) {
			layers_remove(cache->layers, declared.found);
			continue;
		}
		if (!declare_locked(cache, declared.found) &&
		    (!space_has_segments_locked(cache, LOG_MOVE) || !wake_wait_reclaim_relock(cache)))
			return false;
	}
}

static bool clear_segment_relock(struct cache *cache, uint64_t segment)
{
	cache_assert_locked(cache);
	while (cache->segments[segment].readers > 0)
		if (!wake_wait_reclaim_relock(cache))
			return false;
	for (unsigned i = 0; i < CACHE_SEGMENT_BLOCKS; i++)
		index_clear(cache->index, (uint32_t)(segment * CACHE_SEGMENT_BLOCKS + i));
	return true;
}

bool move_out_of_segment(struct cache *cache, uint64_t segment, unsigned *moved)
{
	struct victim victim = {.cache = cache, .segment = segment, .moved = moved};
	bool done;

	lock_take(&cache->lock);
	done = wait_for_buffer_relock(cache, segment);
	if (done)
		choose_locked(&victim);
	lock_let_go(&cache->lock);
	if (!done)
		return false;
	read_segment(&victim);
	if (!move_blocks(&victim))
		return false;
	lock_take(&cache->lock);
	done = events_move_relock(cache, segment) && declare_again_relock(cache, segment) &&
	       clear_segment_relock(cache, segment);
	if (done)
		cache->reclaim.unreadable = 0;
	lock_let_go(&cache->lock);
	return done;
}
