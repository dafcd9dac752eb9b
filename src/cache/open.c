/* What opening a cache finds and makes: superblock, memory, recovered log. */
#include "open.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "aio/file.h"
#include "core/error.h"
#include "core/log.h"
#include "core/random.h"
#include "cache/content/layer.h"
#include "cache/format/format_super.h"
#include "cache/format/super.h"
#include "cache/recover.h"
#include "cache/log/log.h"
#include "cache/tail/batch_data.h"
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
	uint8_t uuid[RANDOM_UUID_BYTES];

	random_make_uuid(uuid);
	cache_super_init(&cache->super, uuid, options->pool_id, options->pool_path ? options->pool_path : "",
			 cache->segment_count);
}

static bool is_of_pool(const struct cache *cache, const struct cache_options *options, GError **error)
{
	g_autofree char *why =
		g_strdup_printf("is the cache of another pool, %s (which, where it was moved here, is to "
				"be mounted by that path again)",
				cache->super.pool_path);

	return memcmp(cache->super.pool_id, options->pool_id, CACHE_ID_BYTES) == 0 ||
	       cache_refuse(error, cache->storage.path, why);
}

static bool may_format(const struct cache_storage *storage, const struct cache_options *options, uint64_t present,
		       GError **error)
{
	return present == 0 || !cache_storage_is_named_like_image(storage, options->pool_path) ||
	       cache_refuse_other(error, storage->path, "is named like an image, and is no cache");
}

/* A file that was cut off is read as it is, and has its size again when its superblock is
 * written. */
static bool is_long_enough(const struct cache *cache, uint64_t present, GError **error)
{
	uint64_t needed = cache_segment_offset(le64_get(cache->super.segments));

	if (present >= needed)
		return true;
	if (cache->storage.block_device)
		return error_set(error, EINVAL,
				 "%s: has %" PRIu64 " bytes, and its cache %" PRIu64
				 ": it was copied from a larger device; leafctl cache dump saves what there is",
				 cache->storage.path, present, needed);
	log_warning("cache: %s: is cut off, it has %" PRIu64 " bytes of %" PRIu64, cache->storage.path, present,
		    needed);
	return true;
}

/* The file has its size and cache->super what is, or is to be, in it. */
bool open_super(struct cache *cache, const struct cache_options *options, GError **error)
{
	struct cache_storage *storage = &cache->storage;
	const struct aio_file *before = cache_storage_before(storage);
	int64_t present = aio_file_size(before);
	enum cache_super_result found;
	uint64_t bytes, needed = 0;

	if (present < 0)
		return error_set_errno(error, (int)-present, "%s: its size cannot be told", storage->path);
	found = cache_super_read(before->buffered_fd, storage->path, (uint64_t)present, &cache->super, NULL, error);
	if (found == CACHE_SUPER_FOREIGN || (found == CACHE_SUPER_GOOD && !is_of_pool(cache, options, error)))
		return false;
	if (found == CACHE_SUPER_BLANK && !may_format(storage, options, (uint64_t)present, error))
		return false;
	if (found == CACHE_SUPER_GOOD && !is_long_enough(cache, (uint64_t)present, error))
		return false;
	if (found == CACHE_SUPER_GOOD)
		needed = cache_segment_offset(le64_get(cache->super.segments));
	bytes = choose_size(cache, options, MAX((uint64_t)present, needed), error);
	if (bytes == 0)
		return false;
	cache->segment_count = segments_in(bytes);
	cache->grow_bytes = bytes > (uint64_t)present ? bytes : 0;
	if (found == CACHE_SUPER_BLANK)
		format(cache, options);
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
	return batch_init(cache, error) && log_init(cache, error) && writer_init(cache, error);
}

static uint64_t distance_of(const struct cache *cache, uint64_t slot)
{
	return cache_slot_distance(cache->tail_segment * CACHE_SEGMENT_BLOCKS, slot, cache->ring_segments);
}

/* The hole that SLOT is in: whose first record is there or before it. NULL: none. */
static const struct cache_hole *find_hole(const struct cache *cache, const struct cache_log_end *end, uint64_t slot)
{
	for (guint i = 0; i < end->holes->len; i++) {
		const struct cache_hole *hole = &g_array_index(end->holes, struct cache_hole, i);

		if (distance_of(cache, slot) >= distance_of(cache, hole->slot) &&
		    (distance_of(cache, slot) < distance_of(cache, hole->end_slot) || end->slot == hole->end_slot))
			return hole;
	}
	return NULL;
}

/* What the tail will need to know of SEGMENT, which holds records: recovery has read the header
 * a moment ago, and the page cache has it. Where that is in a hole, the hole is what a log
 * that begins there begins with. */
static void load_segment(struct cache *cache, const struct cache_log_end *end, uint64_t segment)
{
	const struct cache_hole *hole = find_hole(cache, end, segment * CACHE_SEGMENT_BLOCKS);
	struct cache_record_ondisk *header = aligned_alloc(BLOCK_SIZE, BLOCK_SIZE);
	uint64_t offset = cache_segment_offset(segment);
	int fd = cache_storage_before(&cache->storage)->buffered_fd;
	bool intact = !hole && aio_fd_read(fd, header, BLOCK_SIZE, offset) == 0 &&
		      cache_record_is_intact(header, offset, cache->log.cache_id);

	cache->segments[segment].sequence = intact ? le64_get(header->sequence) : hole ? hole->first : 0;
	cache->segments[segment].previous = intact ? le64_get(header->previous) : 0;
	free(header);
}

static void load_segments(struct cache *cache, const struct cache_log_end *end)
{
	uint64_t head = segment_of(cache->log.head_slot);
	uint64_t segment = cache->tail_segment;

	while (segment != head) {
		load_segment(cache, end, segment);
		segment = (segment + 1) % cache->ring_segments;
	}
	if (block_in_segment(cache->log.head_slot) != 0)
		load_segment(cache, end, head);
}

static void count_dirty_zeros(struct cache *cache, const struct epochs *epochs)
{
	cache->dirty_zeros += epochs->zeros;
	cache->dirty_slots += epochs->dirty;
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

	if (layer->stamp == 0 && layer->generation == 0 && layer->pinned_blocks == 0 && !layer->zeros &&
	    !layer->incomplete) {
		layers_remove(cache->layers, layer);
		return;
	}
	/* Before the tail passes what shows it. */
	if ((layer->orphan && layer->zeros) || (layer->incomplete && !layer->loss_declared))
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

static void collect_changed(void *opaque, struct cache_layer *layer)
{
	if (layer->last_change)
		g_ptr_array_add(opaque, layer);
}

static int compare_changes(const void *left, const void *right)
{
	const struct cache_layer *const *a = left, *const *b = right;

	return ((*a)->last_change < (*b)->last_change) - ((*a)->last_change > (*b)->last_change);
}

static void list_changed(struct cache *cache)
{
	g_autoptr(GPtrArray) layers = g_ptr_array_new();

	layers_foreach(cache->layers, collect_changed, layers);
	g_ptr_array_sort(layers, compare_changes);
	for (guint i = 0; i < layers->len; i++)
		list_append(&cache->log.changed, &((struct cache_layer *)layers->pdata[i])->changed);
}

/* Nothing that this program wrote is behind the head (invariant 4). */
static bool ends_before_tail(const struct cache *cache, const struct cache_log_end *end, GError **error)
{
	bool fills_ring = end->records > 0 && end->slot == cache->tail_segment * CACHE_SEGMENT_BLOCKS;

	return !fills_ring ||
	       cache_refuse(error, cache->storage.path, "its log fills the whole ring, no mount leaves that");
}

/* ---- What is missing ------------------------------------------------------- */

static void tell_loss(void *opaque, struct cache_layer *layer)
{
	g_autofree char *loss = layer->incomplete ? layer_loss_text(layer) : NULL;
	struct cache *cache = opaque;

	cache->incomplete_layers += loss != NULL;
	if (loss)
		log_error("%s: %s; it cannot be used until that is settled: leafctl cache dump %s saves what there is",
			  layer->name, loss, cache->storage.path);
}

static void tell_holes(struct cache *cache, const struct cache_log_end *end)
{
	for (guint i = 0; i < end->holes->len; i++) {
		g_autofree char *text = cache_hole_text(&g_array_index(end->holes, struct cache_hole, i));

		log_warning("cache: %s: in its log %s; what is clean is read again from the pool, "
			    "leafctl cache check tells more",
			    cache->storage.path, text);
	}
	layers_foreach(cache->layers, tell_loss, cache);
}

/* A segment is of one file as a whole. */
static uint64_t head_slot(const struct cache *cache, const struct cache_log_end *end)
{
	if (!cache->storage.keeps || block_in_segment(end->slot) == 0)
		return end->slot;
	return (segment_of(end->slot) + 1) % cache->ring_segments * CACHE_SEGMENT_BLOCKS;
}

static void begin_log(struct cache *cache, const struct cache_log_end *end)
{
	cache->log.head_slot = head_slot(cache, end);
	cache->log.next_sequence = end->sequence;
	cache->log.previous = end->previous;
	cache->log.durable = end->sequence - 1;
	cache->log.mount_sequence = end->sequence;
	if (end->unknown)
		cache->super.lost_generation = le64_of(MAX(le64_get(cache->super.generation), end->generation));
	cache->log.generation = MAX(le64_get(cache->super.generation), end->generation) + 1;
}

bool open_log(struct cache *cache, GError **error)
{
	struct cache_log_end end = {0};
	le64 cache_id;
	bool good;

	if (!allocate(cache, error))
		return false;
	memcpy(&cache_id, cache->super.uuid, sizeof(cache_id));
	cache->ring_segments = le64_get(cache->super.ring_segments);
	cache->tail_segment = le64_get(cache->super.tail_segment);
	cache->reclaim.segment = cache->tail_segment;
	cache->log.cache_id = le64_get(cache_id);
	cache_recover(cache_storage_before(&cache->storage)->buffered_fd, &cache->super, cache->index, cache->layers,
		      &end);
	good = ends_before_tail(cache, &end, error);
	if (good) {
		begin_log(cache, &end);
		layers_foreach(cache->layers, keep_or_remove, cache);
		count_dirty_slots(cache);
		list_changed(cache);
		load_segments(cache, &end);
		tell_holes(cache, &end);
	}
	cache_log_end_clear(&end);
	return good;
}

/* Those of a generation that no mount had are not known. */
static void number_mount(struct cache *cache)
{
	uint64_t generation = cache->log.generation, skipped = generation - le64_get(cache->super.generation) - 1;
	uint8_t number[CACHE_ID_BYTES];

	for (uint64_t i = 1; i <= MIN(skipped, CACHE_MOUNTS - 1); i++)
		memset(cache->super.mounts[(generation - i) % CACHE_MOUNTS], 0, sizeof(number));
	random_fill(number, sizeof(number));
	memcpy(cache->super.mounts[generation % CACHE_MOUNTS], number, sizeof(number));
}

/* The ring may take in new segments where the log does not wrap. */
bool open_generation(struct cache *cache, GError **error)
{
	int result;

	if (cache->grow_bytes && !cache_storage_grow(&cache->storage, cache->grow_bytes, error))
		return false;
	if (cache->tail_segment <= segment_of(cache->log.head_slot))
		cache->ring_segments = cache->segment_count;
	cache->super.segments = le64_of(cache->segment_count);
	cache->super.ring_segments = le64_of(cache->ring_segments);
	number_mount(cache);
	cache->super.generation = le64_of(cache->log.generation);
	cache->super.end_sequence = le64_of(0);
	result = cache_super_write(cache->storage.aio.buffered_fd, cache->storage.path, &cache->super);
	return result == 0 || error_set(error, -result,
					"%s: its superblock cannot be written: %s; \"leafctl cache drain %s\" brings "
					"what is dirty in it "
					"to the pool all the same",
					cache->storage.path, g_strerror(-result), cache->storage.path);
}
