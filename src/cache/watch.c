/* The watch on the cache's file.
 *
 * A device that answers nothing gives no error either. Every operation of the
 * file is watched, whoever waits for it: the writer's by the time of their last
 * answer (writeout.c), all others here, in a list by the time they began. The
 * writer's thread looks when the oldest is due. It is woken where it would not
 * look by then, and looks again after ANSWER_NS even if nothing is under way any
 * more, so that a load of short operations wakes it once in that time.
 *
 * Once the file is silent nothing that is clean is read from it: the images have
 * the same. What is under way has memory of its submitter and waits on. */
#include "watch.h"

#include "cache/log/wake.h"

static struct cache_watch *oldest_locked(const struct cache *cache)
{
	struct list *first = list_first(&cache->watched);

	cache_assert_locked(cache);
	return first ? container_of(first, struct cache_watch, link) : NULL;
}

void watch_until_locked(struct cache *cache, uint64_t begun_ns)
{
	cache_assert_locked(cache);
	if (cache->writer.next_look_ns <= begun_ns + ANSWER_NS)
		return;
	cache->watching = true;
	wake_writer_locked(cache);
}

void watch_begin_locked(struct cache *cache, struct cache_watch *watch)
{
	cache_assert_locked(cache);
	watch->begun_ns = loop_now_ns();
	list_append(&cache->watched, &watch->link);
	watch_until_locked(cache, watch->begun_ns);
}

void watch_end_locked(struct cache *cache, struct cache_watch *watch)
{
	cache_assert_locked(cache);
	list_remove(&watch->link);
	if (cache->silent)
		wake_writer_locked(cache);
}

uint64_t watch_next_ns_locked(struct cache *cache, uint64_t now)
{
	const struct cache_watch *oldest = oldest_locked(cache);
	uint64_t next = cache->watching ? now + ANSWER_NS : UINT64_MAX;

	cache_assert_locked(cache);
	cache->watching = false;
	return oldest && !cache->silent ? MIN(next, oldest->begun_ns + ANSWER_NS) : next;
}

bool watch_is_overdue_locked(const struct cache *cache, uint64_t now)
{
	const struct cache_watch *oldest = oldest_locked(cache);

	cache_assert_locked(cache);
	return oldest && now >= oldest->begun_ns + ANSWER_NS;
}
