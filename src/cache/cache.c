/* Opening, starting and closing a cache, and what it says of itself.
 *
 * Opening, in this order: the file and its lock; the superblock, a new one for
 * a blank file; what the log holds; a durable superblock with a higher
 * generation, so that nothing that is appended from now on can be taken for an
 * older record, and so that what was recovered is durable as well. */
#include "cache/cache.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "core/log.h"
#include "cache/content/dirty.h"
#include "cache/format/super.h"
#include "cache/log/entry.h"
#include "cache/log/log.h"
#include "cache/log/space.h"
#include "cache/log/wake.h"
#include "open.h"
#include "cache/tail/events.h"
#include "cache/tail/reclaim.h"
#include "cache/writer/writer.h"

/* ---- Open and close ------------------------------------------------------ */

static void cache_free(struct cache *cache)
{
	writer_clear(cache);
	log_clear(cache);
	layers_free(cache->layers);
	index_free(cache->index);
	g_free(cache->segments);
	memory_spare_clear(&cache->batch_spare);
	memory_spare_clear(&cache->read_spare);
	g_array_unref(cache->drops);
	cache_storage_close(&cache->storage);
	condition_destroy(&cache->work);
	condition_destroy(&cache->reclaim.wanted);
	condition_destroy(&cache->changed);
	lock_destroy(&cache->lock);
	g_free(cache);
}

static struct cache *cache_new(void)
{
	struct cache *cache = g_new0(struct cache, 1);

	lock_init(&cache->lock, LOCK_RANK_CACHE);
	condition_init(&cache->work);
	condition_init(&cache->changed);
	condition_init(&cache->reclaim.wanted);
	list_init(&cache->waiters);
	cache->drops = g_array_new(FALSE, FALSE, sizeof(uint32_t));
	list_init(&cache->watched);
	list_init(&cache->flushes);
	list_init(&cache->writer.timer.link);
	clock_gettime(CLOCK_REALTIME, &cache->since);
	return cache;
}

static bool open_storage(struct cache *cache, const struct cache_options *options, GError **error)
{
	return options->keep ? cache_storage_open_kept(&cache->storage, options->path, error)
			     : cache_storage_open(&cache->storage, options->path, error);
}

struct cache *cache_open(const struct cache_options *options, GError **error)
{
	struct cache *cache = cache_new();

	if (open_storage(cache, options, error) && open_super(cache, options, error) && open_log(cache, error) &&
	    open_generation(cache, error)) {
		log_debug(LOG_CACHE,
			  "%s: generation %" PRIu64 ", %" PRIu64 " blocks in segments %" PRIu64 " to %" PRIu64,
			  cache->storage.path, cache->log.generation, cache->live_blocks, cache->tail_segment,
			  segment_of(cache->log.head_slot));
		return cache;
	}
	if (cache->storage.created)
		unlink(options->path);
	cache_free(cache);
	return NULL;
}

bool cache_start(struct cache *cache, GError **error)
{
	if (!writer_start(cache, error))
		return false;
	lock_take(&cache->lock);
	cache->started = true;
	lock_let_go(&cache->lock);
	if (!reclaim_start(cache, error)) {
		writer_stop(cache);
		cache->started = false;
		return false;
	}
	lock_take(&cache->lock);
	wake_writer_locked(cache);
	wake_reclaim_locked(cache);
	lock_let_go(&cache->lock);
	return true;
}

int cache_sync(struct cache *cache)
{
	LOCK_GUARD(&cache->lock);
	cache_dirty_pay_locked(cache, LOG_BATCH);
	return log_wait_durable_relock(cache, log_flush_locked(cache));
}

/* Damage in the last records looks like a crash in the middle of them, unless the superblock
 * knows that they were durable. */
static void mark_end(struct cache *cache)
{
	int result;

	/* A record that was begun since is nobody's. */
	cache->super.end_sequence = le64_of(cache->log.durable + 1);
	result = cache_super_write(cache->storage.aio.buffered_fd, cache->storage.path, &cache->super);
	if (result < 0)
		log_debug(LOG_CACHE, "%s: its end is not marked: %s", cache->storage.path, g_strerror(-result));
}

static int stop(struct cache *cache)
{
	int result;

	reclaim_stop(cache);
	result = cache_sync(cache);
	writer_stop(cache);
	if (result == 0)
		mark_end(cache);
	return result;
}

/* Layers may have been opened and closed without a start: that is recorded too. */
int cache_stop(struct cache *cache)
{
	int result = 0;

	if (cache->stopped)
		return 0;
	if (!cache->started && cache->log.next_sequence - 1 > cache->log.durable && !cache_start(cache, NULL))
		result = -EAGAIN;
	if (cache->started)
		result = stop(cache);
	else if (result == 0)
		mark_end(cache);
	cache->stopped = true;
	return result;
}

int cache_close(struct cache *cache)
{
	int result = cache ? cache_stop(cache) : 0;

	if (cache)
		cache_free(cache);
	return result;
}

/* Their numbers stay taken, by what takes no write. */
static void let_go_of_file(struct cache *cache)
{
	int nothing = open("/dev/null", O_RDONLY | O_CLOEXEC);

	if (cache->storage.aio.direct_fd >= 0)
		dup3(nothing, cache->storage.aio.direct_fd, O_CLOEXEC);
	dup3(nothing, cache->storage.aio.buffered_fd, O_CLOEXEC);
}

int cache_leave(struct cache *cache, uint64_t patience_ns)
{
	uint64_t until_ns = loop_now_ns() + patience_ns;
	int result = -ETIMEDOUT;
	uint64_t sequence;

	lock_take(&cache->lock);
	sequence = log_flush_locked(cache);
	while (cache->log.durable < sequence && cache->state == CACHE_ACTIVE &&
	       lock_wait_until(&cache->lock, &cache->changed, until_ns))
		;
	if (cache->log.durable >= sequence)
		result = 0;
	else if (cache->state != CACHE_ACTIVE)
		result = cache->failure;
	lock_let_go(&cache->lock);
	let_go_of_file(cache);
	return result;
}

/* ---- Status -------------------------------------------------------------- */

uint64_t cache_memory_bytes(struct cache *cache)
{
	LOCK_GUARD(&cache->lock);
	return sizeof(*cache) + index_memory_bytes(cache->index) + layers_memory_bytes(cache->layers) +
	       log_memory_bytes(cache) + CACHE_SEGMENT_BYTES + cache->segment_count * sizeof(*cache->segments);
}

/* What only moves is not in the way. */
static bool is_short_of_room_locked(struct cache *cache)
{
	cache_assert_locked(cache);
	return cache->dirty_zeros >= LAYER_ZERO_RANGES_MAX ||
	       (space_is_blocked_locked(cache) && !events_segment_is_stuck_locked(cache, cache->reclaim.segment));
}

void cache_get_status(struct cache *cache, struct cache_status *status)
{
	LOCK_GUARD(&cache->lock);
	*status = (struct cache_status){
		.state = cache->state,
		.since = cache->since,
		.size_bytes = cache_segment_offset(cache->segment_count),
		.segments = cache->ring_segments,
		.free_segments = space_free_segments_locked(cache),
		.head_segment = segment_of(cache->log.head_slot),
		.tail_segment = cache->tail_segment,
		.generation = cache->log.generation,
		.sequence = cache->log.next_sequence - 1,
		.cached_blocks = cache->live_blocks,
		.pinned_blocks = cache->pinned_blocks,
		.pinned_blocks_max = space_pinned_max_locked(cache),
		.dirty_blocks = cache->dirty_blocks,
		.incomplete_layers = cache->incomplete_layers,
		.lost_generation = le64_get(cache->super.lost_generation),
		.dirty_blocks_max = space_dirty_max_locked(cache),
		.removed = cache->removed.since,
		.short_of_room = is_short_of_room_locked(cache),
	};
	memcpy(status->reason, cache->reason, sizeof(status->reason));
}

void cache_get_id(const struct cache *cache, uint8_t id[CACHE_ID_BYTES])
{
	memcpy(id, cache->super.uuid, CACHE_ID_BYTES);
}

const uint8_t *cache_get_mounts(const struct cache *cache)
{
	return cache->super.mounts[0];
}
