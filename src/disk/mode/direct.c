/* Direct: the shared leaf takes what is written, and has all there is of it.
 *
 * Also how a disk goes on whose cache fails. */
#include "direct.h"

#include "disk/io/phases.h"

struct image_extent direct_read(struct run *run, uint64_t block, uint64_t limit, uint8_t *buffer)
{
	return layer_read(&run->read, run->owner->disk->leaf, block, limit, buffer);
}

uint64_t direct_write(struct disk_io *io, uint64_t block, uint64_t limit, uint8_t *buffer)
{
	struct run *run = context_get_run(io->context, io);
	int64_t written;

	if (!run)
		return 0;
	run->io = (struct image_io){
		.queue = io->context->queue,
		.image = io->disk->leaf->image,
		.offset = block << BLOCK_SHIFT,
		.length = (uint32_t)(limit << BLOCK_SHIFT),
		.buffer = buffer,
		.done = io_transfer_done,
	};
	written = image_write(&run->io);
	if (written > 0) {
		io->pending++;
		return (uint64_t)written;
	}
	if (written == -EAGAIN) {
		io_wait_for_room(run, io->disk->leaf->image);
		return 0;
	}
	io->result = written;
	context_put_run(io->context, run);
	return 0;
}

struct image_extent direct_extent(struct disk *disk, uint64_t block, uint64_t limit)
{
	return image_extent_blocking(disk->leaf->image, block, limit);
}

bool direct_takes_writes(const struct disk *disk)
{
	return disk->leaf->image->writable;
}

/* How far ahead of a disk that grows by writes its image is. */
#define ROOM_BYTES_MIN (UINT64_C(1) << 20)
#define ROOM_BYTES_MAX (UINT64_C(1) << 30)

/* A run for an operation on the leaf: OFFSET and LENGTH in bytes. False when
 * starved. */
static bool run_op(struct disk_io *io, void (*submit)(struct image *, struct image_op *), uint64_t offset,
		   uint64_t length, bool bottom)
{
	struct run *run = context_get_run(io->context, io);

	if (!run)
		return false;
	run->op = (struct image_op){
		.queue = io->context->queue,
		.offset = offset,
		.length = length,
		.keep_allocated = io->op == DISK_ZERO,
		.bottom = bottom,
		.done = io_op_done,
	};
	io->pending++;
	submit(io->disk->leaf->image, &run->op);
	return true;
}

enum step phase_zero(struct disk_io *io)
{
	uint64_t offset = io->inner_first << BLOCK_SHIFT;
	bool bottom = !io->disk->stack;

	if (io->stage == 0 && io->inner_first < io->inner_end && io->result >= 0) {
		if (!run_op(io, image_zero, offset, (io->inner_end << BLOCK_SHIFT) - offset, bottom))
			return STEP_WAIT;
		io->stage = 1;
	}
	return io_wait_pending(io);
}

enum step phase_flush(struct disk_io *io)
{
	if (io->stage == 0) {
		if (!run_op(io, image_flush, 0, 0, false))
			return STEP_WAIT;
		io->stage = 1;
	}
	return io_wait_pending(io);
}

static void begin_resize(struct disk *disk)
{
	LOCK_GUARD(&disk->lock);
	disk->resizing = true;
}

static void end_resize(struct disk *disk, uint64_t size_bytes)
{
	LOCK_GUARD(&disk->lock);
	disk->size_bytes = size_bytes;
	disk->resizing = false;
}

/* The leaf has BYTES when nothing is pending any more. False when starved. */
static bool resize_leaf(struct disk_io *io, uint64_t bytes)
{
	struct disk *disk = io->disk;

	begin_resize(disk);
	if (!run_op(io, image_resize, 0, bytes, stack_size_bytes(disk->stack) <= disk->size_bytes))
		return false;
	io->stage = 1;
	return true;
}

enum step phase_resize(struct disk_io *io)
{
	struct disk *disk = io->disk;

	if (io->stage == 0 && io->result >= 0 && !resize_leaf(io, io->length))
		return STEP_WAIT;
	if (io->pending)
		return STEP_WAIT;
	io->old_size = disk->size_bytes;
	end_resize(disk, io->result >= 0 ? io->length : disk->size_bytes);
	return STEP_NEXT;
}

/* As much again, within limits: not every write that makes a disk larger waits for a commit. */
static uint64_t room_for(const struct disk *disk, uint64_t bytes)
{
	if (bytes == 0)
		return disk->size_bytes;
	return MAX(bytes + CLAMP(bytes, ROOM_BYTES_MIN, ROOM_BYTES_MAX), disk->leaf->image->size_bytes);
}

enum step phase_grow(struct disk_io *io)
{
	struct disk *disk = io->disk;

	if (io->stage == 0 && io->result >= 0 && !resize_leaf(io, room_for(disk, io->length)))
		return STEP_WAIT;
	if (io->pending)
		return STEP_WAIT;
	end_resize(disk, io->result >= 0 ? MAX(io->length, disk->size_bytes) : disk->size_bytes);
	return STEP_NEXT;
}

const struct route route_direct = {
	.name = "direct",
	.read = direct_read,
	.write = direct_write,
	.extent = direct_extent,
	.takes_writes = direct_takes_writes,
	.phases =
		{
			[DISK_READ] = PHASES(phase_read),
			[DISK_WRITE] = PHASES(phase_lock, phase_write_edges_read, phase_write),
			[DISK_DISCARD] = PHASES(phase_lock, phase_zero_edges_read, phase_zero_edges_write, phase_zero),
			[DISK_ZERO] = PHASES(phase_lock, phase_zero_edges_read, phase_zero_edges_write, phase_zero),
			[DISK_FLUSH] = PHASES(phase_flush),
			[DISK_RESIZE] = PHASES(phase_lock, phase_zero_edges_read, phase_zero_edges_write, phase_resize),
			[DISK_GROW] = PHASES(phase_lock, phase_grow),
		},
};
