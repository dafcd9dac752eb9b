/* Blocks that a request touches in part: read, changed, written whole.
 *
 * They are read into the bounce buffer under the range lock, so nothing can
 * change them in between. What lies past the end of the disk in its last block
 * becomes zero on the way: a longer parent must not leak into it. */
#include <errno.h>
#include <string.h>

#include "core/counters.h"
#include "phases.h"
#include "read.h"
#include "step.h"

enum edge_stage { EDGE_BOUNCE, EDGE_HEAD, EDGE_TAIL, EDGE_READ };

/* False: there is no memory for it, and IO has failed. */
static bool get_bounce(struct disk_io *io, uint64_t blocks)
{
	if (!io->bounce)
		io->bounce = context_get_bounce(io->context, blocks);
	if (!io->bounce)
		io->result = -ENOMEM;
	return io->bounce;
}

/* Zeroes what is past the end of the disk in BLOCK. */
static void clear_past_end(const struct disk_io *io, uint64_t block, uint8_t *data)
{
	uint64_t size = io->disk->size_bytes;

	if (block == size >> BLOCK_SHIFT && size & (BLOCK_SIZE - 1))
		memset(data + (size & (BLOCK_SIZE - 1)), 0, BLOCK_SIZE - (size & (BLOCK_SIZE - 1)));
}

static uint8_t *write_block(const struct disk_io *io, uint64_t block)
{
	return io->bounce + ((block - io->first_block) << BLOCK_SHIFT);
}

static bool needs_bounce(const struct disk_io *io, uint64_t end)
{
	return !is_aligned(io->offset | end | (uintptr_t)io->buffer, BLOCK_SIZE);
}

static void fill_bounce(struct disk_io *io, uint64_t end)
{
	uint64_t last = io->first_block + io->blocks - 1;

	memcpy(io->bounce + io->offset % BLOCK_SIZE, io->buffer, end - io->offset);
	clear_past_end(io, last, write_block(io, last));
}

enum step phase_write_edges_read(struct disk_io *io)
{
	uint64_t size = io->disk->size_bytes;
	uint64_t end = MIN(io->offset + MIN(io->length, DISK_IO_BYTES_MAX), size);
	uint64_t last = io->first_block + io->blocks - 1;
	bool head = io->offset % BLOCK_SIZE;
	bool tail = end % BLOCK_SIZE && end < size && !(head && last == io->first_block);

	if (!needs_bounce(io, end))
		return STEP_NEXT;
	if (io->stage == EDGE_BOUNCE) {
		if (!get_bounce(io, io->blocks))
			return STEP_NEXT;
		if (head || tail)
			counter_add(unaligned_writes, 1);
		io->stage = EDGE_HEAD;
	}
	if (io->stage == EDGE_HEAD) {
		if (head && !io_read_blocks(io, io->first_block, 1, io->bounce))
			return STEP_WAIT;
		io->stage = EDGE_TAIL;
	}
	if (io->stage == EDGE_TAIL) {
		if (tail && !io_read_blocks(io, last, 1, write_block(io, last)))
			return STEP_WAIT;
		io->stage = EDGE_READ;
	}
	if (io->pending)
		return STEP_WAIT;
	fill_bounce(io, end);
	return STEP_NEXT;
}

/* Whether something can stand behind the end of the disk, in its last block. */
static bool hides_past_end(const struct disk *disk)
{
	return disk->route->keeps_what_is_cut || stack_size_bytes(disk->stack) > disk->size_bytes;
}

/* The bytes that are to be zero. Growing makes those between the old end and
 * the end of its block so; shrinking none. */
static void zero_range(const struct disk_io *io, uint64_t *start, uint64_t *end)
{
	uint64_t size = io->disk->size_bytes;

	*start = io->offset;
	*end = MIN(io->offset + io->length, size);
	if (io->op == DISK_RESIZE) {
		*start = size;
		*end = io->length > size && hides_past_end(io->disk) ? round_up(size, BLOCK_SIZE) : size;
	} else if (io->length > size - io->offset) {
		*end = size;
	}
}

/* Which blocks are touched in part, from START and END in bytes. */
static bool has_head(uint64_t start, uint64_t end)
{
	return start < end && start % BLOCK_SIZE;
}

static bool has_tail(const struct disk_io *io, uint64_t start, uint64_t end)
{
	return end % BLOCK_SIZE && end < io->disk->size_bytes && start < end &&
	       !(has_head(start, end) && start / BLOCK_SIZE == end / BLOCK_SIZE);
}

#define HEAD_BLOCK(io) ((io)->bounce)
#define TAIL_BLOCK(io) ((io)->bounce + BLOCK_SIZE)

/* Zeroes the parts; a block that is zero as a whole joins the inner range. */
static void clear_parts(struct disk_io *io, uint64_t start, uint64_t end, bool head, bool tail)
{
	uint64_t size = io->disk->size_bytes;

	io->inner_first = blocks_of(start);
	io->inner_end = end >= size ? blocks_of(end) : end >> BLOCK_SHIFT;
	if (head) {
		uint64_t from = start % BLOCK_SIZE;

		memset(HEAD_BLOCK(io) + from, 0, MIN(BLOCK_SIZE - from, end - start));
		clear_past_end(io, start >> BLOCK_SHIFT, HEAD_BLOCK(io));
		if (io->op != DISK_RESIZE && buffer_is_zero(HEAD_BLOCK(io), BLOCK_SIZE))
			io->inner_first = start >> BLOCK_SHIFT;
		if (io->inner_first == start >> BLOCK_SHIFT)
			io->inner_end = MAX(io->inner_end, io->inner_first + 1);
	}
	if (tail) {
		memset(TAIL_BLOCK(io), 0, end % BLOCK_SIZE);
		if (buffer_is_zero(TAIL_BLOCK(io), BLOCK_SIZE))
			io->inner_end = (end >> BLOCK_SHIFT) + 1;
	}
}

enum step phase_zero_edges_read(struct disk_io *io)
{
	uint64_t start, end;
	bool head, tail;

	zero_range(io, &start, &end);
	head = has_head(start, end);
	tail = has_tail(io, start, end);
	if (io->stage == EDGE_BOUNCE) {
		if ((head || tail) && !get_bounce(io, 2))
			return STEP_NEXT;
		io->stage = EDGE_HEAD;
	}
	if (io->stage == EDGE_HEAD) {
		if (head && !io_read_blocks(io, start >> BLOCK_SHIFT, 1, HEAD_BLOCK(io)))
			return STEP_WAIT;
		io->stage = EDGE_TAIL;
	}
	if (io->stage == EDGE_TAIL) {
		if (tail && !io_read_blocks(io, end >> BLOCK_SHIFT, 1, TAIL_BLOCK(io)))
			return STEP_WAIT;
		io->stage = EDGE_READ;
	}
	if (io->pending)
		return STEP_WAIT;
	clear_parts(io, start, end, head, tail);
	return STEP_NEXT;
}

static bool is_inner(const struct disk_io *io, uint64_t block)
{
	return block >= io->inner_first && block < io->inner_end;
}

enum step phase_zero_edges_write(struct disk_io *io)
{
	uint64_t start, end;

	zero_range(io, &start, &end);
	if (io->stage == EDGE_BOUNCE)
		io->stage = EDGE_HEAD;
	if (io->stage == EDGE_HEAD && io->result >= 0) {
		if (has_head(start, end) && !is_inner(io, start >> BLOCK_SHIFT) &&
		    !io->disk->route->write(io, start >> BLOCK_SHIFT, 1, HEAD_BLOCK(io)) && io->result >= 0)
			return STEP_WAIT;
		io->stage = EDGE_TAIL;
	}
	if (io->stage == EDGE_TAIL && io->result >= 0) {
		if (has_tail(io, start, end) && !is_inner(io, end >> BLOCK_SHIFT) &&
		    !io->disk->route->write(io, end >> BLOCK_SHIFT, 1, TAIL_BLOCK(io)) && io->result >= 0)
			return STEP_WAIT;
		io->stage = EDGE_READ;
	}
	return io_wait_pending(io);
}
