/* What callers change: put, zero, forget.
 *
 * A put reserves under the lock, copies without it, and publishes under it: a
 * block is found at its new slot only when its data is there. Reserved and not
 * published, it has marked the slot that it will supersede BUSY (invariant 7).
 * A layer that was dropped meanwhile has a new id or none: nothing is
 * published then, and what the log has under the old id is void. */
#include "put.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "cache/block.h"
#include "core/counters.h"
#include "cache/log/entry.h"
#include "cache/log/log.h"
#include "cache/log/space.h"
#include "cache/log/wake.h"
#include "dirty.h"
#include "layer.h"
#include "core/log.h"

#define CACHE_LINE_BYTES 64

/* Where the next put will write. The device has read those lines, so a store has
 * to fetch each from another processor: that goes on while the guest is answered. */
static void prefetch_next(const struct log_grant *grant)
{
	const uint8_t *next = grant->data + ((size_t)grant->blocks << BLOCK_SHIFT);

	if (block_in_segment(grant->slot + grant->blocks) == 0)
		return;
	for (unsigned i = 0; i < BLOCK_SIZE; i += CACHE_LINE_BYTES)
		__builtin_prefetch(next + i, 1);
}

void content_copy(const struct log_grant *grant, const uint8_t *data)
{
	memcpy(grant->data, data, (size_t)grant->blocks << BLOCK_SHIFT);
	for (unsigned i = 0; i < grant->blocks; i++)
		grant->words[i] = le64_of(cache_data_checksum(grant->data + ((size_t)i << BLOCK_SHIFT)));
	prefetch_next(grant);
}

void content_publish_locked(struct cache *cache, struct cache_layer *layer, const struct log_grant *grant, unsigned at,
			    unsigned flags)
{
	struct index_entry entry = {
		.layer = grant->layer,
		.block = grant->block + at,
		.flags = flags,
		.checksum = cache_checksum_short(le64_get(grant->words[at])),
		.order = grant->order,
	};
	uint32_t superseded = index_insert(cache->index, grant->slot + at, &entry);

	cache_assert_locked(cache);
	if (superseded != INDEX_NO_SLOT) {
		index_get(cache->index, superseded, &entry);
		cache_layer_account_locked(layer, entry.flags, -1);
	}
	cache_layer_account_locked(layer, flags, 1);
}

/* ---- Put ----------------------------------------------------------------- */

/* How many of the blocks may be pinned; *NEW of them are not yet. */
static uint64_t pinnable_locked(struct cache_layer *layer, uint64_t block, uint64_t blocks, uint64_t *new_blocks)
{
	struct cache *cache = layer->cache;
	uint64_t most = space_pinned_max_locked(cache);
	uint64_t taken = cache->pinned_blocks + cache->pinned_pending + cache->dirty_slots;
	uint64_t i;

	cache_assert_locked(layer->cache);
	*new_blocks = 0;
	for (i = 0; i < blocks; i++) {
		uint32_t slot = index_find(cache->index, layer->id, block + i);
		struct index_entry entry = {0};

		if (slot != INDEX_NO_SLOT)
			index_get(cache->index, slot, &entry);
		if (entry.flags & INDEX_PINNED)
			continue;
		if (taken + *new_blocks >= most)
			break;
		++*new_blocks;
	}
	return i;
}

static enum cache_place place_of_locked(const struct cache *cache, uint32_t slot)
{
	const struct cache_buffer *buffer;

	cache_assert_locked(cache);
	if (slot == INDEX_NO_SLOT)
		return CACHE_NOWHERE;
	buffer = cache->segments[segment_of(slot)].buffer;
	return buffer && block_in_segment(slot) >= buffer->first ? CACHE_IN_BUFFER : CACHE_IN_LOG;
}

static void note_found(struct cache_found *found, enum cache_place place, bool first)
{
	found->blocks[place]++;
	found->last = place;
	if (first)
		found->first = place;
}

static void mark_busy_locked(struct cache *cache, const struct log_grant *grant, struct cache_found *found)
{
	cache_assert_locked(cache);
	for (unsigned i = 0; i < grant->blocks; i++) {
		uint32_t slot = index_find(cache->index, grant->layer, grant->block + i);

		note_found(found, place_of_locked(cache, slot), i == 0);
		if (slot != INDEX_NO_SLOT)
			index_set_flags(cache->index, slot, INDEX_BUSY, 0);
	}
}

static const char FULL[] = "the cache's log is full of blocks that are not in the pool";

struct put {
	struct log_grant grant;
	enum { PUT_CLEAN, PUT_PINNED, PUT_DIRTY } kind;
	bool overwrites;  /* the same slots again */
	uint64_t charged; /* to pinned_pending */
	struct cache_found found;
};

/* Only a layer that is written back itself waits until others are. */
static bool is_room_of_others_locked(const struct cache_layer *layer)
{
	cache_assert_locked(layer->cache);
	return !layer->epochs && space_is_blocked_locked(layer->cache);
}

static int no_room_locked(struct cache_layer *layer)
{
	struct cache *cache = layer->cache;

	cache_assert_locked(cache);
	if (space_is_hopeless_locked(cache))
		return -ENOSPC;
	wake_reclaim_locked(cache);
	wake_migration_locked(cache);
	if (is_room_of_others_locked(layer))
		return -ENOSPC;
	counter_add(cache_waits, 1);
	return -EAGAIN;
}

static int reserve_new_locked(struct cache_layer *layer, uint64_t block, uint64_t blocks, struct put *put)
{
	enum cache_entry_kind kind = put->kind == PUT_CLEAN ? CACHE_ENTRY_CLEAN : CACHE_ENTRY_DIRTY;
	struct cache *cache = layer->cache;

	cache_assert_locked(layer->cache);
	if (put->kind == PUT_PINNED)
		blocks = pinnable_locked(layer, block, blocks, &put->charged);
	if (blocks == 0)
		return -ENOSPC;
	if (put->kind == PUT_DIRTY)
		cache_dirty_bound_epoch_locked(layer);
	if ((put->kind == PUT_DIRTY && !space_takes_dirty_locked(layer)) ||
	    !log_reserve_locked(cache, LOG_PUT, layer, kind, block, blocks, &put->grant))
		return no_room_locked(layer);
	if (put->kind == PUT_PINNED)
		(void)pinnable_locked(layer, block, put->grant.blocks, &put->charged);
	if (put->kind == PUT_DIRTY)
		cache_dirty_reserve_locked(layer, put->grant.slot, put->grant.blocks);
	cache->pinned_pending += put->charged;
	return 0;
}

/* A copy of the image's block is older than whatever came meanwhile. */
static bool is_outdated_locked(const struct cache_layer *layer, const struct put *put, uint64_t block)
{
	cache_assert_locked(layer->cache);
	if (put->kind != PUT_CLEAN || !layer->epochs)
		return false;
	return index_find(layer->cache->index, layer->id, block) != INDEX_NO_SLOT ||
	       (layer->zeros && intervals_contains(layer->zeros, block, 1, NULL));
}

/* How many of BLOCKS may enter the log: behind what is dirty, a copy of the
 * image would be what a restart finds. While a dirty put is under way
 * the index does not tell which blocks are dirty, so none may. */
static uint64_t loggable_locked(const struct cache_layer *layer, const struct put *put, uint64_t block, uint64_t blocks)
{
	uint64_t i = 0;

	cache_assert_locked(layer->cache);
	if (put->kind == PUT_CLEAN && layer->dirty_puts > 0)
		return 0;
	while (i < blocks && !is_outdated_locked(layer, put, block + i))
		i++;
	return i;
}

/* 0, or -errno of cache_put(). */
static int reserve_locked(struct cache_layer *layer, uint64_t block, uint64_t blocks, struct put *put)
{
	struct cache *cache = layer->cache;
	int result = 0;

	cache_assert_locked(layer->cache);
	if (cache->state != CACHE_ACTIVE || layer->status.state != CACHE_LAYER_ACTIVE)
		return -EIO;
	blocks = loggable_locked(layer, put, block, MIN(blocks, CACHE_SEGMENT_BLOCKS));
	if (blocks == 0)
		return -EAGAIN;
	put->overwrites = put->kind == PUT_DIRTY && log_overwrite_locked(cache, layer, block, blocks, &put->grant);
	if (!put->overwrites)
		result = reserve_new_locked(layer, block, blocks, put);
	if (result < 0)
		return result;
	if (put->kind == PUT_DIRTY)
		layer->dirty_puts++;
	mark_busy_locked(cache, &put->grant, &put->found);
	return 0;
}

static void publish_block_locked(struct cache_layer *layer, const struct put *put, unsigned at)
{
	unsigned flags = INDEX_PROVEN | (put->kind == PUT_CLEAN ? 0 : INDEX_PINNED);
	struct cache *cache = layer->cache;
	uint32_t slot = put->grant.slot + at;

	cache_assert_locked(layer->cache);
	if (is_outdated_locked(layer, put, put->grant.block + at))
		return;
	if (!put->overwrites) {
		content_publish_locked(cache, layer, &put->grant, at, flags);
		return;
	}
	index_set_checksum(cache->index, slot, cache_checksum_short(le64_get(put->grant.words[at])));
	index_set_flags(cache->index, slot, 0, INDEX_BUSY);
}

/* False: the layer was dropped meanwhile. */
static bool publish_locked(struct cache_layer *layer, const struct put *put)
{
	struct cache *cache = layer->cache;
	bool wanted = layer->id == put->grant.layer && layer->status.state == CACHE_LAYER_ACTIVE;

	cache_assert_locked(layer->cache);
	for (unsigned i = 0; wanted && i < put->grant.blocks; i++)
		publish_block_locked(layer, put, i);
	if (!wanted && put->kind == PUT_DIRTY && !put->overwrites)
		cache_dirty_cancel_locked(layer, put->grant.slot, put->grant.blocks);
	if (put->kind == PUT_DIRTY)
		layer->dirty_puts--;
	cache->pinned_pending -= put->charged;
	log_copied_locked(cache, put->grant.record);
	if (cache->reclaim.waiting)
		condition_broadcast(&cache->changed);
	return wanted;
}

static int64_t put_run(struct cache_layer *layer, uint64_t block, uint64_t blocks, const uint8_t *data, bool newer,
		       struct cache_found *found)
{
	struct cache *cache = layer->cache;
	struct put put = {.kind = PUT_CLEAN};
	int result;

	lock_take(&cache->lock);
	if (newer)
		put.kind = layer->epochs ? PUT_DIRTY : PUT_PINNED;
	result = reserve_locked(layer, block, blocks, &put);
	lock_let_go(&cache->lock);
	if (result < 0)
		return result;
	content_copy(&put.grant, data);
	lock_take(&cache->lock);
	if (!publish_locked(layer, &put))
		result = -EIO;
	lock_let_go(&cache->lock);
	if (result < 0)
		return result;
	counter_add(cache_put_blocks, put.grant.blocks);
	counter_add(cache_overwritten_blocks, put.overwrites ? put.grant.blocks : 0);
	*found = put.found;
	return put.grant.blocks;
}

/* MORE is of the blocks behind those of FOUND. */
static void join_found(struct cache_found *found, const struct cache_found *more, bool first)
{
	for (unsigned i = 0; i < G_N_ELEMENTS(found->blocks); i++)
		found->blocks[i] += more->blocks[i];
	found->last = more->last;
	if (first)
		found->first = more->first;
}

int64_t cache_put_over(struct cache_layer *layer, uint64_t block, uint64_t blocks, const void *data, bool newer,
		       struct cache_found *found)
{
	const uint8_t *from = data;
	struct cache_found run;
	uint64_t done = 0;

	log_debug_data(LOG_CACHE, "%s: put of %" PRIu64 " blocks at %" PRIu64, layer->name, blocks, block);
	*found = (struct cache_found){0};
	while (done < blocks) {
		int64_t count = put_run(layer, block + done, blocks - done, from + (done << BLOCK_SHIFT), newer, &run);

		if (count < 0)
			return done ? (int64_t)done : count;
		join_found(found, &run, done == 0);
		done += (uint64_t)count;
	}
	return (int64_t)done;
}

int64_t cache_put(struct cache_layer *layer, uint64_t block, uint64_t blocks, const void *data, bool newer)
{
	struct cache_found found;

	return cache_put_over(layer, block, blocks, data, newer, &found);
}

/* ---- Zero and forget ----------------------------------------------------- */

static void removed(void *opaque, uint32_t slot, const struct index_entry *entry)
{
	(void)slot;
	cache_layer_account_locked(opaque, entry->flags, -1);
}

static void remove_range_locked(struct cache_layer *layer, uint64_t block, uint64_t blocks)
{
	cache_assert_locked(layer->cache);
	if (layer->live_blocks > 0)
		index_remove_range(layer->cache->index, layer->id, block, blocks, removed, layer);
}

/* One more range is allowed, or this one joins another. */
static bool zero_range_fits_locked(const struct cache_layer *layer, uint64_t block, uint64_t blocks)
{
	uint64_t from = block > 0 ? block - 1 : 0;
	uint64_t count = block + blocks + 1 - from;
	uint64_t run;

	cache_assert_locked(layer->cache);
	return intervals_length(layer->zeros) < LAYER_ZERO_RANGES_MAX ||
	       intervals_contains(layer->zeros, from, count, &run) || run < count;
}

static void set_zero_locked(struct cache_layer *layer, uint64_t block, uint64_t blocks)
{
	cache_assert_locked(layer->cache);
	if (!layer->zeros)
		layer->zeros = intervals_new();
	intervals_add(layer->zeros, block, blocks);
	remove_range_locked(layer, block, blocks);
}

static int put_dirty_zero_locked(struct cache_layer *layer, uint64_t block, uint64_t blocks)
{
	struct cache *cache = layer->cache;
	struct epoch_place place;

	cache_assert_locked(layer->cache);
	if (cache->state != CACHE_ACTIVE || layer->status.state != CACHE_LAYER_ACTIVE)
		return -EIO;
	cache_dirty_bound_epoch_locked(layer);
	if (!space_takes_dirty_locked(layer) || !log_declare_if_needed_locked(cache, LOG_PUT, layer) ||
	    !log_zero_locked(layer, block, blocks, &place))
		return no_room_locked(layer);
	cache_dirty_zero_locked(layer, place, block, blocks);
	set_zero_locked(layer, block, blocks);
	return 0;
}

static int put_pinned_zero_locked(struct cache_layer *layer, uint64_t block, uint64_t blocks)
{
	cache_assert_locked(layer->cache);
	if (!layer->zeros)
		layer->zeros = intervals_new();
	if (!zero_range_fits_locked(layer, block, blocks))
		return -ENOSPC;
	set_zero_locked(layer, block, blocks);
	return 0;
}

int cache_put_zero(struct cache_layer *layer, uint64_t block, uint64_t blocks)
{
	struct cache *cache = layer->cache;
	int result = -EOPNOTSUPP;

	LOCK_GUARD(&cache->lock);
	if (layer->epochs)
		result = put_dirty_zero_locked(layer, block, blocks);
	else if (layer->is_volatile)
		result = put_pinned_zero_locked(layer, block, blocks);
	return result;
}

static int forget_locked(struct cache_layer *layer, uint64_t block, uint64_t blocks)
{
	struct cache *cache = layer->cache;

	cache_assert_locked(layer->cache);
	if (layer->declared && !log_forget_locked(layer, block, blocks)) {
		if (cache->state != CACHE_ACTIVE || space_is_hopeless_locked(cache) ||
		    is_room_of_others_locked(layer)) {
			cache_layer_degrade_locked(layer, cache->state != CACHE_ACTIVE ? cache->reason : FULL);
			return 0;
		}
		wake_reclaim_locked(cache);
		return -EAGAIN;
	}
	remove_range_locked(layer, block, blocks);
	if (layer->zeros)
		intervals_remove(layer->zeros, block, blocks);
	return 0;
}

int cache_forget(struct cache_layer *layer, uint64_t block, uint64_t blocks)
{
	int result = 0;

	LOCK_GUARD(&layer->cache->lock);
	if (layer->status.state == CACHE_LAYER_ACTIVE)
		result = forget_locked(layer, block, blocks);
	return result;
}
