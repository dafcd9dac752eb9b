/* The content of a batch.
 *
 * Segments are read whole, READS_MAX of them at a time, each into memory of its
 * own, from which its blocks go to their places: with one after the other a
 * device's latency would bound migration. Where a segment cannot be read at
 * once, its blocks are read one by one; what cannot be read now may be the next time.
 *
 * What is dirty is to get to its image although the process has come near its limits
 * since the cache was opened: so memory for one batch is set aside then. */
#include "batch_data.h"

#include <errno.h>
#include <string.h>

#include "aio/blocking.h"
#include "cache/writeback.h"
#include "core/counters.h"
#include "core/error.h"
#include "cache/log/log.h"
#include "cache/watch.h"

#define READS_MAX 4
#define READS_BYTES (READS_MAX * CACHE_SEGMENT_BYTES)

struct reading {
	const struct batch_source *source;
	const GArray *items;
	uint8_t *data;
	struct aio_queue *queue;
	guint next; /* item that nobody reads yet */
	unsigned pending;
	bool finished;
	int result;
};

/* Items of one segment. */
struct segment_read {
	struct aio_request aio;
	struct cache_watch watch;
	struct reading *reading;
	uint8_t *memory;
	guint first;
	guint end;
	bool whole; /* in one read */
};

static const struct batch_item *item_at(const struct reading *reading, guint i)
{
	return &g_array_index(reading->items, struct batch_item, i);
}

/* Readers are to know of it too. */
static void mark_lost(const struct reading *reading, const struct batch_item *item)
{
	struct cache *cache = reading->source->cache;
	struct index_entry entry;

	LOCK_GUARD(&cache->lock);
	index_get(cache->index, item->slot, &entry);
	if (entry.layer == reading->source->layer && entry.block == item->block && (entry.flags & INDEX_PINNED))
		index_set_flags(cache->index, item->slot, INDEX_LOST, 0);
}

static void take_block(struct reading *reading, const struct batch_item *item, const uint8_t *from)
{
	uint8_t *to = reading->data + ((size_t)item->place << BLOCK_SHIFT);

	memcpy(to, from, BLOCK_SIZE);
	if (!item->lost && cache_checksum_short(cache_data_checksum(to)) == item->checksum)
		return;
	mark_lost(reading, item);
	counter_add(cache_damaged_blocks, 1);
	reading->result = -EIO;
	if (reading->source->lost)
		reading->source->lost(reading->source->opaque, item->block);
}

static void read_done(struct aio_request *request, int result);

static void submit(struct segment_read *read, uint32_t slots)
{
	struct cache *cache = read->reading->source->cache;
	uint32_t bytes = slots << BLOCK_SHIFT;

	struct aio_file *file;

	lock_take(&cache->lock);
	watch_begin_locked(cache, &read->watch);
	file = cache_file_of_locked(cache, item_at(read->reading, read->first)->slot);
	lock_let_go(&cache->lock);
	read->aio = (struct aio_request){
		.op = AIO_READ,
		.file = file,
		.buffer = read->memory,
		.offset = cache_slot_offset(item_at(read->reading, read->first)->slot),
		.length = bytes,
		.needed = bytes,
		.done = read_done,
	};
	aio_submit(read->reading->queue, &read->aio);
}

static struct cache_buffer *hold_buffer(struct cache *cache, uint32_t slot)
{
	struct cache_buffer *buffer;

	LOCK_GUARD(&cache->lock);
	buffer = cache->segments[segment_of(slot)].buffer;
	if (buffer)
		buffer->references++;
	return buffer;
}

static void put_buffer(struct cache *cache, struct cache_buffer *buffer)
{
	LOCK_GUARD(&cache->lock);
	log_put_buffer_locked(cache, buffer);
}

static guint end_of_segment(const struct reading *reading, guint first)
{
	uint64_t segment = segment_of(item_at(reading, first)->slot);
	guint end = first + 1;

	while (end < reading->items->len && segment_of(item_at(reading, end)->slot) == segment)
		end++;
	return end;
}

/* Takes what the segment's buffer has of the items [FIRST, END) and returns
 * where that begins; the file has what is before. */
static guint take_buffered(struct reading *reading, guint first, guint end)
{
	struct cache *cache = reading->source->cache;
	struct cache_buffer *buffer = hold_buffer(cache, item_at(reading, first)->slot);
	guint buffered = first;

	if (!buffer)
		return end;
	while (buffered < end && block_in_segment(item_at(reading, buffered)->slot) < buffer->first)
		buffered++;
	for (guint i = buffered; i < end; i++)
		take_block(reading, item_at(reading, i), slot_data(buffer->data, item_at(reading, i)->slot));
	put_buffer(cache, buffer);
	return buffered;
}

/* The next segment that has to be read, if there is one. */
static void read_next(struct segment_read *read)
{
	struct reading *reading = read->reading;

	while (reading->next < reading->items->len) {
		guint first = reading->next;
		guint end = end_of_segment(reading, first);

		reading->next = end;
		read->first = first;
		read->end = take_buffered(reading, first, end);
		read->whole = true;
		if (read->end == first)
			continue;
		submit(read, item_at(reading, read->end - 1)->slot - item_at(reading, first)->slot + 1);
		return;
	}
	reading->finished = --reading->pending == 0;
}

static void take_segment(struct segment_read *read)
{
	uint32_t slot = item_at(read->reading, read->first)->slot;

	for (guint i = read->first; i < read->end; i++) {
		const struct batch_item *item = item_at(read->reading, i);

		take_block(read->reading, item, read->memory + ((size_t)(item->slot - slot) << BLOCK_SHIFT));
	}
}

static void read_done(struct aio_request *request, int result)
{
	struct segment_read *read = container_of(request, struct segment_read, aio);
	struct reading *reading = read->reading;
	struct cache *cache = reading->source->cache;

	lock_take(&cache->lock);
	watch_end_locked(cache, &read->watch);
	lock_let_go(&cache->lock);
	if (read->whole && result == 0) {
		take_segment(read);
		read->first = read->end;
	} else if (!read->whole && result == 0) {
		take_block(reading, item_at(reading, read->first), read->memory);
		read->first++;
	} else if (!read->whole) {
		reading->result = -EIO;
		read->first++;
	}
	read->whole = false;
	if (read->first < read->end)
		submit(read, 1);
	else
		read_next(read);
}

static void run(struct reading *reading, struct blocking_loop *blocking, uint8_t *memory)
{
	struct segment_read reads[READS_MAX];

	reading->queue = blocking->queue;
	reading->pending = READS_MAX;
	for (unsigned i = 0; i < READS_MAX; i++) {
		reads[i].reading = reading;
		reads[i].memory = memory + (size_t)i * CACHE_SEGMENT_BYTES;
		read_next(&reads[i]);
	}
	if (!reading->finished)
		loop_run(blocking->loop, &reading->finished);
}

bool batch_init(struct cache *cache, GError **error)
{
	uint64_t blocks = MIN(CACHE_BATCH_BLOCKS_MAX, cache->segment_count * CACHE_SEGMENT_BLOCKS);

	return (memory_spare_init(&cache->batch_spare, blocks << BLOCK_SHIFT) &&
		memory_spare_init(&cache->read_spare, READS_BYTES)) ||
	       error_set_errno(error, errno, "no memory to write back what is in the cache");
}

int batch_read(const struct batch_source *source, const GArray *items, uint8_t *data)
{
	struct reading reading = {.source = source, .items = items, .data = data};
	struct blocking_loop *blocking = blocking_loop_get();
	struct memory_spare *spare = &source->cache->read_spare;
	uint8_t *memory = memory_spare_map(spare, READS_BYTES);

	if (blocking && memory)
		run(&reading, blocking, memory);
	else
		reading.result = -ENOMEM;
	memory_spare_unmap(spare, memory, READS_BYTES);
	if (blocking)
		blocking_loop_put(blocking);
	return reading.result;
}
