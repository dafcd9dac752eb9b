/* Reads and writes of blocks.
 *
 * A read pins its chunk, so that the slot is not handed to another while the
 * transfer is under way. A write allocates first, transfers, and publishes its
 * blocks when the data is in place: until then readers see what was there
 * before (invariant 5 of leaf.h). One that fails leaves what was there before, and
 * the slot that it allocated free. */
#include "io.h"

#include "bits.h"
#include "dirty.h"
#include "discard.h"
#include "geometry.h"
#include "lock.h"
#include "redo.h"
#include "room.h"
#include "table.h"

static uint64_t chunk_index(const struct leaf *leaf, uint64_t block)
{
	return block / leaf->geometry.chunk_blocks;
}

static uint32_t block_in_chunk(const struct leaf *leaf, uint64_t block)
{
	return (uint32_t)(block % leaf->geometry.chunk_blocks);
}

static uint32_t cut_to_chunk(const struct leaf *leaf, uint64_t block, uint64_t blocks)
{
	return (uint32_t)MIN(blocks, leaf->geometry.chunk_blocks - block_in_chunk(leaf, block));
}

/* Blocks in no chunk: zero or absent. FAR: as far as it goes, at some cost;
 * otherwise absent ones only to the end of their chunk. */
static struct image_extent extent_without_chunk(struct leaf *leaf, uint64_t block, uint64_t blocks, bool far)
{
	uint64_t index = chunk_index(leaf, block), run = 1;
	uint64_t chunks = chunk_index(leaf, block + blocks - 1) - index + 1;
	bool zero = false;

	if (intervals_length(leaf->zero))
		zero = intervals_contains(leaf->zero, index, chunks, &run);
	else if (far)
		run = chunks;
	if (!zero)
		run = far ? leaf_chunks_without_slot_locked(leaf, index, run) : 1;
	return (struct image_extent){
		zero ? EXTENT_ZERO : EXTENT_ABSENT,
		MIN(blocks, run * leaf->geometry.chunk_blocks - block_in_chunk(leaf, block)),
	};
}

static struct image_extent extent_in_chunk(struct leaf *leaf, struct chunk *chunk, uint64_t block, uint64_t blocks)
{
	uint32_t first = block_in_chunk(leaf, block), count = cut_to_chunk(leaf, block, blocks);
	const uint64_t *present = chunk_present(leaf, chunk), *zero = chunk_zero(leaf, chunk);
	struct image_extent extent = {EXTENT_ABSENT, bits_run(present, zero, first, count)};

	if (bits_test(zero, first))
		extent.state = EXTENT_ZERO;
	else if (bits_test(present, first))
		extent.state = EXTENT_DATA;
	return extent;
}

struct image_extent leaf_extent(struct image *image, uint64_t block, uint64_t blocks, bool may_block)
{
	struct leaf *leaf = leaf_of(image);
	struct image_extent extent;
	struct chunk *chunk;

	LOCK_GUARD(&leaf->lock);
	chunk = leaf_chunk_find(leaf, chunk_index(leaf, block));
	extent = chunk ? extent_in_chunk(leaf, chunk, block, blocks)
		       : extent_without_chunk(leaf, block, blocks, may_block);
	return extent;
}

static uint64_t block_offset(const struct leaf *leaf, const struct chunk *chunk, uint64_t block)
{
	return leaf_slot_offset(&leaf->geometry, chunk->slot) + ((uint64_t)block_in_chunk(leaf, block) << BLOCK_SHIFT);
}

static void submit(struct leaf *leaf, struct image_io *io, enum aio_op op, struct chunk *chunk, uint64_t offset,
		   uint64_t blocks, void (*done)(struct aio_request *request, int result))
{
	uint32_t bytes = (uint32_t)(blocks << BLOCK_SHIFT);

	io->pin = chunk;
	io->aio = (struct aio_request){
		.op = op,
		.file = &leaf->file.aio,
		.buffer = io->buffer,
		.offset = offset,
		.length = bytes,
		.needed = bytes,
		.done = done,
	};
	aio_submit(io->queue, &io->aio);
}

static void read_done(struct aio_request *request, int result)
{
	struct image_io *io = container_of(request, struct image_io, aio);
	struct leaf *leaf = leaf_of(io->image);

	lock_take(&leaf->lock);
	leaf_chunk_put_locked(leaf, io->pin, false);
	lock_let_go(&leaf->lock);
	io->done(io, result);
}

static void read_extent(struct leaf *leaf, struct image_io *io, struct chunk *chunk, uint64_t block,
			struct image_extent *extent)
{
	uint64_t offset = block_offset(leaf, chunk, block);

	if (leaf->redo->len)
		offset = leaf_redo_place(leaf, block, offset, &extent->blocks);
	submit(leaf, io, AIO_READ, chunk, offset, extent->blocks, read_done);
}

struct image_extent leaf_read(struct image_io *io)
{
	struct leaf *leaf = leaf_of(io->image);
	uint64_t block = io->offset >> BLOCK_SHIFT, blocks = io->length >> BLOCK_SHIFT;
	struct image_extent extent;
	struct chunk *chunk;

	lock_take(&leaf->lock);
	chunk = leaf_chunk_find(leaf, chunk_index(leaf, block));
	extent = chunk ? extent_in_chunk(leaf, chunk, block, blocks) : extent_without_chunk(leaf, block, blocks, false);
	if (extent.state == EXTENT_DATA)
		chunk->users++;
	lock_let_go(&leaf->lock);
	if (extent.state == EXTENT_DATA)
		read_extent(leaf, io, chunk, block, &extent);
	return extent;
}

/* The blocks written are data from now on. Where a soft write has put some that
 * nothing on disk names yet, a hard one has all of the chunk named: its own
 * blocks may be among them. */
static void publish_locked(struct leaf *leaf, struct chunk *chunk, uint32_t first, uint32_t count, bool soft)
{
	uint64_t *present = chunk_present(leaf, chunk), *zero = chunk_zero(leaf, chunk);

	leaf_assert_locked(leaf);
	if (bits_all_set(present, first, count) && !bits_any_set(zero, first, count) && (soft || !chunk->soft))
		return;
	bits_set(present, first, count);
	bits_clear(zero, first, count);
	if (soft) {
		chunk->soft = true;
		leaf_page_mark_dirty_locked(leaf, chunk->slot);
	} else {
		leaf_chunk_mark_dirty_locked(leaf, chunk);
	}
}

static void write_done(struct aio_request *request, int result)
{
	struct image_io *io = container_of(request, struct image_io, aio);
	struct leaf *leaf = leaf_of(io->image);
	struct chunk *chunk = io->pin;
	uint32_t first = block_in_chunk(leaf, io->offset >> BLOCK_SHIFT);

	lock_take(&leaf->lock);
	if (result == 0) {
		leaf->unflushed = true;
		publish_locked(leaf, chunk, first, request->length >> BLOCK_SHIFT, io->soft);
		leaf_chunk_put_locked(leaf, chunk, true);
	} else {
		leaf_zero_put_locked(leaf, chunk, false);
	}
	lock_let_go(&leaf->lock);
	io->done(io, result);
}

int64_t leaf_write(struct image_io *io)
{
	struct leaf *leaf = leaf_of(io->image);
	uint64_t block = io->offset >> BLOCK_SHIFT;
	uint64_t blocks = cut_to_chunk(leaf, block, io->length >> BLOCK_SHIFT);
	struct chunk *chunk;
	bool ahead = false;
	int errnum = 0;

	lock_take(&leaf->lock);
	chunk = leaf_chunk_find(leaf, chunk_index(leaf, block));
	if (!chunk) {
		chunk = leaf_chunk_allocate_locked(leaf, chunk_index(leaf, block), &errnum);
		ahead = chunk && leaf_room_ahead_locked(leaf);
	}
	if (chunk) {
		chunk->users++;
		chunk->writers++;
	}
	lock_let_go(&leaf->lock);
	if (ahead)
		leaf_room_ahead(leaf);
	if (!chunk)
		return errnum;
	submit(leaf, io, AIO_WRITE, chunk, block_offset(leaf, chunk, block), blocks, write_done);
	return (int64_t)blocks;
}
