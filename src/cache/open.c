/* What opening a cache finds and makes: superblock, memory, recovered log. */
#include "open.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "aio/file.h"
#include "core/error.h"
#include "cache/content/layer.h"
#include "cache/format/format_super.h"
#include "cache/format/super.h"
#include "cache/recover.h"
#include "cache/log/log.h"
#include "cache/writer/writer.h"

/* ---- Size and superblock ------------------------------------------------- */

/* What the file is to be; 0: ERROR. */
static uint64_t choose_size(const struct cache *cache, const struct cache_options *options, uint64_t present,
			    GError **error)
{
	const struct cache_storage *storage = &cache->storage;
	uint64_t bytes = options->size_bytes;

	if (bytes == 0)
		bytes = present > 0 ? present : CACHE_BYTES_DEFAULT;
	if (bytes >= CACHE_BYTES_MIN && bytes <= cache_segment_offset(CACHE_SEGMENTS_MAX) &&
	    (!storage->block_device || bytes <= present))
		return MAX(bytes, storage->block_device ? bytes : present);
	error_set(error, EINVAL,
		  "%s: a cache of %" PRIu64 " bytes is not possible there, only of %" PRIu64 " to %" PRIu64,
		  storage->path, bytes, (uint64_t)CACHE_BYTES_MIN,
		  storage->block_device ? present : cache_segment_offset(CACHE_SEGMENTS_MAX));
	return 0;
}

static uint64_t segments_in(uint64_t bytes)
{
	return MIN((bytes - CACHE_SEGMENTS_OFFSET) / CACHE_SEGMENT_BYTES, CACHE_SEGMENTS_MAX);
}

static void format(struct cache *cache, const struct cache_options *options)
{
	uint8_t uuid[CACHE_ID_BYTES];

	while (getrandom(uuid, sizeof(uuid), 0) != sizeof(uuid))
		;
	uuid[6] = (uuid[6] & 0x0f) | 0x40; /* RFC 9562, version 4 */
	uuid[8] = (uuid[8] & 0x3f) | 0x80;
	cache_super_init(&cache->super, uuid, options->pool_id, options->pool_path ? options->pool_path : "",
			 cache->segment_count);
}

static bool is_of_pool(const struct cache *cache, const struct cache_options *options, GError **error)
{
	g_autofree char *why = g_strdup_printf("is the cache of another pool, %s", cache->super.pool_path);

	return memcmp(cache->super.pool_id, options->pool_id, CACHE_ID_BYTES) == 0 ||
	       cache_refuse(error, cache->storage.path, why);
}

/* The file has its size and cache->super what is, or is to be, in it. */
bool open_super(struct cache *cache, const struct cache_options *options, GError **error)
{
	struct cache_storage *storage = &cache->storage;
	int64_t present = aio_file_size(&storage->aio);
	enum cache_super_result found;
	uint64_t bytes;

	if (present < 0)
		return error_set_errno(error, (int)-present, "%s: its size cannot be told", storage->path);
	found = cache_super_read(storage->aio.buffered_fd, storage->path, (uint64_t)present, &cache->super, NULL,
				 error);
	if (found == CACHE_SUPER_FOREIGN || (found == CACHE_SUPER_GOOD && !is_of_pool(cache, options, error)))
		return false;
	bytes = choose_size(cache, options, (uint64_t)present, error);
	if (bytes == 0)
		return false;
	if (bytes > (uint64_t)present && !cache_storage_grow(storage, bytes, error))
		return false;
	cache->segment_count = segments_in(bytes);
	if (found == CACHE_SUPER_BLANK)
		format(cache, options);
	cache->segment_count = MAX(cache->segment_count, le64_get(cache->super.segments));
	return true;
}

/* ---- Recovery ------------------------------------------------------------ */

static bool allocate(struct cache *cache, GError **error)
{
	cache->index = index_new(cache->segment_count * CACHE_SEGMENT_BLOCKS, error);
	if (!cache->index)
		return false;
	cache->segments = g_try_new0(struct cache_segment, cache->segment_count);
	if (!cache->segments)
		return error_set(error, ENOMEM, "no memory for %" PRIu64 " segments of the cache",
				 cache->segment_count);
	cache->layers = layers_new(cache);
	return log_init(cache, error) && writer_init(cache, error);
}

/* What the tail will need to know of SEGMENT, which holds records. Recovery has
 * read the header a moment ago: the page cache has it. */
static bool load_segment(struct cache *cache, uint64_t segment, GError **error)
{
	const struct cache_storage *storage = &cache->storage;
	struct cache_record_ondisk *header = aligned_alloc(BLOCK_SIZE, BLOCK_SIZE);
	uint64_t offset = cache_segment_offset(segment);
	int result = aio_fd_read(storage->aio.buffered_fd, header, BLOCK_SIZE, offset);
	bool intact = result == 0 && cache_record_is_intact(header, offset, cache->log.cache_id);

	cache->segments[segment].sequence = le64_get(header->sequence);
	cache->segments[segment].previous = le64_get(header->previous);
	free(header);
	return intact || cache_refuse_unreadable(error, storage->path, result < 0 ? result : -EIO);
}

static bool load_segments(struct cache *cache, GError **error)
{
	uint64_t head = segment_of(cache->log.head_slot);
	uint64_t segment = cache->tail_segment;

	while (segment != head) {
		if (!load_segment(cache, segment, error))
			return false;
		segment = (segment + 1) % cache->ring_segments;
	}
	return block_in_segment(cache->log.head_slot) == 0 || load_segment(cache, head, error);
}

static void count_dirty_zeros(struct cache *cache, const struct epochs *epochs)
{
	cache->dirty_zeros += epochs->zeros;
	for (unsigned i = 0; i < epochs_length(epochs); i++) {
		const struct epoch_event *event = epochs_get(epochs, i);

		if (!epoch_event_is_barrier(event))
			cache->segments[segment_of(event->place.slot)].dirty++;
	}
}

/* Clean blocks without a stamp are good for nobody. */
static void keep_or_remove(void *opaque, struct cache_layer *layer)
{
	struct cache *cache = opaque;

	if (layer->stamp == 0 && layer->generation == 0 && layer->pinned_blocks == 0 && !layer->zeros) {
		layers_remove(cache->layers, layer);
		return;
	}
	if (layer->orphan && layer->zeros)
		layer->declared_segment = cache->tail_segment;
	cache->live_blocks += layer->live_blocks;
	*cache_layer_pinned_count(layer) += layer->pinned_blocks;
	if (layer->epochs)
		count_dirty_zeros(cache, layer->epochs);
}

static void count_dirty_slots(struct cache *cache)
{
	uint64_t slots = cache->ring_segments * CACHE_SEGMENT_BLOCKS;

	for (uint64_t slot = 0; slot < slots; slot++) {
		const struct cache_layer *layer;
		struct index_entry entry;

		index_get(cache->index, (uint32_t)slot, &entry);
		if (!(entry.flags & INDEX_PINNED))
			continue;
		layer = layers_by_id(cache->layers, entry.layer);
		if (layer && layer->epochs)
			cache->segments[segment_of(slot)].dirty++;
	}
}

/* Nothing that this program wrote is behind the head (invariant 4). */
static bool ends_before_tail(const struct cache *cache, const struct cache_log_end *end, GError **error)
{
	bool fills_ring = end->records > 0 && end->slot == cache->tail_segment * CACHE_SEGMENT_BLOCKS;

	return !fills_ring ||
	       cache_refuse(error, cache->storage.path, "its log fills the whole ring, no mount leaves that");
}

bool open_log(struct cache *cache, GError **error)
{
	struct cache_log_end end;
	le64 cache_id;

	if (!allocate(cache, error))
		return false;
	memcpy(&cache_id, cache->super.uuid, sizeof(cache_id));
	cache->ring_segments = le64_get(cache->super.ring_segments);
	cache->tail_segment = le64_get(cache->super.tail_segment);
	cache->reclaim.segment = cache->tail_segment;
	if (!cache_recover(cache->storage.aio.buffered_fd, cache->storage.path, &cache->super, cache->index,
			   cache->layers, &end, error) ||
	    !ends_before_tail(cache, &end, error))
		return false;
	cache->log.cache_id = le64_get(cache_id);
	cache->log.head_slot = end.slot;
	cache->log.next_sequence = end.sequence;
	cache->log.previous = end.previous;
	cache->log.durable = end.sequence - 1;
	cache->log.generation = MAX(le64_get(cache->super.generation), end.generation) + 1;
	layers_foreach(cache->layers, keep_or_remove, cache);
	count_dirty_slots(cache);
	return load_segments(cache, error);
}

/* The ring may take in new segments where the log does not wrap. */
bool open_generation(struct cache *cache, GError **error)
{
	int result;

	if (cache->tail_segment <= segment_of(cache->log.head_slot))
		cache->ring_segments = cache->segment_count;
	cache->super.segments = le64_of(cache->segment_count);
	cache->super.ring_segments = le64_of(cache->ring_segments);
	cache->super.generation = le64_of(cache->log.generation);
	result = cache_super_write(cache->storage.aio.buffered_fd, cache->storage.path, &cache->super);
	return result == 0 ||
	       error_set_errno(error, -result, "%s: its superblock cannot be written", cache->storage.path);
}
