/* The cache's state: ACTIVE, SUSPENDED, and who has to know of a change.
 *
 *     ACTIVE -> SUSPENDED   the writer's or the superblock's first failure, or
 *                           an operation that has no answer (watch.c)
 *     SUSPENDED -> ACTIVE   the writer is good, no superblock write has failed
 *                           since its last success, and nothing is overdue
 *
 * Layers that are mirrored are degraded at once: changes of their images that
 * come from now on cannot be recorded. What is dirty stays: it is in memory or
 * in the file, and whoever migrates empties the cache as far as it can. */
#include "state.h"

#include <errno.h>
#include <string.h>

#include "core/log.h"
#include "cache/content/dirty.h"
#include "cache/content/layer.h"
#include "cache/log/wake.h"
#include "cache/watch.h"

static void change_locked(struct cache *cache, enum cache_state state)
{
	cache_assert_locked(cache);
	cache->state = state;
	cache->announce = true;
	clock_gettime(CLOCK_REALTIME, &cache->since);
	condition_broadcast(&cache->changed);
	wake_waiters_locked(cache);
	wake_flushes_locked(cache);
	wake_migration_locked(cache);
	wake_writer_locked(cache);
}

static void degrade_written(void *opaque, struct cache_layer *layer)
{
	if (layer->writable && !layer->is_volatile && !layer->epochs)
		cache_layer_degrade_locked(layer, opaque);
}

void cache_suspend_locked(struct cache *cache, int error, const char *what)
{
	cache_assert_locked(cache);
	if (cache->state == CACHE_SUSPENDED)
		return;
	g_snprintf(cache->reason, sizeof(cache->reason), "%s %s: %s", cache->storage.path, what, g_strerror(-error));
	cache->failure = error;
	change_locked(cache, CACHE_SUSPENDED);
	layers_foreach(cache->layers, degrade_written, cache->reason);
}

void cache_silence_locked(struct cache *cache)
{
	cache_assert_locked(cache);
	cache->silent = true;
	cache_suspend_locked(cache, -ETIMEDOUT, "does not answer");
}

void cache_resume_locked(struct cache *cache)
{
	cache_assert_locked(cache);
	if (cache->state == CACHE_ACTIVE || cache->writer.state != WRITER_GOOD || cache->reclaim.super_failed ||
	    watch_is_overdue_locked(cache, loop_now_ns()))
		return;
	cache->reason[0] = '\0';
	cache->failure = 0;
	cache->silent = false;
	change_locked(cache, CACHE_ACTIVE);
	cache_dirty_catch_up_locked(cache);
	condition_signal(&cache->reclaim.wanted);
}

void cache_look_for_silence_locked(struct cache *cache, uint64_t now)
{
	cache_assert_locked(cache);
	if (watch_is_overdue_locked(cache, now))
		cache_silence_locked(cache);
	else if (cache->silent)
		cache_resume_locked(cache);
}

void cache_announce(struct cache *cache)
{
	char reason[sizeof(cache->reason)] = "";
	bool announce, suspended;

	lock_take(&cache->lock);
	announce = cache->announce;
	suspended = cache->state == CACHE_SUSPENDED;
	if (announce)
		memcpy(reason, cache->reason, sizeof(reason));
	cache->announce = false;
	lock_let_go(&cache->lock);
	if (announce && suspended)
		log_warning("cache: %s; nothing more is cached until it works again", reason);
	else if (announce)
		log_warning("cache: %s works again", cache->storage.path);
}
