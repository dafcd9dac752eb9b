/* Stepping a request through its phases.
 *
 * A phase submits what it can, and is called again when all it waits for has come
 * back. A run that ends steps its owner, and then those that found the pools
 * empty. */
#include "step.h"

#include <errno.h>

#include <time.h>

#include "core/counters.h"
#include "core/fault.h"
#include "core/time.h"
#include "disk/count.h"

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
	if ((--io->pending == 0 || io->full) && !io->starved)
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
	io_note_wait(io, DISK_WAIT_ROOM);
	image_wait_room(image, &run->op);
}

static void room_found(struct loop_task *task)
{
	io_run_finished(container_of(task, struct run, room.task), 0);
}

enum step io_wait_for_cache(struct disk_io *io, bool dirty)
{
	struct run *run = context_get_run(io->context, io);

	if (!run)
		return STEP_WAIT;
	run->room.loop = io->context->loop;
	run->room.task.run = room_found;
	run->room.layer = dirty ? io->disk->leaf->cached : NULL;
	io->pending++;
	io_note_wait(io, dirty ? DISK_WAIT_MIGRATION : DISK_WAIT_ROOM);
	cache_wait(io->disk->pool_cache->cache, &run->room);
	return STEP_WAIT;
}

/* NULL: there is none left. */
static const struct phase *phase_of(const struct disk_io *io)
{
	const struct phase *phases = io->disk->route->phases[io->op];

	return io->phase != PHASE_NONE && phases[io->phase].run ? &phases[io->phase] : NULL;
}

/* For the answer to what was submitted, unless the phase has said for what. */
static void note_waiting(struct disk_io *io)
{
	if (atomic_load_explicit(&io->wait, memory_order_relaxed) == DISK_WAIT_NONE)
		io_note_wait(io, io->starved ? DISK_WAIT_TRANSFER : DISK_WAIT_STORE);
}

void disk_io_step(struct disk_io *io)
{
	io->starved = io->full = false;
	for (const struct phase *phase; (phase = phase_of(io)); io->phase++) {
		io_note_phase(io, phase->name);
		io_note_wait(io, DISK_WAIT_NONE);
		if (phase->run(io) == STEP_WAIT) {
			note_waiting(io);
			return;
		}
		io->stage = 0;
	}
	io_finish(io);
}

/* Gives back what IO holds, its place in work too unless it is to be PARKED. */
static void release(struct disk_io *io, bool park)
{
	struct disk *disk = io->disk;

	if (io->bounce)
		context_put_bounce(io->context, io->bounce);
	io->bounce = NULL;
	LOCK_GUARD(&disk->lock);
	if (range_is_taken(&io->range))
		range_unlock(&disk->ranges, &io->range);
	if (park)
		return;
	gate_leave_locked(&disk->gate);
	list_remove(&io->all);
}

static void count_in_all(const struct disk_io *io, int64_t result)
{
	if (result < 0)
		counter_add(errors, 1);
	else if (io->op == DISK_READ)
		counter_add(read_bytes, (uint64_t)result);
	else if (io->op == DISK_WRITE)
		counter_add(write_bytes, (uint64_t)result);
}

/* Afterwards: whoever has read the time before a change finds another one after it. */
static void note_change(struct disk_io *io)
{
	struct timespec now;

	if (io->op == DISK_READ || io->op == DISK_FLUSH)
		return;
	clock_gettime(CLOCK_REALTIME_COARSE, &now);
	io->disk->changed_ns = now.tv_sec * (int64_t)NS_PER_S + now.tv_nsec;
}

static int64_t result_of(const struct disk_io *io)
{
	static const char *const points[] = {
		[DISK_READ] = "disk.read", [DISK_WRITE] = "disk.write", [DISK_DISCARD] = "disk.discard",
		[DISK_ZERO] = "disk.zero", [DISK_FLUSH] = "disk.flush", [DISK_RESIZE] = "disk.resize",
		[DISK_GROW] = "disk.grow",
	};
	int fault = fault_hit(points[io->op], io->disk->name);

	return fault < 0 ? fault : io->result;
}

static void finish_task(struct loop_task *task)
{
	struct disk_io *io = container_of(task, struct disk_io, task);
	int64_t result = result_of(io);

	count_in_all(io, result);
	count_finished(io, result);
	note_change(io);
	io->done(io, result);
}

enum step io_park(struct disk_io *io)
{
	release(io, true);
	io_note_phase(io, NULL);
	io_note_wait(io, DISK_WAIT_GATE);
	gate_park(&io->disk->gate, &io->link);
	return STEP_WAIT;
}

static void io_finish(struct disk_io *io)
{
	release(io, false);
	lane_leave(io);
	if (io->submitting) {
		io->task.run = finish_task;
		loop_post(io->context->loop, &io->task);
	} else {
		finish_task(&io->task);
	}
}

void context_resume(struct disk_context *context)
{
	struct list starved;
	struct list *node;

	if (list_is_empty(&context->starved))
		return;
	list_init(&starved);
	list_splice(&starved, &context->starved);
	while ((node = list_pop(&starved)))
		disk_io_step(container_of(node, struct disk_io, link));
}
