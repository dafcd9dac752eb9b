/* Who looks again, and what wakes him.
 *
 *     writer's thread   writer.task, posted once however often it is wanted
 *     reclaim thread    reclaim.wanted: a victim; changed: what it waits for midway
 *     migration         work, with `kicked`
 *     cache_wait()      the waiter's task, on its loop
 *     cache_flush()     the flush's task, on its loop
 *     blocked callers   changed */
#include "wake.h"

#include <errno.h>

#include "cache/block.h"
#include "cache/writeback.h"
#include "cache/invariants.h"
#include "core/time.h"
#include "space.h"

#define SEAL_NS (200 * NS_PER_MS)

/* ---- The writer's thread ------------------------------------------------- */

void wake_writer_locked(struct cache *cache)
{
	struct writer *writer = &cache->writer;

	cache_assert_locked(cache);
	writer->wanted = true;
	if (writer->held || writer->posted || !cache->started)
		return;
	writer->posted = true;
	loop_post(writer->loop, &writer->task);
}

void wake_to_seal_locked(struct cache *cache)
{
	struct writer *writer = &cache->writer;

	cache_assert_locked(cache);
	writer->seal_at_ns = loop_now_ns() + SEAL_NS;
	/* It looks at the time when it wakes. */
	if (writer->next_look_ns > writer->seal_at_ns)
		wake_writer_locked(cache);
}

void wake_to_sync_locked(struct cache *cache, uint64_t sequence)
{
	cache_assert_locked(cache);
	cache->writer.sync_wanted = MAX(cache->writer.sync_wanted, sequence);
	wake_writer_locked(cache);
}

void wake_to_sync_before_locked(struct cache *cache, uint64_t until_ns)
{
	struct writer *writer = &cache->writer;

	cache_assert_locked(cache);
	if (writer->sync_at_ns == 0 || until_ns < writer->sync_at_ns)
		writer->sync_at_ns = until_ns;
	wake_writer_locked(cache);
}

/* ---- Migration ----------------------------------------------------------- */

void wake_migration_locked(struct cache *cache)
{
	cache_assert_locked(cache);
	cache->kicked = true;
	condition_signal(&cache->work);
}

void cache_kick(struct cache *cache)
{
	LOCK_GUARD(&cache->lock);
	wake_migration_locked(cache);
}

void cache_wait_work(struct cache *cache, uint64_t until_ns)
{
	LOCK_GUARD(&cache->lock);
	while (!cache->kicked && lock_wait_until(&cache->lock, &cache->work, until_ns))
		;
	cache->kicked = false;
	cache_check_locked(cache);
}

/* ---- The reclaim thread -------------------------------------------------- */

void wake_reclaim_locked(struct cache *cache)
{
	cache_assert_locked(cache);
	if (space_wants_reclaim_locked(cache) || space_may_move_dirty_locked(cache))
		condition_signal(&cache->reclaim.wanted);
	if (space_is_blocked_locked(cache))
		wake_migration_locked(cache);
}

bool wake_wait_reclaim_relock(struct cache *cache)
{
	cache_assert_locked(cache);
	cache->reclaim.waiting = true;
	if (!cache->reclaim.stop)
		lock_wait(&cache->lock, &cache->changed);
	cache->reclaim.waiting = false;
	return !cache->reclaim.stop;
}

/* ---- Who waits for room -------------------------------------------------- */

void wake_waiters_locked(struct cache *cache)
{
	bool room = cache->state != CACHE_ACTIVE || space_has_room_locked(cache, LOG_PUT) ||
		    space_is_hopeless_locked(cache);
	struct list waiters;
	struct list *node;

	cache_assert_locked(cache);
	if (!room || list_is_empty(&cache->waiters))
		return;
	list_init(&waiters);
	list_splice(&waiters, &cache->waiters);
	while ((node = list_pop(&waiters))) {
		struct cache_waiter *waiter = container_of(node, struct cache_waiter, link);

		if (cache->state == CACHE_ACTIVE && waiter->layer && !space_takes_dirty_locked(waiter->layer))
			list_append(&cache->waiters, node);
		else
			loop_post(waiter->loop, &waiter->task);
	}
}

void cache_wake(struct cache *cache)
{
	struct list *node;

	LOCK_GUARD(&cache->lock);
	while ((node = list_pop(&cache->waiters))) {
		struct cache_waiter *waiter = container_of(node, struct cache_waiter, link);

		loop_post(waiter->loop, &waiter->task);
	}
}

void cache_wait(struct cache *cache, struct cache_waiter *waiter)
{
	LOCK_GUARD(&cache->lock);
	list_append(&cache->waiters, &waiter->link);
	wake_waiters_locked(cache);
}

/* ---- Who waits for a flush ----------------------------------------------- */

void wake_flush_locked(struct cache *cache, struct cache_flush *flush, int result)
{
	cache_assert_locked(cache);
	flush->result = result;
	loop_post(aio_queue_loop(flush->queue), &flush->task);
}

static struct cache_flush *flush_of(struct list *node)
{
	return container_of(node, struct cache_flush, link);
}

void wake_flushes_locked(struct cache *cache)
{
	struct list *node;

	cache_assert_locked(cache);
	while ((node = list_first(&cache->flushes))) {
		bool durable = flush_of(node)->sequence <= cache->log.durable;

		if (!durable && cache->state == CACHE_ACTIVE)
			return;
		list_remove(node);
		wake_flush_locked(cache, flush_of(node), durable ? 0 : -EIO);
	}
}
