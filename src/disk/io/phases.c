/* The phases that all modes have: read, lock, write. */
#include "phases.h"

#include "read.h"
#include "step.h"

enum step phase_read(struct disk_io *io)
{
	uint64_t end = io->first_block + io->blocks;

	while (io->next_block < end && io->result >= 0) {
		uint8_t *buffer = (uint8_t *)io->buffer + ((io->next_block - io->first_block) << BLOCK_SHIFT);
		uint64_t n = io_read_blocks(io, io->next_block, end - io->next_block, buffer);

		if (!n)
			return STEP_WAIT;
		io->next_block += n;
	}
	return io_wait_pending(io);
}

static void step_task(struct loop_task *task)
{
	disk_io_step(container_of(task, struct disk_io, task));
}

/* On its own loop. */
static void granted(struct range *range)
{
	struct disk_io *io = container_of(range, struct disk_io, range);

	io->task.run = step_task;
	loop_post(io->context->loop, &io->task);
}

enum step phase_lock(struct disk_io *io)
{
	struct disk *disk = io->disk;

	if (io->stage++)
		return STEP_NEXT; /* granted after a wait */
	io_note_wait(io, DISK_WAIT_RANGE);
	range_init(&io->range, granted);
	io->range.first = io->first_block;
	io->range.blocks = io->blocks;
	LOCK_GUARD(&disk->lock);
	return range_lock_take(&disk->ranges, &io->range) ? STEP_NEXT : STEP_WAIT;
}

enum step phase_write(struct disk_io *io)
{
	uint8_t *data = io->bounce ? io->bounce : io->buffer;
	uint64_t end = io->first_block + io->blocks;

	while (io->next_block < end && io->result >= 0) {
		uint64_t done = io->next_block - io->first_block;
		uint64_t n =
			io->disk->route->write(io, io->next_block, end - io->next_block, data + (done << BLOCK_SHIFT));

		if (!n && io->result >= 0)
			return STEP_WAIT;
		io->next_block += n;
	}
	return io_wait_pending(io);
}
