/* Putting a batch from the cache onto its image.
 *
 * A raw image cannot take a batch all or nothing: its extents are written, many
 * at once, then its zeros, then the file is flushed. A crash in between leaves
 * the image torn until the cache, which has the batch, repeats it. The same
 * goes for a batch that is larger than what the image's journal can describe:
 * it goes in pieces. */
#include "apply.h"

#include <errno.h>

#include "aio/blocking.h"

#define WRITES_MAX 64
#define WRITE_BLOCKS_MAX 256

/* ---- Piece by piece -------------------------------------------------------- */

struct writes {
	struct aio_queue *queue;
	struct image *image;
	const struct cache_batch_extent *extent;
	const struct cache_batch_extent *end;
	uint64_t done; /* blocks of EXTENT */
	unsigned pending;
	bool waiting; /* for the image's room */
	bool finished;
	int result;
	struct image_op room;
	struct write {
		struct image_io io;
		struct writes *writes;
		struct write *next; /* free */
	} pool[WRITES_MAX], *free;
};

static void write_more(struct writes *writes);

static void write_done(struct image_io *io, int result)
{
	struct write *write = container_of(io, struct write, io);
	struct writes *writes = write->writes;

	if (result < 0 && writes->result == 0)
		writes->result = result;
	write->next = writes->free;
	writes->free = write;
	writes->pending--;
	write_more(writes);
}

static void room_came(struct image_op *op, int result)
{
	struct writes *writes = container_of(op, struct writes, room);

	writes->waiting = false;
	if (result < 0 && writes->result == 0)
		writes->result = result;
	write_more(writes);
}

/* False: nothing more can be submitted now. */
static bool write_one(struct writes *writes)
{
	const struct cache_batch_extent *extent = writes->extent;
	uint64_t blocks = MIN(extent->blocks - writes->done, WRITE_BLOCKS_MAX);
	struct write *write = writes->free;
	int64_t n;

	write->io = (struct image_io){
		.queue = writes->queue,
		.offset = (extent->block + writes->done) << BLOCK_SHIFT,
		.length = (uint32_t)(blocks << BLOCK_SHIFT),
		.buffer = extent->data + (writes->done << BLOCK_SHIFT),
		.done = write_done,
	};
	write->io.image = writes->image;
	n = image_write(&write->io);
	if (n == -EAGAIN) {
		writes->room = (struct image_op){.queue = writes->queue, .done = room_came};
		writes->waiting = true;
		image_wait_room(writes->image, &writes->room);
	}
	if (n < 0) {
		writes->result = n == -EAGAIN ? writes->result : (int)n;
		return false;
	}
	writes->free = write->next;
	writes->pending++;
	writes->done += (uint64_t)n;
	return true;
}

static void write_more(struct writes *writes)
{
	bool more = !writes->waiting;

	while (more && writes->result == 0 && writes->free && writes->extent < writes->end) {
		if (writes->extent->data && writes->done < writes->extent->blocks) {
			more = write_one(writes);
			continue;
		}
		writes->extent++;
		writes->done = 0;
	}
	writes->finished = writes->pending == 0 && !writes->waiting;
}

static void write_all(struct writes *writes, struct blocking_loop *blocking)
{
	writes->queue = blocking->queue;
	for (unsigned i = 0; i < WRITES_MAX; i++) {
		writes->pool[i].writes = writes;
		writes->pool[i].next = writes->free;
		writes->free = &writes->pool[i];
	}
	write_more(writes);
	if (!writes->finished)
		loop_run(blocking->loop, &writes->finished);
}

static int write_extents(struct image *image, const struct cache_batch *batch)
{
	g_autofree struct writes *writes = g_new0(struct writes, 1);
	struct blocking_loop *blocking = blocking_loop_get();

	if (!blocking)
		return -ENOMEM;
	writes->image = image;
	writes->extent = batch->extents;
	writes->end = batch->extents + batch->extent_count;
	write_all(writes, blocking);
	blocking_loop_put(blocking);
	return writes->result;
}

static int apply_loosely(struct image *image, const struct cache_batch *batch)
{
	int result = write_extents(image, batch);

	for (unsigned i = 0; i < batch->extent_count && result == 0; i++) {
		const struct cache_batch_extent *extent = &batch->extents[i];
		struct image_op zero = {.offset = extent->block << BLOCK_SHIFT,
					.length = extent->blocks << BLOCK_SHIFT};

		if (!extent->data)
			result = image_run_blocking(image, &zero, image_zero);
	}
	return result < 0 ? result : image_run_blocking(image, &(struct image_op){0}, image_flush);
}

/* ---- All or nothing -------------------------------------------------------- */

static int apply_extents(struct image *image, const struct image_apply_extent *extents, unsigned count)
{
	struct image_op op = {.extents = extents, .extent_count = count};
	int result = image_run_blocking(image, &op, image_apply);

	if (result != -EFBIG || count < 2)
		return result;
	result = apply_extents(image, extents, count / 2);
	return result < 0 ? result : apply_extents(image, extents + count / 2, count - count / 2);
}

int batch_apply(struct image *image, const struct cache_batch *batch)
{
	g_autofree struct image_apply_extent *extents = g_new0(struct image_apply_extent, batch->extent_count);
	int result;

	for (unsigned i = 0; i < batch->extent_count; i++) {
		extents[i].offset = batch->extents[i].block << BLOCK_SHIFT;
		extents[i].length = batch->extents[i].blocks << BLOCK_SHIFT;
		extents[i].data = batch->extents[i].data;
	}
	result = apply_extents(image, extents, batch->extent_count);
	return result == -EOPNOTSUPP ? apply_loosely(image, batch) : result;
}
