/* The reclaim thread: when segments are emptied, and how the tail follows.
 *
 * Below the low-water mark of free segments the oldest ones are emptied, a
 * batch of them: live blocks are moved or dropped (move.c). Then, in this
 * order: all that was moved is durable; the superblock with the new tail is
 * durable; the segments are free. A crash before that finds the old tail, and
 * the moved blocks twice, of which the later one counts.
 *
 * A lap of the ring always frees something: only then it runs at all (space_frees_locked()). On
 * the way there each segment may take a little more of the log than it frees: what else is
 * appended leaves room for that, and for one segment to be moved whole (log/space.c).
 *
 * A longer file joins the ring here too: with a superblock that names the
 * longer ring, written while the log from tail to head does not wrap. Until it
 * is known to be durable the head does not go past the old ring's end. */
#include "reclaim.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "core/counters.h"
#include "core/error.h"
#include "core/thread.h"
#include "cache/content/dirty.h"
#include "cache/format/super.h"
#include "cache/invariants.h"
#include "cache/log/log.h"
#include "cache/log/space.h"
#include "cache/log/wake.h"
#include "cache/removed.h"
#include "cache/watch.h"
#include "cache/writer/state.h"
#include "events.h"
#include "move.h"

/* Free segments that a batch which goes on must leave for its own moves. */
#define MOVE_SEGMENTS 2
#define RETRY_NS (2 * NS_PER_S)

/* ---- The superblock ------------------------------------------------------ */

static void fill_super_locked(struct cache *cache)
{
	struct cache_segment *tail = &cache->segments[cache->reclaim.segment];
	uint64_t head = segment_of(cache->log.head_slot);

	cache_assert_locked(cache);
	cache->super.tail_segment = le64_of(cache->reclaim.segment);
	cache->super.tail_sequence = le64_of(tail->sequence);
	cache->super.tail_previous = le64_of(tail->previous);
	if (cache->ring_segments < cache->segment_count && cache->reclaim.segment <= head &&
	    head < cache->ring_segments - 1)
		cache->growing = true;
	if (cache->growing)
		cache->super.ring_segments = le64_of(cache->segment_count);
}

static bool is_passed_locked(const struct cache *cache, uint32_t slot)
{
	uint64_t tail = cache->tail_segment * CACHE_SEGMENT_BLOCKS;
	uint64_t next = cache->reclaim.segment * CACHE_SEGMENT_BLOCKS;

	cache_assert_locked(cache);
	return cache_slot_distance(tail, slot, cache->ring_segments) <
	       cache_slot_distance(tail, next, cache->ring_segments);
}

/* A layer's first dirty block is not before the new tail. */
static void follow_tail(void *opaque, struct cache_layer *layer)
{
	struct cache *cache = opaque;
	struct epochs *epochs = layer->epochs;

	if (!epochs)
		return;
	if (is_passed_locked(cache, epochs->first))
		epochs->first = (uint32_t)(cache->reclaim.segment * CACHE_SEGMENT_BLOCKS);
}

/* The superblock says so: the segments before the new tail are free. */
static void free_segments_locked(struct cache *cache)
{
	bool full = !space_has_segments_locked(cache, LOG_BATCH);

	cache_assert_locked(cache);
	layers_foreach(cache->layers, follow_tail, cache);
	while (cache->tail_segment != cache->reclaim.segment) {
		cache->segments[cache->tail_segment].sequence = 0;
		cache->tail_segment = (cache->tail_segment + 1) % cache->ring_segments;
	}
	if (cache->growing) {
		cache->ring_segments = cache->segment_count;
		cache->growing = false;
	}
	cache->reclaim.super_failed = false;
	cache_resume_locked(cache);
	cache_dirty_catch_up_locked(cache);
	condition_broadcast(&cache->changed);
	wake_waiters_locked(cache);
	if (cache->degraded_layers > 0 || cache->owes)
		wake_writer_locked(cache);
	if (full)
		wake_migration_locked(cache);
}

/* False: the thread is to end. */
static bool pause_relock(struct cache *cache, uint64_t length_ns)
{
	cache_assert_locked(cache);
	if (!cache->reclaim.stop)
		lock_wait_until(&cache->lock, &cache->reclaim.wanted, loop_now_ns() + length_ns);
	return !cache->reclaim.stop;
}

/* Until it succeeds; false: the thread is to end. */
static bool write_super(struct cache *cache)
{
	for (;;) {
		struct cache_watch watch;
		bool go_on;
		int result;

		lock_take(&cache->lock);
		fill_super_locked(cache);
		watch_begin_locked(cache, &watch);
		lock_let_go(&cache->lock);
		result = cache_super_write(cache->storage.aio.buffered_fd, cache->storage.path, &cache->super);
		lock_take(&cache->lock);
		watch_end_locked(cache, &watch);
		if (result == 0) {
			free_segments_locked(cache);
			lock_let_go(&cache->lock);
			cache_announce(cache);
			return true;
		}
		cache->reclaim.super_failed = true;
		cache_suspend_locked(cache, result, "does not take its superblock");
		lock_let_go(&cache->lock);
		cache_announce(cache);
		lock_take(&cache->lock);
		go_on = pause_relock(cache, RETRY_NS);
		lock_let_go(&cache->lock);
		if (!go_on)
			return false;
	}
}

/* ---- Batches ------------------------------------------------------------- */

/* What is dirty in the oldest segment can only be moved: its image does not take it, or the
 * log no batch. */
static bool moves_dirty_locked(struct cache *cache)
{
	cache_assert_locked(cache);
	return space_may_move_dirty_locked(cache) && (!space_has_segments_locked(cache, LOG_BATCH) ||
						      events_segment_is_stuck_locked(cache, cache->reclaim.segment));
}

static bool is_wanted_locked(struct cache *cache)
{
	cache_assert_locked(cache);
	return space_wants_reclaim_locked(cache) || moves_dirty_locked(cache);
}

/* Whether the batch, of COUNT segments so far, is to go on. */
static bool goes_on_locked(struct cache *cache, unsigned count)
{
	uint64_t free_after = space_free_segments_locked(cache) + count;

	cache_assert_locked(cache);
	return count == 0 || ((space_has_victim_locked(cache) || moves_dirty_locked(cache)) &&
			      space_free_segments_locked(cache) >= MOVE_SEGMENTS &&
			      free_after < space_low_water_locked(cache) + space_low_water_locked(cache) / 2);
}

static unsigned empty_segments(struct cache *cache)
{
	unsigned count = 0;
	unsigned moved = 0;

	lock_take(&cache->lock);
	cache_dirty_pay_locked(cache, LOG_BATCH); /* while there is room for it: see cache_dirty_may_pass_locked() */
	while (goes_on_locked(cache, count)) {
		uint64_t segment = cache->reclaim.segment;
		bool emptied;

		lock_let_go(&cache->lock);
		emptied = move_out_of_segment(cache, segment, &moved);
		lock_take(&cache->lock);
		if (!emptied)
			break;
		cache->reclaim.segment = (segment + 1) % cache->ring_segments;
		count++;
	}
	lock_let_go(&cache->lock);
	counter_add(cache_reclaimed_segments, count);
	counter_add(cache_moved_blocks, moved);
	return count;
}

/* Everything until now is durable, and what must be in the log before the tail goes on;
 * false: the thread is to end. */
static bool flush(struct cache *cache)
{
	bool go_on = true;
	int result;

	LOCK_GUARD(&cache->lock);
	while (!cache_dirty_may_pass_locked(cache))
		if (!pause_relock(cache, RETRY_NS))
			return false;
	do {
		uint64_t sequence = log_flush_locked(cache);

		result = log_wait_durable_relock(cache, sequence);
		while (result < 0 && cache->state != CACHE_ACTIVE && go_on)
			go_on = wake_wait_reclaim_relock(cache);
	} while (result < 0 && go_on);
	return result == 0;
}

static void run_batch(struct cache *cache)
{
	bool done = empty_segments(cache) > 0;

	if (done && flush(cache))
		write_super(cache);
	if (done)
		return;
	LOCK_GUARD(&cache->lock);
	if (cache->state == CACHE_ACTIVE)
		pause_relock(cache, NS_PER_S);
}

/* What is dirty in the oldest segment may be so only for now. */
static void wait_relock(struct cache *cache)
{
	uint64_t until_ns = removed_next_ns_locked(cache);

	cache_assert_locked(cache);
	if (space_may_move_dirty_locked(cache))
		until_ns = MIN(until_ns, loop_now_ns() + NS_PER_S);
	lock_wait_until(&cache->lock, &cache->reclaim.wanted, until_ns);
}

static void *thread_main(void *opaque)
{
	struct cache *cache = opaque;

	lock_take(&cache->lock);
	while (!cache->reclaim.stop) {
		cache_check_locked(cache);
		if (loop_now_ns() >= removed_next_ns_locked(cache)) {
			removed_look_relock(cache);
			continue;
		}
		if (!is_wanted_locked(cache)) {
			wait_relock(cache);
			continue;
		}
		lock_let_go(&cache->lock);
		run_batch(cache);
		lock_take(&cache->lock);
	}
	lock_let_go(&cache->lock);
	return NULL;
}

bool reclaim_start(struct cache *cache, GError **error)
{
	int result;

	cache->reclaim.data = aligned_alloc(BLOCK_SIZE, CACHE_SEGMENT_BYTES);
	result = thread_spawn(&cache->reclaim.thread, "leafdisk-clean", THREAD_OTHER, thread_main, cache);
	return result == 0 || error_set_errno(error, -result, "cannot start the cache's reclaim thread");
}

void reclaim_stop(struct cache *cache)
{
	lock_take(&cache->lock);
	cache->reclaim.stop = true;
	condition_broadcast(&cache->reclaim.wanted);
	condition_broadcast(&cache->changed);
	lock_let_go(&cache->lock);
	pthread_join(cache->reclaim.thread, NULL);
	free(cache->reclaim.data);
}
