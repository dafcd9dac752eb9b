/* Ephemeral. The cache takes what it has room for; the rest goes to the
 * overflow layer, and once it is there the cache forgets what it had of it.
 *   2. A block in the cache is newer than the same block in the overflow layer. */
#include <errno.h>

#include "disk/count.h"
#include "disk/io/phases.h"
#include "disk/io/step.h"

/* What an ephemeral disk was given: in the cache, or in the overflow layer. */
static struct image_extent read_blocks(struct run *run, uint64_t block, uint64_t limit, uint8_t *buffer)
{
	struct disk *disk = run->owner->disk;
	struct cache_extent cached = layer_read_cached(&run->read, disk->leaf, block, limit, buffer);

	if (cached.answer != CACHE_MISS)
		return layer_extent_of(cached);
	if (!disk->leaf->overflow)
		return (struct image_extent){EXTENT_ABSENT, cached.blocks};
	return layer_read_image(&run->read, disk->leaf, block, cached.blocks, buffer);
}

/* What the log layer of an ephemeral disk has. */
static struct image_extent extent_of(struct disk *disk, uint64_t block, uint64_t limit)
{
	struct cache_extent cached = cache_lookup_far(disk->leaf->cached, block, limit);
	struct image *overflow = disk->leaf->overflow;

	if (cached.answer != CACHE_MISS)
		return (struct image_extent){cached.answer == CACHE_HIT ? EXTENT_DATA : EXTENT_ZERO, cached.blocks};
	if (!overflow)
		return (struct image_extent){EXTENT_ABSENT, cached.blocks};
	return image_extent(overflow, block, cached.blocks);
}

static bool takes_writes(const struct disk *disk)
{
	return disk->writable;
}

/* ---- Writes ------------------------------------------------------------------- */

static void overflow_written(struct run *run, int result)
{
	if (result == 0)
		(void)cache_forget(run->owner->disk->leaf->cached, run->block, run->blocks);
	io_run_finished(run, result);
}

static void overflow_transfer_done(struct image_io *image_io, int result)
{
	overflow_written(container_of(image_io, struct run, io), result);
}

static void overflow_op_done(struct image_op *op, int result)
{
	overflow_written(container_of(op, struct run, op), result);
}

static void overflow_made(struct overflow_wait *wait, int result)
{
	io_run_finished(container_of(wait, struct run, overflow), result);
}

static void make_overflow(struct run *run)
{
	struct disk_io *io = run->owner;

	io->pending++;
	run->overflow = (struct overflow_wait){
		.loop = io->context->loop,
		.size_bytes = io->disk->size_bytes,
		.done = overflow_made,
	};
	overflow_make(io->disk->leaf, &run->overflow);
}

/* A negative errno; 0: the caller has to wait, for the image's room. */
static int64_t write_overflow(struct run *run, struct image *overflow, uint64_t block, uint64_t limit, uint8_t *buffer)
{
	int64_t written;

	run->io = (struct image_io){
		.queue = run->owner->context->queue,
		.image = overflow,
		.offset = block << BLOCK_SHIFT,
		.length = (uint32_t)(limit << BLOCK_SHIFT),
		.buffer = buffer,
		.done = overflow_transfer_done,
	};
	written = image_write(&run->io);
	run->block = block;
	run->blocks = written > 0 ? (uint64_t)written : 0;
	if (written != -EAGAIN)
		return written;
	io_wait_for_room(run, overflow);
	return 0;
}

static uint64_t write_blocks(struct disk_io *io, uint64_t block, uint64_t limit, uint8_t *buffer)
{
	struct image *overflow = io->disk->leaf->overflow;
	struct cache_found found;
	struct run *run;
	int64_t n;

	n = cache_put_over(io->disk->leaf->cached, block, limit, buffer, true, &found);
	if (n > 0) {
		count_put(io, block, (uint64_t)n, &found);
		return (uint64_t)n;
	}
	if (n == -EAGAIN) {
		(void)io_wait_for_cache(io, false);
		return 0;
	}
	run = context_get_run(io->context, io);
	if (!run)
		return 0;
	if (!overflow) {
		make_overflow(run);
		return 0;
	}
	n = write_overflow(run, overflow, block, limit, buffer);
	if (n > 0)
		io->pending++;
	if (n >= 0)
		return (uint64_t)n;
	io->result = n;
	context_put_run(io->context, run);
	return 0;
}

static bool zero_overflow(struct disk_io *io, struct image *overflow)
{
	struct run *run = context_get_run(io->context, io);

	if (!run)
		return false;
	run->block = io->inner_first;
	run->blocks = io->inner_end - io->inner_first;
	run->op = (struct image_op){
		.queue = io->context->queue,
		.offset = io->inner_first << BLOCK_SHIFT,
		.length = (io->inner_end - io->inner_first) << BLOCK_SHIFT,
		.done = overflow_op_done,
	};
	io->pending++;
	image_zero(overflow, &run->op);
	return true;
}

enum zero_stage { ZERO_LOCAL, ZERO_MAKE, ZERO_OVERFLOW, ZERO_DONE };

/* The cache keeps ranges of zeros in memory, as many as it allows. */
static enum step phase_zero_local(struct disk_io *io)
{
	struct disk *disk = io->disk;

	if (io->stage == ZERO_LOCAL && io->inner_first < io->inner_end && io->result >= 0) {
		if (cache_put_zero(disk->leaf->cached, io->inner_first, io->inner_end - io->inner_first) < 0)
			io->stage = disk->leaf->overflow ? ZERO_OVERFLOW : ZERO_MAKE;
	}
	if (io->stage == ZERO_MAKE) {
		struct run *run = context_get_run(io->context, io);

		if (!run)
			return STEP_WAIT;
		io->stage = ZERO_OVERFLOW;
		make_overflow(run);
		return STEP_WAIT;
	}
	if (io->stage == ZERO_OVERFLOW && io->result >= 0) {
		if (!zero_overflow(io, disk->leaf->overflow))
			return STEP_WAIT;
		io->stage = ZERO_DONE;
	}
	return io_wait_pending(io);
}

static void resize_overflow(struct disk_io *io, struct image *overflow, struct run *run)
{
	run->op = (struct image_op){
		.queue = io->context->queue,
		.length = io->length,
		.done = io_op_done,
	};
	io->pending++;
	image_resize(overflow, &run->op);
}

/* What a shrink cuts off must not come back when the disk grows again. */
static int forget_past_end(struct disk_io *io)
{
	uint64_t first = blocks_of(io->length), end = blocks_of(io->disk->size_bytes);

	return first < end ? cache_put_zero(io->disk->leaf->cached, first, end - first) : 0;
}

static enum step phase_resize_local(struct disk_io *io)
{
	struct disk *disk = io->disk;

	if (io->stage == 0 && io->result >= 0 && disk->leaf->overflow) {
		struct run *run = context_get_run(io->context, io);

		if (!run)
			return STEP_WAIT;
		io->stage = 1;
		resize_overflow(io, disk->leaf->overflow, run);
	}
	if (io->pending)
		return STEP_WAIT;
	if (io->result >= 0)
		io->result = forget_past_end(io);
	if (io->result >= 0)
		disk->size_bytes = io->length;
	return STEP_NEXT;
}

/* Without room ahead: there is no commit that a size waits for. */
static enum step phase_grow_local(struct disk_io *io)
{
	return io->length > io->disk->size_bytes ? phase_resize_local(io) : io_wait_pending(io);
}

const struct route route_ephemeral = {
	.name = "ephemeral",
	.read = read_blocks,
	.write = write_blocks,
	.extent = extent_of,
	.takes_writes = takes_writes,
	.keeps_what_is_cut = true,
	.phases =
		{
			[DISK_READ] = PHASES(phase_read),
			[DISK_WRITE] = PHASES(phase_lock, phase_write_edges_read, phase_write),
			[DISK_DISCARD] =
				PHASES(phase_lock, phase_zero_edges_read, phase_zero_edges_write, phase_zero_local),
			[DISK_ZERO] =
				PHASES(phase_lock, phase_zero_edges_read, phase_zero_edges_write, phase_zero_local),
			[DISK_FLUSH] = PHASES_NONE,
			[DISK_RESIZE] =
				PHASES(phase_lock, phase_zero_edges_read, phase_zero_edges_write, phase_resize_local),
			[DISK_GROW] = PHASES(phase_lock, phase_grow_local),
		},
};
