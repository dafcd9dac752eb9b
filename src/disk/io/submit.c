/* A request's way through a disk.
 *
 * Each operation is a list of phases; a phase submits what it can and is
 * called again when all it waits for has come back. Nothing blocks and nothing
 * is allocated: transfers and bounce buffers come from the context's pools,
 * and a request that finds them empty waits on the starved list.
 *
 *   read     READ
 *   write    LOCK, EDGES (read the blocks written in part), WRITE
 *   zero     LOCK, EDGES, EDGES_WRITE, ZERO (the whole blocks)
 *   resize   LOCK (everything), EDGES, EDGES_WRITE, RESIZE
 *   flush    FLUSH
 *
 * A disk's mode is its route through these tables. Persistent adds MIRROR or
 * FORGET behind the shared leaf, ephemeral replaces what goes there (local.c),
 * writeback too, and has BARRIER for flush (writeback.c).
 *
 * Each run of blocks from one place is one transfer (read.c). Reads take no
 * lock: what they find while a write is under way is the old or the new. */
#include "io.h"

#include <errno.h>

#include "core/counters.h"
#include "core/fault.h"
#include "disk/mode/ephemeral.h"
#include "disk/mode/writeback.h"

static void io_finish(struct disk_io *io);

enum step io_wait_pending(const struct disk_io *io)
{
	return io->pending ? STEP_WAIT : STEP_NEXT;
}

void io_run_finished(struct run *run, int result)
{
	struct disk_io *io = run->owner;
	struct disk_context *context = io->context;

	context_put_run(context, run);
	if (result < 0 && io->result >= 0)
		io->result = result;
	if (--io->pending == 0 && !io->starved)
		disk_io_step(io);
	context_resume(context);
}

void io_transfer_done(struct image_io *image_io, int result)
{
	io_run_finished(container_of(image_io, struct run, io), result);
}

void io_op_done(struct image_op *op, int result)
{
	io_run_finished(container_of(op, struct run, op), result);
}

void io_wait_for_room(struct run *run, struct image *image)
{
	struct disk_io *io = run->owner;

	run->op = (struct image_op){.queue = io->context->queue, .done = io_op_done};
	io->pending++;
	image_wait_room(image, &run->op);
}

static uint64_t write_shared(struct disk_io *io, uint64_t block, uint64_t limit, uint8_t *buffer)
{
	struct run *run = context_get_run(io->context, io);
	int64_t written;

	if (!run)
		return 0;
	run->io = (struct image_io){
		.queue = io->context->queue,
		.image = io->disk->leaf,
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
		io_wait_for_room(run, io->disk->leaf);
		return 0;
	}
	io->result = written;
	context_put_run(io->context, run);
	return 0;
}

uint64_t io_write_blocks(struct disk_io *io, uint64_t block, uint64_t limit, uint8_t *buffer)
{
	if (io->disk->route == ROUTE_LOCAL)
		return local_write_blocks(io, block, limit, buffer);
	if (io->disk->route == ROUTE_WRITEBACK)
		return writeback_write_blocks(io, block, limit, buffer);
	return write_shared(io, block, limit, buffer);
}

bool io_run_op(struct disk_io *io, void (*submit)(struct image *, struct image_op *), uint64_t offset, uint64_t length,
	       bool bottom)
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
	submit(io->disk->leaf, &run->op);
	return true;
}

static enum step phase_read(struct disk_io *io)
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

static enum step phase_lock(struct disk_io *io)
{
	struct disk *disk = io->disk;
	bool taken;

	if (io->stage++)
		return STEP_NEXT; /* granted after a wait */
	g_mutex_lock(&disk->lock);
	taken = range_lock_take(&disk->ranges, io);
	g_mutex_unlock(&disk->lock);
	return taken ? STEP_NEXT : STEP_WAIT;
}

static enum step phase_write(struct disk_io *io)
{
	uint8_t *data = io->bounce ? io->bounce : io->buffer;
	uint64_t end = io->first_block + io->blocks;

	while (io->next_block < end && io->result >= 0) {
		uint64_t done = io->next_block - io->first_block;
		uint64_t n = io_write_blocks(io, io->next_block, end - io->next_block, data + (done << BLOCK_SHIFT));

		if (!n && io->result >= 0)
			return STEP_WAIT;
		io->next_block += n;
	}
	return io_wait_pending(io);
}

static enum step phase_zero(struct disk_io *io)
{
	uint64_t offset = io->inner_first << BLOCK_SHIFT;
	bool bottom = !io->disk->stack;

	if (io->stage == 0 && io->inner_first < io->inner_end && io->result >= 0) {
		if (!io_run_op(io, image_zero, offset, (io->inner_end << BLOCK_SHIFT) - offset, bottom))
			return STEP_WAIT;
		io->stage = 1;
	}
	return io_wait_pending(io);
}

static enum step phase_flush(struct disk_io *io)
{
	if (io->stage == 0) {
		if (!io_run_op(io, image_flush, 0, 0, false))
			return STEP_WAIT;
		io->stage = 1;
	}
	return io_wait_pending(io);
}

static enum step phase_fail(struct disk_io *io)
{
	io->result = -EIO;
	return STEP_NEXT;
}

static enum step phase_resize(struct disk_io *io)
{
	struct disk *disk = io->disk;

	if (io->stage == 0 && io->result >= 0) {
		if (!io_run_op(io, image_resize, 0, io->length, stack_size_bytes(disk->stack) <= disk->size_bytes))
			return STEP_WAIT;
		io->stage = 1;
	}
	if (io->pending)
		return STEP_WAIT;
	io->old_size = disk->size_bytes;
	if (io->result >= 0)
		disk->size_bytes = io->length;
	return STEP_NEXT;
}

typedef enum step (*phase)(struct disk_io *io);

#define PHASES(...) ((const phase[]){__VA_ARGS__, NULL})
#define PHASES_NONE ((const phase[]){NULL})

/* By route and operation. */
static const phase
	*const
		phases[]
		      [DISK_RESIZE + 1] =
			      {
				      [ROUTE_FAILED] =
					      {
						      [DISK_READ] = PHASES(phase_fail),
						      [DISK_WRITE] = PHASES(phase_fail),
						      [DISK_DISCARD] = PHASES(phase_fail),
						      [DISK_ZERO] = PHASES(phase_fail),
						      [DISK_FLUSH] = PHASES(phase_fail),
						      [DISK_RESIZE] = PHASES(phase_fail),
					      },
				      [ROUTE_WRITEBACK] =
					      {
						      [DISK_READ] = PHASES(phase_read),
						      [DISK_WRITE] =
							      PHASES(phase_lock, phase_write_edges_read, phase_write),
						      [DISK_DISCARD] = PHASES(phase_lock, phase_zero_edges_read,
									      phase_zero_edges_write, phase_zero_dirty),
						      [DISK_ZERO] = PHASES(phase_lock, phase_zero_edges_read,
									   phase_zero_edges_write, phase_zero_dirty),
						      [DISK_FLUSH] = PHASES(phase_barrier),
						      [DISK_RESIZE] = PHASES(
							      phase_lock,
							      phase_zero_edges_read, phase_zero_edges_write, phase_drain,
							      phase_resize, phase_forget),
					      },
				      [ROUTE_SHARED] =
					      {
						      [DISK_READ] = PHASES(phase_read),
						      [DISK_WRITE] =
							      PHASES(phase_lock, phase_write_edges_read, phase_write),
						      [DISK_DISCARD] = PHASES(phase_lock, phase_zero_edges_read,
									      phase_zero_edges_write, phase_zero),
						      [DISK_ZERO] = PHASES(phase_lock, phase_zero_edges_read,
									   phase_zero_edges_write, phase_zero),
						      [DISK_FLUSH] = PHASES(phase_flush),
						      [DISK_RESIZE] = PHASES(phase_lock,
									     phase_zero_edges_read, phase_zero_edges_write,
									     phase_resize),
					      },
				      [ROUTE_MIRRORED] =
					      {
						      [DISK_READ] = PHASES(phase_read),
						      [DISK_WRITE] = PHASES(phase_lock, phase_write_edges_read,
									    phase_write, phase_mirror),
						      [DISK_DISCARD] =
							      PHASES(phase_lock, phase_zero_edges_read,
								     phase_zero_edges_write, phase_zero, phase_forget),
						      [DISK_ZERO] =
							      PHASES(phase_lock, phase_zero_edges_read,
								     phase_zero_edges_write, phase_zero, phase_forget),
						      [DISK_FLUSH] = PHASES(phase_flush),
						      [DISK_RESIZE] = PHASES(phase_lock,
									     phase_zero_edges_read, phase_zero_edges_write,
									     phase_resize, phase_forget),
					      },
				      [ROUTE_LOCAL] =
					      {
						      [DISK_READ] = PHASES(phase_read),
						      [DISK_WRITE] =
							      PHASES(phase_lock, phase_write_edges_read, phase_write),
						      [DISK_DISCARD] = PHASES(phase_lock, phase_zero_edges_read,
									      phase_zero_edges_write, phase_zero_local),
						      [DISK_ZERO] = PHASES(phase_lock, phase_zero_edges_read,
									   phase_zero_edges_write, phase_zero_local),
						      [DISK_FLUSH] = PHASES_NONE,
						      [DISK_RESIZE] = PHASES(phase_lock,
									     phase_zero_edges_read, phase_zero_edges_write,
									     phase_resize_local),
					      },
};

/* A request that is answered without any. */
#define PHASE_NONE UINT8_MAX

static const phase *phases_of(const struct disk_io *io)
{
	return phases[io->disk->route][io->op];
}

static bool takes_range(const struct disk_io *io)
{
	return io->phase != PHASE_NONE && phases_of(io)[0] == phase_lock;
}

void disk_io_step(struct disk_io *io)
{
	io->starved = false;
	for (phase p; io->phase != PHASE_NONE && (p = phases_of(io)[io->phase]); io->phase++) {
		if (p(io) == STEP_WAIT)
			return;
		io->stage = 0;
	}
	io_finish(io);
}

static void step_task(struct loop_task *task)
{
	disk_io_step(container_of(task, struct disk_io, task));
}

/* Gives back what IO holds, its place in work too unless it is to be PARKED.
 * Those that waited for its range go on, each on its own loop. */
static void release(struct disk_io *io, bool park)
{
	struct disk *disk = io->disk;
	struct list granted;
	struct list *node;

	if (io->bounce)
		context_put_bounce(io->context, io->bounce);
	io->bounce = NULL;
	list_init(&granted);
	g_mutex_lock(&disk->lock);
	if (takes_range(io))
		range_unlock(&disk->ranges, io, &granted);
	if (!park)
		gate_leave_locked(disk);
	g_mutex_unlock(&disk->lock);
	while ((node = list_pop(&granted))) {
		struct disk_io *next = container_of(node, struct disk_io, link);

		next->task.run = step_task;
		loop_post(next->context->loop, &next->task);
	}
}

static void count_finished(const struct disk_io *io, int64_t result)
{
	if (result < 0)
		counter_add(errors, 1);
	else if (io->op == DISK_READ)
		counter_add(read_bytes, (uint64_t)result);
	else if (io->op == DISK_WRITE)
		counter_add(write_bytes, (uint64_t)result);
}

static int64_t result_of(const struct disk_io *io)
{
	static const char *const points[] = {
		[DISK_READ] = "disk.read", [DISK_WRITE] = "disk.write", [DISK_DISCARD] = "disk.discard",
		[DISK_ZERO] = "disk.zero", [DISK_FLUSH] = "disk.flush", [DISK_RESIZE] = "disk.resize",
	};
	int fault = fault_hit(points[io->op], disk_name(io->disk));

	return fault < 0 ? fault : io->result;
}

static void finish_task(struct loop_task *task)
{
	struct disk_io *io = container_of(task, struct disk_io, task);
	int64_t result = result_of(io);

	count_finished(io, result);
	io->done(io, result);
}

enum step io_park(struct disk_io *io)
{
	release(io, true);
	gate_park(io);
	return STEP_WAIT;
}

static void io_finish(struct disk_io *io)
{
	release(io, false);
	if (io->submitting) {
		io->task.run = finish_task;
		loop_post(io->context->loop, &io->task);
	} else {
		finish_task(&io->task);
	}
}

/* Cuts the request at the end of the disk. False: nothing is left of it, and
 * io->result is what to answer. */
static bool set_range(struct disk_io *io, uint64_t size)
{
	uint64_t end;

	if (io->op == DISK_FLUSH)
		return true;
	if (io->op == DISK_RESIZE) {
		io->blocks = UINT64_MAX >> (BLOCK_SHIFT + 1);
		return true;
	}
	if (io->offset >= size || io->length == 0) {
		io->result = io->offset >= size && io->length && io->op == DISK_WRITE ? -ENOSPC : 0;
		return false;
	}
	end = io->offset + MIN(io->length, size - io->offset);
	if (io->op == DISK_READ || io->op == DISK_WRITE)
		end = MIN(end, io->offset + DISK_IO_BYTES_MAX);
	io->first_block = io->offset >> BLOCK_SHIFT;
	io->blocks = blocks_of(end) - io->first_block;
	io->result = io->op == DISK_READ || io->op == DISK_WRITE ? (int64_t)(end - io->offset) : 0;
	return true;
}

static void count_submitted(const struct disk_io *io)
{
	if (io->op == DISK_READ)
		counter_add(read_requests, 1);
	else if (io->op == DISK_WRITE)
		counter_add(write_requests, 1);
	else if (io->op == DISK_FLUSH)
		counter_add(flush_requests, 1);
	else
		counter_add(discard_requests, 1);
}

static bool is_long_run(const struct disk_io *io)
{
	struct disk *disk = io->disk;
	uint64_t bytes;

	g_mutex_lock(&disk->lock);
	bytes = streams_note(&disk->streams, io->offset, io->length);
	g_mutex_unlock(&disk->lock);
	return bytes > disk->local->read_run_bypass;
}

/* IO is in work. */
static void start(struct disk_io *io)
{
	list_init(&io->link);
	list_init(&io->range_link);
	io->first_block = io->blocks = io->inner_first = io->inner_end = 0;
	io->bounce = NULL;
	io->result = 0;
	io->pending = 0;
	io->phase = io->stage = 0;
	io->starved = io->submitting = false;
	if (!set_range(io, io->disk->size_bytes)) {
		io->phase = PHASE_NONE;
	} else if (io->disk->refusing) {
		io->result = -EIO;
		io->phase = PHASE_NONE;
	}
	io->next_block = io->first_block;
	if (io->phase == 0 && io->op != DISK_READ && io->op != DISK_FLUSH && !disk_takes_writes(io->disk)) {
		io->result = -EROFS;
		io->phase = PHASE_NONE;
	}
	io->submitting = true;
	disk_io_step(io);
	io->submitting = false;
}

void disk_io_restart(struct loop_task *task)
{
	start(container_of(task, struct disk_io, task));
}

void disk_submit(struct disk_io *io)
{
	list_init(&io->link);
	io->bypass = io->op == DISK_READ && disk_uses_cache(io->disk) && is_long_run(io);
	count_submitted(io);
	if (gate_enter(io))
		start(io);
}
