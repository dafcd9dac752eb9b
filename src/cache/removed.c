/* Whether the cache's file still has a name.
 *
 * One that is removed serves as before for as long as it is open, and no operation fails: what it alone has
 * goes with the daemon. So the reclaim thread, which waits for the file anyway, looks at it once a minute, and soon
 * when somebody asks how the cache is. A name that is gone does not come back. */
#include "removed.h"

#include <sys/stat.h>

#include "core/log.h"
#include "core/thread.h"

#define INTERVAL_NS (60 * NS_PER_S)
/* However many ask. */
#define SHORTEST_NS NS_PER_S

static bool has_no_name(const struct cache *cache)
{
	struct stat st;

	thread_assert_may_block();
	return cache->storage.named && fstat(cache->storage.aio.buffered_fd, &st) == 0 && st.st_nlink == 0;
}

bool cache_is_removed(struct cache *cache)
{
	return has_no_name(cache);
}

static bool is_watched_locked(const struct cache *cache)
{
	cache_assert_locked(cache);
	return cache->storage.named && !cache->removed.since.tv_sec;
}

uint64_t removed_next_ns_locked(const struct cache *cache)
{
	cache_assert_locked(cache);
	if (!is_watched_locked(cache))
		return UINT64_MAX;
	return cache->removed.looked_ns + (cache->removed.wanted ? SHORTEST_NS : INTERVAL_NS);
}

static void say(const struct cache *cache)
{
	log_warning(
		"cache: %s was removed, and is in use: what it alone has is lost should the daemon or this host fail; "
		"leafctl drain brings that to the pool; then unmount, and mount again",
		cache->storage.path);
}

void removed_look_relock(struct cache *cache)
{
	bool removed;

	cache_assert_locked(cache);
	cache->removed.looked_ns = loop_now_ns();
	cache->removed.wanted = false;
	lock_let_go(&cache->lock);
	removed = has_no_name(cache);
	if (removed)
		say(cache);
	lock_take(&cache->lock);
	if (removed)
		clock_gettime(CLOCK_REALTIME, &cache->removed.since);
}

void cache_look_soon(struct cache *cache)
{
	LOCK_GUARD(&cache->lock);
	if (cache->removed.wanted || !is_watched_locked(cache))
		return;
	cache->removed.wanted = true;
	condition_signal(&cache->reclaim.wanted);
}
