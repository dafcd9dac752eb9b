/* What a log layer has, into an image: one piece after the other. */
#include "layer/copy.h"

#include <errno.h>
#include <string.h>

#include "aio/blocking.h"
#include "core/bytes.h"
#include "core/thread.h"
#include "layer/read.h"

#define PIECE_BLOCKS 256

struct copy {
	struct blocking_loop *blocking;
	struct layer *from;
	struct image *to;
	uint8_t *buffer;
	struct layer_io read;
	struct image_io write;
	bool finished; /* what is under way */
	int result;
};

static void finish(struct copy *copy, int result)
{
	copy->result = result;
	copy->finished = true;
}

static int await(struct copy *copy)
{
	loop_run(copy->blocking->loop, &copy->finished);
	return copy->result;
}

static void read_done(struct layer_io *io, int result)
{
	finish(container_of(io, struct copy, read), result);
}

static void write_done(struct image_io *io, int result)
{
	finish(container_of(io, struct copy, write), result);
}

/* How many blocks it has read; -errno. */
static int64_t read_piece(struct copy *copy, uint64_t block, uint64_t blocks)
{
	struct image_extent extent;
	int result;

	copy->finished = false;
	copy->read = (struct layer_io){
		.queue = copy->blocking->queue, .loop = copy->blocking->loop, .bypass = true, .done = read_done};
	extent = layer_read(&copy->read, copy->from, block, blocks, copy->buffer);
	if (extent.state != EXTENT_DATA)
		return -EIO;
	result = await(copy);
	return result < 0 ? result : (int64_t)extent.blocks;
}

static int64_t write_some(struct copy *copy, uint64_t block, uint64_t blocks, uint8_t *buffer)
{
	int64_t written;
	int result;

	copy->finished = false;
	copy->write = (struct image_io){
		.queue = copy->blocking->queue,
		.image = copy->to,
		.offset = block << BLOCK_SHIFT,
		.length = (uint32_t)(blocks << BLOCK_SHIFT),
		.buffer = buffer,
		.done = write_done,
	};
	written = image_write(&copy->write);
	if (written == -EAGAIN)
		return image_run_blocking(copy->to, &(struct image_op){0}, image_wait_room);
	if (written < 0)
		return written;
	result = await(copy);
	return result < 0 ? result : written;
}

static int write_piece(struct copy *copy, uint64_t block, uint64_t blocks)
{
	for (uint64_t done = 0; done < blocks;) {
		int64_t written = write_some(copy, block + done, blocks - done, copy->buffer + (done << BLOCK_SHIFT));

		if (written < 0)
			return (int)written;
		done += (uint64_t)written;
	}
	return 0;
}

/* How many blocks of EXTENT are copied now; -errno. */
static int64_t copy_piece(struct copy *copy, uint64_t block, struct image_extent extent)
{
	struct image_op zero = {.offset = block << BLOCK_SHIFT, .length = extent.blocks << BLOCK_SHIFT};
	int64_t blocks = (int64_t)extent.blocks;
	int result = 0;

	if (extent.state == EXTENT_ZERO)
		result = image_run_blocking(copy->to, &zero, image_zero);
	if (extent.state == EXTENT_DATA) {
		blocks = read_piece(copy, block, MIN(extent.blocks, PIECE_BLOCKS));
		result = blocks < 0 ? (int)blocks : write_piece(copy, block, (uint64_t)blocks);
	}
	return result < 0 ? result : blocks;
}

static int copy_all(struct copy *copy, bool (*go_on)(void *opaque), void *opaque)
{
	uint64_t end = blocks_of(copy->to->size_bytes);

	for (uint64_t block = 0; block < end;) {
		int64_t blocks = copy_piece(copy, block, layer_extent_blocking(copy->from, block, end - block));

		if (blocks < 0)
			return (int)blocks;
		if (go_on && !go_on(opaque))
			return -EINTR;
		block += (uint64_t)blocks;
	}
	return 0;
}

int layer_copy(struct layer *from, struct image *to, bool (*go_on)(void *opaque), void *opaque)
{
	struct copy copy = {.from = from, .to = to, .blocking = blocking_loop_get()};
	int result = -ENOMEM;

	thread_assert_may_wait();
	if (!copy.blocking)
		return result;
	copy.buffer = aligned_alloc(BLOCK_SIZE, (size_t)PIECE_BLOCKS << BLOCK_SHIFT);
	if (copy.buffer)
		result = copy_all(&copy, go_on, opaque);
	free(copy.buffer);
	blocking_loop_put(copy.blocking);
	return result;
}
