/* Reading record headers: a few threads, each of which takes one segment after
 * the other and follows the records in it.
 *
 * Where a header can be true, where the next one would be is known from its
 * number of blocks; a wrong number leads to a wrong place, which validation
 * finds. Behind a record of a few blocks a longer piece is read: it holds more
 * headers. Behind a longer one what is between headers costs more than it saves. */
#include "headers.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "aio/file.h"
#include "core/thread.h"
#include "format.h"

#define THREADS 16
#define PIECE_BLOCKS 16
#define SHORT_BLOCKS 4

struct batch {
	int fd;
	uint64_t first;
	unsigned count;
	uint64_t ring_segments;
	struct cache_segment_headers *found;
	bool first_only;
	atomic_uint next;
};

/* A piece of a segment in memory. */
struct window {
	uint8_t *data;
	unsigned first;
	unsigned blocks;
};

/* Where not all of BLOCKS can be read, the first one. */
static int window_load(struct window *window, const struct batch *batch, uint64_t segment, unsigned block,
		       unsigned blocks)
{
	uint64_t offset = cache_slot_offset(segment * CACHE_SEGMENT_BLOCKS + block);
	int result;

	if (block - window->first < window->blocks)
		return 0;
	window->first = block;
	window->blocks = MIN(blocks, CACHE_SEGMENT_BLOCKS - block);
	result = aio_fd_read(batch->fd, window->data, (size_t)window->blocks << BLOCK_SHIFT, offset);
	if (result < 0 && window->blocks > 1) {
		window->blocks = 1;
		result = aio_fd_read(batch->fd, window->data, BLOCK_SIZE, offset);
	}
	if (result < 0)
		window->blocks = 0;
	return result;
}

/* Blocks of the record with its header, 0 when this is none. */
static unsigned record_length(const struct cache_record_ondisk *header, uint64_t segment, unsigned block)
{
	uint64_t position = cache_slot_offset(segment * CACHE_SEGMENT_BLOCKS + block);
	uint32_t blocks = le32_get(header->blocks);

	uint32_t magic = le32_get(header->magic);

	if ((magic != CACHE_RECORD_MAGIC && magic != CACHE_RECORD_MAGIC_1) || le64_get(header->position) != position ||
	    blocks >= CACHE_SEGMENT_BLOCKS - block)
		return 0;
	return blocks + 1;
}

static void follow_segment(struct window *window, const struct batch *batch, uint64_t segment,
			   struct cache_segment_headers *found)
{
	unsigned length = CACHE_SEGMENT_BLOCKS;

	*window = (struct window){.data = window->data};
	for (unsigned block = 0; length && CACHE_SEGMENT_BLOCKS - block >= 2; block += length) {
		const uint8_t *header;

		found->error = window_load(window, batch, segment, block, length < SHORT_BLOCKS ? PIECE_BLOCKS : 1);
		if (found->error < 0)
			return;
		header = window->data + ((size_t)(block - window->first) << BLOCK_SHIFT);
		g_ptr_array_add(found->headers, g_memdup2(header, BLOCK_SIZE));
		length = batch->first_only ? 0
					   : record_length((const struct cache_record_ondisk *)header, segment, block);
	}
}

static void *thread_main(void *opaque)
{
	struct batch *batch = opaque;
	struct window window = {.data = aligned_alloc(BLOCK_SIZE, PIECE_BLOCKS * BLOCK_SIZE)};
	unsigned i;

	while ((i = atomic_fetch_add(&batch->next, 1)) < batch->count)
		follow_segment(&window, batch, (batch->first + i) % batch->ring_segments, &batch->found[i]);
	free(window.data);
	return NULL;
}

/* This thread does its share, and all of it where no other can be made. */
static void run(struct batch *batch)
{
	unsigned count = batch->count, started = 0;
	pthread_t threads[THREADS - 1];

	for (unsigned i = 0; i < count; i++)
		batch->found[i] = (struct cache_segment_headers){.headers = g_ptr_array_new_with_free_func(g_free)};
	while (started < MIN(count, THREADS) - 1 &&
	       thread_spawn(&threads[started], NULL, THREAD_STEP, thread_main, batch) == 0)
		started++;
	thread_main(batch);
	while (started > 0)
		pthread_join(threads[--started], NULL);
}

void cache_headers_read(int fd, uint64_t first, unsigned count, uint64_t ring_segments,
			struct cache_segment_headers *found)
{
	struct batch batch = {.fd = fd, .first = first, .count = count, .ring_segments = ring_segments, .found = found};

	run(&batch);
}

void cache_headers_read_first(int fd, uint64_t first, unsigned count, uint64_t ring_segments,
			      struct cache_segment_headers *found)
{
	struct batch batch = {.fd = fd,
			      .first = first,
			      .count = count,
			      .ring_segments = ring_segments,
			      .found = found,
			      .first_only = true};

	run(&batch);
}

void cache_headers_clear(struct cache_segment_headers *found, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		g_clear_pointer(&found[i].headers, g_ptr_array_unref);
}
