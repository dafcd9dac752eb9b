/* Putting a batch from the cache onto its image.
 *
 * A raw image cannot take a batch all or nothing: its extents are written, many
 * at once, after its zeros, then the file is flushed. A crash in between leaves
 * the image torn until the cache, which has the batch, repeats it. The same
 * goes for a batch that is larger than what the image's journal can describe, and
 * for one that a full store has no room for as a whole: it goes in pieces.
 *
 * On a full store zeros go first, as they give room back, and what finds no room
 * does not keep the rest from being tried: what is allocated can be written. */
#include "migrate/apply.h"

#include <errno.h>

#include "aio/blocking.h"

#define WRITES_MAX 64
#define WRITE_BLOCKS_MAX 256
/* Of single blocks without room: the rest is not tried then. */
#define REFUSALS_MAX 16

bool apply_found_no_room(int result)
{
	return result < 0 && error_class_of(STORE_WRITE_BACK, result) == ERROR_NO_ROOM;
}

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
	bool stopped; /* by an error that keeps the rest from being tried */
	int result;   /* the first error */
	struct image_op room;
	struct write {
		struct image_io io;
		struct writes *writes;
		struct write *next; /* free */
	} pool[WRITES_MAX], *free;
};

static void write_more(struct writes *writes);

static void note_result(struct writes *writes, int result)
{
	if (result < 0 && writes->result == 0)
		writes->result = result;
	writes->stopped |= result < 0 && !apply_found_no_room(result);
}

static void write_done(struct image_io *io, int result)
{
	struct write *write = container_of(io, struct write, io);
	struct writes *writes = write->writes;

	note_result(writes, result);
	write->next = writes->free;
	writes->free = write;
	writes->pending--;
	write_more(writes);
}

static void room_came(struct image_op *op, int result)
{
	struct writes *writes = container_of(op, struct writes, room);

	writes->waiting = false;
	writes->stopped |= result < 0;
	note_result(writes, result);
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
		writes->stopped |= n != -EAGAIN;
		note_result(writes, n == -EAGAIN ? 0 : (int)n);
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

	while (more && !writes->stopped && writes->free && writes->extent < writes->end) {
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
	int result = image_run_blocking(image, &(struct image_op){.progress = batch->order}, image_note_progress);

	for (unsigned i = 0; i < batch->extent_count && result == 0; i++) {
		const struct cache_batch_extent *extent = &batch->extents[i];
		struct image_op zero = {.offset = extent->block << BLOCK_SHIFT,
					.length = extent->blocks << BLOCK_SHIFT};

		if (!extent->data)
			result = image_run_blocking(image, &zero, image_zero);
	}
	if (result == 0)
		result = write_extents(image, batch);
	return result < 0 ? result : image_run_blocking(image, &(struct image_op){0}, image_flush);
}

/* ---- All or nothing -------------------------------------------------------- */

static int apply_extents(struct image *image, const struct image_apply_extent *extents, unsigned count, uint64_t order)
{
	struct image_op op = {.extents = extents, .extent_count = count, .progress = order};
	int result = image_run_blocking(image, &op, image_apply);

	if (result != -EFBIG || count < 2)
		return result;
	result = apply_extents(image, extents, count / 2, order);
	return result < 0 ? result : apply_extents(image, extents + count / 2, count - count / 2, order);
}

static struct image_apply_extent *extents_of(const struct cache_batch *batch)
{
	struct image_apply_extent *extents = g_new0(struct image_apply_extent, batch->extent_count);

	for (unsigned i = 0; i < batch->extent_count; i++) {
		extents[i].offset = batch->extents[i].block << BLOCK_SHIFT;
		extents[i].length = batch->extents[i].blocks << BLOCK_SHIFT;
		extents[i].data = batch->extents[i].data;
	}
	return extents;
}

int batch_apply(struct image *image, const struct cache_batch *batch)
{
	g_autofree struct image_apply_extent *extents = extents_of(batch);
	int result = apply_extents(image, extents, batch->extent_count, batch->order);

	return result == -EOPNOTSUPP ? apply_loosely(image, batch) : result;
}

/* ---- On a full store ------------------------------------------------------- */

struct pieces {
	struct image *image;
	uint64_t order;
	unsigned refusals;
};

static int apply_halves(struct pieces *pieces, const struct image_apply_extent *extents, unsigned count);

static int apply_piece(struct pieces *pieces, const struct image_apply_extent *extents, unsigned count)
{
	struct image_op op = {.extents = extents, .extent_count = count, .progress = pieces->order};
	int result;

	if (count == 0)
		return 0;
	if (pieces->refusals >= REFUSALS_MAX)
		return -ENOSPC;
	result = image_run_blocking(pieces->image, &op, image_apply);
	if (!apply_found_no_room(result))
		return result;
	if (count > 1 || extents->length > BLOCK_SIZE)
		return apply_halves(pieces, extents, count);
	pieces->refusals++;
	return result;
}

static int apply_halves(struct pieces *pieces, const struct image_apply_extent *extents, unsigned count)
{
	struct image_apply_extent first = extents[0], second = extents[0];
	int result, other;

	if (count > 1) {
		result = apply_piece(pieces, extents, count / 2);
		other = apply_piece(pieces, extents + count / 2, count - count / 2);
		return result < 0 ? result : other;
	}
	first.length = round_up(extents->length / 2, BLOCK_SIZE);
	second.offset += first.length;
	second.length -= first.length;
	if (second.data)
		second.data = (uint8_t *)second.data + first.length;
	result = apply_piece(pieces, &first, 1);
	other = apply_piece(pieces, &second, 1);
	return result < 0 ? result : other;
}

/* EXTENTS by whether they are zeros, in order otherwise; how many are. */
static unsigned put_zeros_first(struct image_apply_extent *extents, unsigned count)
{
	g_autofree struct image_apply_extent *all = g_memdup2(extents, count * sizeof(*extents));
	unsigned to = 0, zeros;

	for (unsigned i = 0; i < count; i++)
		if (!all[i].data)
			extents[to++] = all[i];
	zeros = to;
	for (unsigned i = 0; i < count; i++)
		if (all[i].data)
			extents[to++] = all[i];
	return zeros;
}

int batch_apply_in_pieces(struct image *image, const struct cache_batch *batch)
{
	g_autofree struct image_apply_extent *extents = extents_of(batch);
	unsigned zeros = put_zeros_first(extents, batch->extent_count);
	struct pieces pieces = {.image = image, .order = batch->order};
	int result = apply_piece(&pieces, extents, zeros);
	int other = apply_piece(&pieces, extents + zeros, batch->extent_count - zeros);

	if (result == -EOPNOTSUPP || other == -EOPNOTSUPP)
		return apply_loosely(image, batch);
	return result < 0 ? result : other;
}
