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
 *   grow     LOCK (everything), GROW
 *   flush    FLUSH
 *
 * A disk's mode is its route: a table of these lists, one in each file of mode/.
 *
 * Each run of blocks from one place is one transfer (read.c). Reads take no
 * lock: what they find while a write is under way is the old or the new. */
#include "disk/disk.h"

#include <errno.h>
#include <inttypes.h>

#include "core/counters.h"
#include "step.h"
#include "core/log.h"
#include "disk/count.h"
#include "disk/requests.h"

/* Cuts the request at the end of the disk. False: nothing is left of it, and
 * io->result is what to answer. */
static bool set_range(struct disk_io *io, uint64_t size)
{
	uint64_t end;

	if (io->op == DISK_FLUSH)
		return true;
	if (io->op == DISK_RESIZE || io->op == DISK_GROW) {
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

static bool is_long_run_locked(const struct disk_io *io)
{
	struct disk *disk = io->disk;

	lock_assert_mine(&disk->lock);
	return streams_note(&disk->streams, io->offset, io->length) > disk->pool_cache->read_run_bypass;
}

/* IO is in work. */
static void start(struct disk_io *io)
{
	list_init(&io->link);
	range_init(&io->range, NULL);
	io->first_block = io->blocks = io->inner_first = io->inner_end = 0;
	io->bounce = NULL;
	io->result = 0;
	io->pending = io->runs = 0;
	io->phase = io->stage = 0;
	io->starved = io->full = io->submitting = false;
	if (!set_range(io, io->disk->size_bytes)) {
		io->phase = PHASE_NONE;
	} else if (io->disk->refusing) {
		io->result = -EIO;
		io->phase = PHASE_NONE;
	}
	io->next_block = io->first_block;
	count_begin(io);
	if (io->phase == 0 && io->op != DISK_READ && io->op != DISK_FLUSH && !io->disk->route->takes_writes(io->disk)) {
		io->result = -EROFS;
		io->phase = PHASE_NONE;
	}
	io->submitting = true;
	disk_io_step(io);
	io->submitting = false;
}

static void start_task(struct loop_task *task)
{
	start(container_of(task, struct disk_io, task));
}

void disk_io_restart(struct list *node)
{
	struct disk_io *io = container_of(node, struct disk_io, link);

	io->task.run = start_task;
	loop_post(io->context->loop, &io->task);
}

/* False: the gate is closed, and IO begins when it opens. */
static bool enter_locked(struct disk_io *io)
{
	struct disk *disk = io->disk;

	lock_assert_mine(&disk->lock);
	io_note_wait(io, DISK_WAIT_GATE);
	return gate_enter_locked(&disk->gate, &io->link);
}

static void enter_task(struct loop_task *task)
{
	struct disk_io *io = container_of(task, struct disk_io, task);
	bool entered;

	lock_take(&io->disk->lock);
	entered = enter_locked(io);
	lock_let_go(&io->disk->lock);
	if (entered)
		start(io);
}

/* False: it is not IO's turn yet. */
static bool admit(struct disk_io *io)
{
	struct disk *disk = io->disk;

	LOCK_GUARD(&disk->lock);
	list_append(&disk->requests, &io->all);
	io->bypass = io->op == DISK_READ && disk_uses_cache(disk) && is_long_run_locked(io);
	return lane_enter(io, enter_task) && enter_locked(io);
}

void disk_submit(struct disk_io *io)
{
	log_debug_data(LOG_DISK, "%s: %s of %" PRIu64 " bytes at %" PRIu64, io->disk->name, disk_op_name(io->op),
		       io->length, io->offset);
	list_init(&io->link);
	list_init(&io->all);
	io->submitted_ns = loop_now_ns();
	io_note_phase(io, NULL);
	io_note_wait(io, DISK_WAIT_TURN);
	count_submitted(io);
	if (admit(io))
		start(io);
}
