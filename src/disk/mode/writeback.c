/* Writeback: writes, zeros and barriers into the cache.
 *
 * What the cache does not take because it is suspended goes back before the
 * gate: the migrator then empties the cache into the pool, as far as it can be
 * read, and opens the gate to the pool instead; or the cache has come back, and
 * the request finds it so. Until then the guest waits; it sees no error.
 *
 * So does what waits for room, or for the migrator, while the gate is closed.
 *
 * A write puts, then cancels the fetches of its blocks: one that ended before
 * that published nothing, for the cache had newer (cache_put). */
#include <errno.h>

#include "direct.h"
#include "disk/count.h"
#include "disk/io/phases.h"
#include "persistent.h"

/* ---- Reads -------------------------------------------------------------------- */

/* What the cache has is newer than the leaf, which may not even know of it. */
static struct image_extent read_blocks(struct run *run, uint64_t block, uint64_t limit, uint8_t *buffer)
{
	return layer_read_newer(&run->read, run->owner->disk->leaf, block, limit, buffer);
}

/* What is newer in the cache, or else what the leaf has. */
static struct image_extent extent_of(struct disk *disk, uint64_t block, uint64_t limit)
{
	struct cache_extent cached = cache_lookup_far(disk->leaf->cached, block, limit);

	if (cached.answer != CACHE_MISS)
		return (struct image_extent){cached.answer == CACHE_HIT ? EXTENT_DATA : EXTENT_ZERO, cached.blocks};
	return image_extent_blocking(disk->leaf->image, block, cached.blocks);
}

/* ---- Writes ------------------------------------------------------------------- */

/* Back before the gate. At the end of a mount nothing waits any more: what was
 * not acknowledged fails. */
static enum step send_back(struct disk_io *io)
{
	if (!gate_has_ended(&io->disk->gate))
		return io_park(io);
	io->result = -EIO;
	return STEP_NEXT;
}

/* The cache is suspended: the migrator is told. */
static enum step park(struct disk_io *io)
{
	struct pool_cache *pool_cache = io->disk->pool_cache;
	enum step step = send_back(io);

	pool_cache_kick(pool_cache);
	return step;
}

static void enqueue_for_room(void *opaque)
{
	(void)io_wait_for_cache(opaque, false);
}

static void enqueue_for_dirty_room(void *opaque)
{
	(void)io_wait_for_cache(opaque, true);
}

static void wake_for_room(void *opaque)
{
	const struct disk_io *io = opaque;

	cache_wake(io->disk->pool_cache->cache);
}

/* Only the migrator makes room. */
static enum step wait_for_room(struct disk_io *io, bool dirty)
{
	if (gate_wait_on(&io->disk->gate, dirty ? enqueue_for_dirty_room : enqueue_for_room, wake_for_room, io))
		return STEP_WAIT;
	return send_back(io);
}

static uint64_t write_blocks(struct disk_io *io, uint64_t block, uint64_t limit, uint8_t *buffer)
{
	struct disk *disk = io->disk;
	struct cache_found found;
	int64_t n;

	n = cache_put_over(disk->leaf->cached, block, limit, buffer, true, &found);
	pool_cache_note_io(disk->pool_cache);
	if (n > 0) {
		count_put(io, block, (uint64_t)n, &found);
		fetch_cancel(&disk->pool_cache->fetches, disk->leaf->cached, block, (uint64_t)n);
		return (uint64_t)n;
	}
	if (n == -EAGAIN)
		(void)wait_for_room(io, true);
	else if (n == -ENOSPC)
		io->result = n;
	else
		(void)park(io);
	return 0;
}

static enum step phase_zero_dirty(struct disk_io *io)
{
	struct disk *disk = io->disk;
	int result = 0;

	if (io->inner_first >= io->inner_end || io->result < 0)
		return io_wait_pending(io);
	if (io->pending)
		return STEP_WAIT;
	result = cache_put_zero(disk->leaf->cached, io->inner_first, io->inner_end - io->inner_first);
	fetch_cancel(&disk->pool_cache->fetches, disk->leaf->cached, io->inner_first, io->inner_end - io->inner_first);
	pool_cache_note_io(disk->pool_cache);
	if (result == -EAGAIN)
		return wait_for_room(io, true);
	if (result == -ENOSPC)
		io->result = result;
	return result == -EIO ? park(io) : STEP_NEXT;
}

/* ---- Barriers -------------------------------------------------------------- */

enum barrier_stage { BARRIER_BEGIN, BARRIER_UNDER_WAY, BARRIER_LOST };

static void flushed(struct loop_task *task)
{
	struct run *run = container_of(task, struct run, flush.task);

	if (run->flush.result < 0)
		run->owner->stage = BARRIER_LOST;
	io_run_finished(run, 0);
}

static enum step begin_barrier(struct disk_io *io)
{
	struct run *run = context_get_run(io->context, io);
	int result;

	if (!run)
		return STEP_WAIT;
	run->flush = (struct cache_flush){.queue = io->context->queue, .task.run = flushed};
	io->stage = BARRIER_UNDER_WAY;
	io->pending++;
	result = cache_flush(io->disk->leaf->cached, &run->flush);
	if (result == 0)
		return STEP_WAIT;
	io->stage = BARRIER_BEGIN;
	io->pending--;
	context_put_run(io->context, run);
	return result == -EAGAIN ? wait_for_room(io, false) : park(io);
}

static enum step phase_barrier(struct disk_io *io)
{
	if (io->pending)
		return STEP_WAIT;
	if (io->stage == BARRIER_BEGIN)
		return begin_barrier(io);
	return io->stage == BARRIER_LOST ? park(io) : STEP_NEXT;
}

/* ---- Draining -------------------------------------------------------------- */

enum drain_stage { DRAIN_BEGIN, DRAIN_UNDER_WAY, DRAIN_SENT_BACK };

static void drained(struct loop_task *task)
{
	struct run *run = container_of(task, struct run, drain.task);
	bool sent_back = run->drain.result == -EAGAIN;

	if (sent_back)
		run->owner->stage = DRAIN_SENT_BACK;
	io_run_finished(run, sent_back ? 0 : run->drain.result);
}

static void enqueue_drain(void *opaque)
{
	struct run *run = opaque;

	backlog_drain(run->owner->disk->leaf, &run->drain);
}

static void wake_drains(void *opaque)
{
	const struct run *run = opaque;

	backlog_send_back(run->owner->disk->leaf);
}

static enum step begin_drain(struct disk_io *io)
{
	struct run *run = context_get_run(io->context, io);

	if (!run)
		return STEP_WAIT;
	run->drain = (struct drain){.loop = io->context->loop, .task.run = drained};
	io->stage = DRAIN_UNDER_WAY;
	io->pending++;
	io_note_wait(io, DISK_WAIT_MIGRATION);
	if (gate_wait_on(&io->disk->gate, enqueue_drain, wake_drains, run))
		return STEP_WAIT;
	io->pending--;
	context_put_run(io->context, run);
	return send_back(io);
}

/* Nothing is dirty any more; the whole range is held, so nothing becomes so. */
static enum step phase_drain(struct disk_io *io)
{
	if (io->pending)
		return STEP_WAIT;
	if (io->stage == DRAIN_SENT_BACK)
		return send_back(io);
	return io->stage == DRAIN_BEGIN ? begin_drain(io) : STEP_NEXT;
}

const struct route route_writeback = {
	.name = "writeback",
	.read = read_blocks,
	.write = write_blocks,
	.extent = extent_of,
	.takes_writes = direct_takes_writes,
	.phases =
		{
			[DISK_READ] = PHASES(phase_read),
			[DISK_WRITE] = PHASES(phase_lock, phase_write_edges_read, phase_write),
			[DISK_DISCARD] =
				PHASES(phase_lock, phase_zero_edges_read, phase_zero_edges_write, phase_zero_dirty),
			[DISK_ZERO] =
				PHASES(phase_lock, phase_zero_edges_read, phase_zero_edges_write, phase_zero_dirty),
			[DISK_FLUSH] = PHASES(phase_barrier),
			[DISK_RESIZE] = PHASES(phase_lock, phase_zero_edges_read, phase_zero_edges_write, phase_drain,
					       phase_resize, phase_forget),
			[DISK_GROW] = PHASES(phase_lock, phase_drain, phase_grow),
		},
};
