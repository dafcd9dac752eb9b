/* Lookups and reads.
 *
 * A live block answers first, then the layer's zeros: a block that was put
 * hides the zeros under it. A run of slots is copied from the buffer that is
 * bound to its segment, or else read from the file on the caller's queue, with
 * the segment held by its count of readers, so that neither data nor index
 * entries of the run go away meanwhile; superseded they may be.
 *
 * What recovery found is checked against its checksum when it is read first.
 * Damage of what is still the newest content: a clean block is forgotten, a
 * pinned one is LOST until it is written again. A read that fails says nothing
 * about the data: a pinned block may be read the next time. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "cache/block.h"
#include "core/counters.h"
#include "core/log.h"
#include "cache/log/log.h"
#include "cache/watch.h"
#include "layer.h"

/* Longer looks cost more than they are worth while the lock is held. */
#define LOOKUP_BLOCKS_MAX 65536
/* From here on all that the index has is looked at. */
#define NEAR_BLOCKS_MAX (64 * LOOKUP_BLOCKS_MAX)
#define READ_BLOCKS_MAX 256

/* ---- Lookup -------------------------------------------------------------- */

/* Of a silent file only what is in memory, or nobody else has. */
static bool is_to_be_had_locked(const struct cache *cache, uint32_t slot)
{
	const struct cache_buffer *buffer = cache->segments[segment_of(slot)].buffer;
	struct index_entry entry;

	cache_assert_locked(cache);
	index_get(cache->index, slot, &entry);
	return (entry.flags & INDEX_PINNED) || (buffer && block_in_segment(slot) >= buffer->first);
}

static struct cache_extent hit_locked(const struct cache_layer *layer, uint32_t slot, uint64_t block, uint64_t limit)
{
	struct cache *cache = layer->cache;

	cache_assert_locked(layer->cache);
	if (cache->silent)
		return (struct cache_extent){is_to_be_had_locked(cache, slot) ? CACHE_HIT : CACHE_MISS, 1};
	return (struct cache_extent){CACHE_HIT, index_run(cache->index, slot, layer->id, block, limit)};
}

static struct cache_extent lookup_locked(const struct cache_layer *layer, uint64_t block, uint64_t limit,
					 uint32_t *slot)
{
	struct index *index = layer->cache->index;
	bool zero = false;
	uint64_t run;

	cache_assert_locked(layer->cache);
	*slot = INDEX_NO_SLOT;
	if (layer->status.state != CACHE_LAYER_ACTIVE)
		return (struct cache_extent){CACHE_MISS, limit};
	if (layer->live_blocks > 0)
		*slot = index_find(index, layer->id, block);
	if (*slot != INDEX_NO_SLOT)
		return hit_locked(layer, *slot, block, limit);
	run = layer->live_blocks > 0 ? index_gap(index, layer->id, block, limit) : limit;
	if (layer->zeros)
		zero = intervals_contains(layer->zeros, block, run, &run);
	return (struct cache_extent){zero ? CACHE_ZERO : CACHE_MISS, run};
}

struct cache_extent cache_lookup(struct cache_layer *layer, uint64_t block, uint64_t limit)
{
	uint32_t slot;

	LOCK_GUARD(&layer->cache->lock);
	return lookup_locked(layer, block, MIN(limit, LOOKUP_BLOCKS_MAX), &slot);
}

/* The blocks from BLOCK on, up to LIMIT, of which the layer has none live. */
static uint64_t far_gap_relock(const struct cache_layer *layer, uint64_t block, uint64_t limit)
{
	struct cache *cache = layer->cache;
	struct index_walk walk;

	cache_assert_locked(layer->cache);
	if (layer->live_blocks == 0)
		return limit;
	index_walk_begin(cache->index, &walk, layer->id, block, limit);
	while (!index_walk_on(cache->index, &walk)) {
		lock_let_go(&cache->lock);
		lock_take(&cache->lock);
	}
	index_walk_end(&walk);
	return walk.gap;
}

/* NEAR is MISS or ZERO. Where the layer began anew meanwhile it is good as it is. */
static struct cache_extent extend_far(struct cache_layer *layer, uint64_t block, uint64_t limit,
				      struct cache_extent near)
{
	struct cache_extent far = {CACHE_MISS, limit};
	uint32_t id;
	bool same;

	LOCK_GUARD(&layer->cache->lock);
	id = layer->id;
	if (layer->status.state == CACHE_LAYER_ACTIVE)
		far.blocks = near.blocks + far_gap_relock(layer, block + near.blocks, limit - near.blocks);
	if (layer->status.state == CACHE_LAYER_ACTIVE && layer->zeros &&
	    intervals_contains(layer->zeros, block, far.blocks, &far.blocks))
		far.answer = CACHE_ZERO;
	same = layer->id == id;
	return same ? far : near;
}

struct cache_extent cache_lookup_far(struct cache_layer *layer, uint64_t block, uint64_t limit)
{
	struct cache_extent all = cache_lookup(layer, block, limit), next = all;

	while (next.answer == all.answer && next.blocks == LOOKUP_BLOCKS_MAX && all.blocks < limit) {
		if (all.answer != CACHE_HIT && all.blocks >= NEAR_BLOCKS_MAX)
			return extend_far(layer, block, limit, all);
		next = cache_lookup(layer, block + all.blocks, limit - all.blocks);
		if (next.answer == all.answer)
			all.blocks += next.blocks;
	}
	return all;
}

/* ---- Damage -------------------------------------------------------------- */

/* The result of a read in which SLOT's data was bad, or could not be read
 * (LOST false). */
static int give_up_locked(struct cache *cache, uint32_t slot, bool lost)
{
	struct index_entry entry;
	struct cache_layer *layer;

	cache_assert_locked(cache);
	index_get(cache->index, slot, &entry);
	layer = layers_by_id(cache->layers, entry.layer);
	if (!layer || !(entry.flags & INDEX_LIVE))
		return -EAGAIN;
	counter_add(cache_damaged_blocks, 1);
	if (entry.flags & INDEX_PINNED) {
		if (lost)
			index_set_flags(cache->index, slot, INDEX_LOST, 0);
		return -EIO;
	}
	index_remove(cache->index, entry.layer, entry.block);
	cache_layer_account_locked(layer, entry.flags, -1);
	return -EAGAIN;
}

/* Whether this is the first damage; the message is not for under the lock. */
static bool note_damage_locked(struct cache *cache)
{
	bool first = !cache->damage_logged;

	cache_assert_locked(cache);
	cache->damage_logged = true;
	return first;
}

static void log_damage(const struct cache *cache, const char *what)
{
	log_warning("cache: %s: cached blocks %s; what is damaged is not used, and counted as cache_damaged_blocks",
		    cache->storage.path, what);
}

/* ---- Checking ------------------------------------------------------------ */

struct check {
	uint32_t slots[READ_BLOCKS_MAX];
	uint32_t checksums[READ_BLOCKS_MAX];
	bool right[READ_BLOCKS_MAX];
	unsigned count;
};

static void collect_unproven_locked(const struct cache_io *io, unsigned blocks, struct check *check)
{
	cache_assert_locked(io->cache);
	check->count = 0;
	for (unsigned i = 0; i < blocks; i++) {
		struct index_entry entry;

		index_get(io->cache->index, io->slot + i, &entry);
		if (entry.flags & INDEX_PROVEN)
			continue;
		check->slots[check->count] = io->slot + i;
		check->checksums[check->count++] = entry.checksum;
	}
}

static void run_checks(const struct cache_io *io, struct check *check)
{
	for (unsigned i = 0; i < check->count; i++) {
		const uint8_t *data =
			(const uint8_t *)io->buffer + ((size_t)(check->slots[i] - io->slot) << BLOCK_SHIFT);

		check->right[i] = cache_checksum_short(cache_data_checksum(data)) == check->checksums[i];
	}
}

static int apply_checks_locked(struct cache *cache, const struct check *check, bool *first)
{
	int result = 0;

	cache_assert_locked(cache);
	for (unsigned i = 0; i < check->count; i++) {
		int one = 0;

		if (check->right[i])
			index_set_flags(cache->index, check->slots[i], INDEX_PROVEN, 0);
		else
			one = give_up_locked(cache, check->slots[i], true);
		if (one < 0)
			*first |= note_damage_locked(cache);
		if (one == -EIO || result == 0)
			result = one;
	}
	return result;
}

/* ---- Reads from the file ------------------------------------------------- */

static void release_segment_locked(struct cache *cache, uint32_t slot)
{
	struct cache_segment *segment = &cache->segments[segment_of(slot)];

	cache_assert_locked(cache);
	if (--segment->readers == 0 && cache->reclaim.waiting)
		condition_broadcast(&cache->changed);
}

static int settle_failed_locked(struct cache_io *io, unsigned blocks, bool *first)
{
	int result = -EAGAIN;

	cache_assert_locked(io->cache);
	for (unsigned i = 0; i < blocks; i++)
		if (give_up_locked(io->cache, io->slot + i, false) == -EIO)
			result = -EIO;
	*first = note_damage_locked(io->cache);
	return result;
}

static void read_done(struct aio_request *request, int result)
{
	struct cache_io *io = container_of(request, struct cache_io, aio);
	unsigned blocks = request->length >> BLOCK_SHIFT;
	struct cache *cache = io->cache;
	bool failed = result < 0, first = false;
	struct check check;

	lock_take(&cache->lock);
	check.count = 0;
	if (failed)
		result = settle_failed_locked(io, blocks, &first);
	else
		collect_unproven_locked(io, blocks, &check);
	if (check.count > 0) {
		lock_let_go(&cache->lock);
		run_checks(io, &check);
		lock_take(&cache->lock);
		result = apply_checks_locked(cache, &check, &first);
	}
	release_segment_locked(cache, io->slot);
	watch_end_locked(cache, &io->watch);
	lock_let_go(&cache->lock);
	if (first)
		log_damage(cache, failed ? "cannot be read" : "are not what was put");
	io->done(io, result);
}

static void submit_read(struct cache_io *io, uint64_t blocks)
{
	io->aio = (struct aio_request){
		.op = AIO_READ,
		.file = io->aio.file,
		.buffer = io->buffer,
		.offset = cache_slot_offset(io->slot),
		.length = (uint32_t)(blocks << BLOCK_SHIFT),
		.needed = (uint32_t)(blocks << BLOCK_SHIFT),
		.done = read_done,
	};
	aio_submit(io->queue, &io->aio);
}

/* ---- Reads --------------------------------------------------------------- */

static void answer(struct loop_task *task)
{
	struct cache_io *io = container_of(task, struct cache_io, task);

	io->done(io, io->result);
}

static void answer_later(struct cache_io *io, int result)
{
	io->result = result;
	io->task.run = answer;
	loop_post(aio_queue_loop(io->queue), &io->task);
}

/* The part of the run that can be read at once: before the first block that is
 * lost, or from where its buffer begins. 0: the first one is lost. */
static uint64_t trim_run_locked(struct cache *cache, uint32_t slot, uint64_t blocks)
{
	const struct cache_buffer *buffer = cache->segments[segment_of(slot)].buffer;
	unsigned first = block_in_segment(slot);

	cache_assert_locked(cache);
	if (buffer && first < buffer->first)
		blocks = MIN(blocks, buffer->first - first);
	for (uint64_t i = 0; i < blocks; i++) {
		struct index_entry entry;

		index_get(cache->index, slot + (uint32_t)i, &entry);
		if (entry.flags & INDEX_LOST)
			return i;
		if (!(entry.flags & INDEX_HOT))
			index_set_flags(cache->index, slot + (uint32_t)i, INDEX_HOT, 0);
	}
	return blocks;
}

/* The buffer that has the run, held, or NULL: the file, held. */
static struct cache_buffer *hold_locked(struct cache *cache, uint32_t slot)
{
	struct cache_segment *segment = &cache->segments[segment_of(slot)];

	cache_assert_locked(cache);
	if (segment->buffer && block_in_segment(slot) >= segment->buffer->first) {
		segment->buffer->references++;
		return segment->buffer;
	}
	segment->readers++;
	return NULL;
}

static void copy_from_buffer(struct cache_io *io, struct cache_buffer *buffer, uint64_t blocks)
{
	memcpy(io->buffer, slot_data(buffer->data, io->slot), blocks << BLOCK_SHIFT);
	lock_take(&io->cache->lock);
	log_put_buffer_locked(io->cache, buffer);
	lock_let_go(&io->cache->lock);
	answer_later(io, 0);
}

static void read_hit(struct cache_io *io, struct cache_buffer *buffer, uint64_t blocks)
{
	counter_add(cache_hits, MAX(blocks, 1));
	if (blocks == 0)
		answer_later(io, -EIO);
	else if (buffer)
		copy_from_buffer(io, buffer, blocks);
	else
		submit_read(io, blocks);
}

struct cache_extent cache_read(struct cache_io *io)
{
	struct cache *cache = io->layer->cache;
	struct cache_buffer *buffer = NULL;
	struct cache_extent extent;
	uint64_t blocks = 0;

	io->cache = cache;
	lock_take(&cache->lock);
	extent = lookup_locked(io->layer, io->block, MIN(io->blocks, READ_BLOCKS_MAX), &io->slot);
	if (extent.answer == CACHE_HIT)
		blocks = trim_run_locked(cache, io->slot, extent.blocks);
	if (blocks > 0)
		io->aio.file = cache_file_of_locked(cache, io->slot);
	if (blocks > 0)
		buffer = hold_locked(cache, io->slot);
	if (blocks > 0 && !buffer)
		watch_begin_locked(cache, &io->watch);
	io->buffered = buffer;
	lock_let_go(&cache->lock);
	if (extent.answer == CACHE_HIT) {
		extent.blocks = MAX(blocks, 1);
		log_debug_data(LOG_CACHE, "%s: read of %" PRIu64 " blocks at %" PRIu64, io->layer->name, extent.blocks,
			       io->block);
		read_hit(io, buffer, blocks);
	}
	return extent;
}
