/* Writes to the local leaf.
 *
 * Persistent. The shared leaf comes first and decides: an error there goes to
 * the guest, and the cache forgets the blocks, because nobody knows what the
 * image has now. What succeeded is put into the cache, or forgotten where the
 * cache does not take it; a cache that fails and cannot even record that it
 * forgets gives the whole layer up (degraded). So at every answer to the guest
 * the cache has of these blocks what the image has, or nothing.
 *   1. Fetches under way are cancelled before the cache is changed (fetch.c).
 *
 * Ephemeral. The cache takes what it has room for; the rest goes to the
 * overflow layer, and once it is there the cache forgets what it had of it.
 *   2. A block in the cache is newer than the same block in the overflow layer. */
#include "ephemeral.h"

#include <errno.h>

#include "disk/overflow.h"

static void room_found(struct loop_task *task)
{
	io_run_finished(container_of(task, struct run, room.task), 0);
}

enum step local_wait_for_room(struct disk_io *io, bool dirty)
{
	struct run *run = context_get_run(io->context, io);

	if (!run)
		return STEP_WAIT;
	run->room.loop = io->context->loop;
	run->room.task.run = room_found;
	run->room.dirty = dirty;
	io->pending++;
	cache_wait(io->disk->local->cache, &run->room);
	return STEP_WAIT;
}

/* ---- Persistent ----------------------------------------------------------- */

enum step phase_forget(struct disk_io *io)
{
	uint64_t first = io->first_block, blocks = io->blocks;

	if (io->op == DISK_RESIZE) {
		first = MIN(io->length, io->old_size) >> BLOCK_SHIFT;
		blocks = blocks_of(MAX(io->length, io->old_size)) - first;
	}
	if (blocks == 0)
		return STEP_NEXT;
	fetch_cancel(&io->disk->local->fetches, io->disk->cached, first, blocks);
	return cache_forget(io->disk->cached, first, blocks) == -EAGAIN ? local_wait_for_room(io, false) : STEP_NEXT;
}

enum step phase_mirror(struct disk_io *io)
{
	const uint8_t *data = io->bounce ? io->bounce : io->buffer;
	uint64_t end = io->first_block + io->blocks;

	if (io->result < 0)
		return phase_forget(io);
	if (io->stage == 0) {
		fetch_cancel(&io->disk->local->fetches, io->disk->cached, io->first_block, io->blocks);
		io->next_block = io->first_block;
		io->stage = 1;
	}
	while (io->next_block < end) {
		int64_t n = cache_put(io->disk->cached, io->next_block, end - io->next_block,
				      data + ((io->next_block - io->first_block) << BLOCK_SHIFT), false);

		if (n == -EAGAIN)
			return local_wait_for_room(io, false);
		if (n < 0)
			return phase_forget(io);
		io->next_block += (uint64_t)n;
	}
	return STEP_NEXT;
}

/* ---- Ephemeral ------------------------------------------------------------ */

static void overflow_written(struct run *run, int result)
{
	if (result == 0)
		(void)cache_forget(run->owner->disk->cached, run->block, run->blocks);
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

uint64_t local_write_blocks(struct disk_io *io, uint64_t block, uint64_t limit, uint8_t *buffer)
{
	struct image *overflow = io->disk->overflow;
	struct run *run;
	int64_t n;

	n = cache_put(io->disk->cached, block, limit, buffer, true);
	if (n > 0)
		return (uint64_t)n;
	if (n == -EAGAIN) {
		(void)local_wait_for_room(io, false);
		return 0;
	}
	run = context_get_run(io->context, io);
	if (!run)
		return 0;
	if (!overflow) {
		overflow_make(run);
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
enum step phase_zero_local(struct disk_io *io)
{
	struct disk *disk = io->disk;

	if (io->stage == ZERO_LOCAL && io->inner_first < io->inner_end && io->result >= 0) {
		if (cache_put_zero(disk->cached, io->inner_first, io->inner_end - io->inner_first) < 0)
			io->stage = disk->overflow ? ZERO_OVERFLOW : ZERO_MAKE;
	}
	if (io->stage == ZERO_MAKE) {
		struct run *run = context_get_run(io->context, io);

		if (!run)
			return STEP_WAIT;
		io->stage = ZERO_OVERFLOW;
		overflow_make(run);
		return STEP_WAIT;
	}
	if (io->stage == ZERO_OVERFLOW && io->result >= 0) {
		if (!zero_overflow(io, disk->overflow))
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

	return first < end ? cache_put_zero(io->disk->cached, first, end - first) : 0;
}

enum step phase_resize_local(struct disk_io *io)
{
	struct disk *disk = io->disk;

	if (io->stage == 0 && io->result >= 0 && disk->overflow) {
		struct run *run = context_get_run(io->context, io);

		if (!run)
			return STEP_WAIT;
		io->stage = 1;
		resize_overflow(io, disk->overflow, run);
	}
	if (io->pending)
		return STEP_WAIT;
	if (io->result >= 0)
		io->result = forget_past_end(io);
	if (io->result >= 0)
		disk->size_bytes = io->length;
	return STEP_NEXT;
}
