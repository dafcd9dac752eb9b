/* The writer's thread: a loop with a queue of its own.
 *
 * Whatever happens, a put, an answer of the file or the timer, the thread looks
 * at everything once (look()): what is to be sealed, tried again,
 * written, flushed (writeout.c), and when to look next. With nothing to do
 * there is no timer. */
#include "writer.h"

#include "core/error.h"
#include "core/relay.h"
#include "core/thread.h"
#include "cache/content/dirty.h"
#include "cache/content/layer.h"
#include "cache/invariants.h"
#include "cache/log/log.h"
#include "cache/log/wake.h"
#include "cache/watch.h"
#include "state.h"
#include "writeout.h"

static void seal_due_locked(struct cache *cache, uint64_t now)
{
	struct writer *writer = &cache->writer;

	cache_assert_locked(cache);
	if (!cache->log.open)
		writer->seal_at_ns = 0;
	else if (writer->seal_at_ns && now >= writer->seal_at_ns)
		log_close_record_locked(cache);
}

/* When to look again; UINT64_MAX: never. */
static uint64_t next_look_locked(const struct cache *cache)
{
	const struct writer *writer = &cache->writer;
	uint64_t next = UINT64_MAX;

	cache_assert_locked(cache);
	if (cache->log.open && writer->seal_at_ns)
		next = MIN(next, writer->seal_at_ns);
	if (writer->state == WRITER_GOOD && !writer->syncing && writeout_written_locked(cache) > cache->log.durable)
		next = MIN(next, writer->sync_at_ns);
	if (writer->state == WRITER_FAILED)
		next = writeout_is_under_way(writer) ? next : MIN(next, writer->retry_at_ns);
	else if (writeout_is_under_way(writer))
		next = MIN(next, writer->progress_ns + ANSWER_NS);
	return next;
}

/* Does what is due; on the writer's thread, without the lock. */
static void look(struct cache *cache)
{
	struct writer *writer = &cache->writer;
	uint64_t now = loop_now_ns();
	uint64_t next = UINT64_MAX;

	lock_take(&cache->lock);
	cache_check_locked(cache);
	if (!writer->stop) {
		seal_due_locked(cache, now);
		writeout_watch_locked(cache, now);
		cache_look_for_silence_locked(cache, now);
		writeout_retry_locked(cache, now);
		cache_dirty_catch_up_locked(cache);
		cache_layers_heal_locked(cache);
		writeout_write_locked(cache, now);
		writeout_sync_locked(cache, now);
		next = MIN(next_look_locked(cache), watch_next_ns_locked(cache, now));
	}
	writer->next_look_ns = next;
	lock_let_go(&cache->lock);
	cache_announce(cache);
	if (next == UINT64_MAX)
		loop_timer_cancel(&writer->timer);
	else
		loop_timer_set(writer->loop, &writer->timer, next);
}

static void timer_expired(struct loop_timer *timer)
{
	look(container_of(timer, struct cache, writer.timer));
}

static void task_run(struct loop_task *task)
{
	struct cache *cache = container_of(task, struct cache, writer.task);

	lock_take(&cache->lock);
	cache->writer.posted = false;
	cache->writer.stopped = cache->writer.stop;
	lock_let_go(&cache->lock);
	look(cache);
}

static void run(void *opaque)
{
	struct cache *cache = opaque;

	pthread_setname_np(pthread_self(), "leafdisk-cache");
	loop_run(cache->writer.loop, &cache->writer.stopped);
	aio_drain(cache->writer.queue);
	look(cache);
}

void writer_hold_locked(struct cache *cache)
{
	cache_assert_locked(cache);
	cache->writer.held = true;
	cache->writer.wanted = false;
}

/* A record that the holder writes itself is nothing to wake for, but it is to be
 * watched. */
void writer_let_go_locked(struct cache *cache)
{
	cache_assert_locked(cache);
	cache->writer.held = false;
	if (cache->writer.wanted && writeout_is_due_locked(cache))
		wake_writer_locked(cache);
	if (writeout_is_under_way(&cache->writer))
		watch_until_locked(cache, cache->writer.progress_ns);
}

bool writer_init(struct cache *cache, GError **error)
{
	struct writer *writer = &cache->writer;
	struct aio_limits limits = {.depth = 2 * WRITES_MAX, .io_timeout_ns = ANSWER_NS};

	writer->task.run = task_run;
	writer->next_look_ns = UINT64_MAX;
	loop_timer_init(&writer->timer, timer_expired);
	writer->loop = loop_new(error);
	if (!writer->loop)
		return false;
	loop_set_poll(writer->loop, 0);
	writer->queue = aio_queue_new(writer->loop, &limits, error);
	return writer->queue;
}

bool writer_start(struct cache *cache, GError **error)
{
	struct writer *writer = &cache->writer;

	writer->relay = relay_start(writer->loop, "leafdisk-log", THREAD_OTHER, run, cache, error);
	if (!writer->relay)
		g_prefix_error(error, "for the cache's log: ");
	return writer->relay;
}

void writer_stop(struct cache *cache)
{
	lock_take(&cache->lock);
	cache->writer.stop = true;
	wake_writer_locked(cache);
	lock_let_go(&cache->lock);
	relay_join(g_steal_pointer(&cache->writer.relay));
}

void writer_clear(struct cache *cache)
{
	loop_timer_cancel(&cache->writer.timer);
	aio_queue_free(cache->writer.queue);
	loop_free(cache->writer.loop);
}
