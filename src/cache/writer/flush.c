/* Flushes of a layer.
 *
 * A flush is the end of an epoch of its layer and everything before it
 * durable. Flushes that come while one is under way share the next: the record
 * with the barrier is closed and written at once, and the writer flushes the
 * file for all that are written. A flush that finds nothing under way writes
 * its one record itself, durably: two threads less to wake. */
#include <errno.h>

#include "cache/writeback.h"
#include "cache/content/dirty.h"
#include "cache/log/wake.h"
#include "writeout.h"
#include "writer.h"

static void want_flush_locked(struct cache *cache, const struct cache_flush *flush)
{
	cache_assert_locked(cache);
	if (cache->barrier_deadline_ns)
		wake_to_sync_before_locked(cache, loop_now_ns() + cache->barrier_deadline_ns);
	else if (!writeout_write_durable_locked(cache, flush->queue))
		wake_to_sync_locked(cache, flush->sequence);
}

static int begin_flush_locked(struct cache_layer *layer, struct cache_flush *flush)
{
	struct cache *cache = layer->cache;

	cache_assert_locked(layer->cache);
	if (!cache_dirty_barrier_locked(layer, LOG_ENTRY))
		return -EAGAIN;
	flush->sequence = layer->barrier_sequence;
	flush->result = 0;
	if (flush->sequence <= cache->log.durable) {
		wake_flush_locked(cache, flush, 0);
		return 0;
	}
	list_append(&cache->flushes, &flush->link);
	want_flush_locked(cache, flush);
	return 0;
}

/* The writer's thread is not woken for what is written from here. */
static int flush_locked(struct cache_layer *layer, struct cache_flush *flush)
{
	struct cache *cache = layer->cache;
	int result;

	cache_assert_locked(layer->cache);
	if (cache->state != CACHE_ACTIVE || layer->status.state != CACHE_LAYER_ACTIVE)
		return -EIO;
	writer_hold_locked(cache);
	result = begin_flush_locked(layer, flush);
	writer_let_go_locked(cache);
	return result;
}

int cache_flush(struct cache_layer *layer, struct cache_flush *flush)
{
	LOCK_GUARD(&layer->cache->lock);
	return flush_locked(layer, flush);
}
