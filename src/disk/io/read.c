/* Where a read finds its blocks.
 *
 * In this order: what the leaf has, as the route says, then the layer that the
 * merged map names. */
#include "read.h"

#include <string.h>

#include "disk/count.h"
#include "step.h"

static void read_done(struct layer_io *read, int result)
{
	struct run *run = container_of(read, struct run, read);

	if (run->cut_bytes)
		memset(run->cut, 0, run->cut_bytes);
	io_run_finished(run, result);
}

/* A layer above LAYER may end within a block: what LAYER has of that block behind the
 * end does not show. */
static void cut(struct run *run, const struct stack *stack, unsigned layer, uint64_t block, uint64_t blocks,
		uint8_t *buffer)
{
	uint64_t end = stack_end_bytes(stack, layer);
	uint32_t within = (uint32_t)(end & (BLOCK_SIZE - 1));

	end >>= BLOCK_SHIFT;
	if (!within || end < block || end - block >= blocks)
		return;
	run->cut = buffer + ((end - block) << BLOCK_SHIFT) + within;
	run->cut_bytes = BLOCK_SIZE - within;
}

/* What the leaf does not have. */
static struct image_extent read_below(struct run *run, struct stack *stack, uint64_t block, uint64_t limit,
				      uint8_t *buffer)
{
	struct image_extent extent = {EXTENT_ZERO, limit};
	unsigned layer;

	if (!stack)
		return extent;
	layer = stack_lookup(stack, block, limit, &extent.blocks);
	if (layer == STACK_NO_LAYER)
		return extent;
	extent = layer_read(&run->read, stack_layer(stack, layer), block, extent.blocks, buffer);
	if (extent.state == EXTENT_DATA)
		cut(run, stack, layer, block, extent.blocks, buffer);
	return extent;
}

uint64_t io_read_blocks(struct disk_io *io, uint64_t block, uint64_t limit, uint8_t *buffer)
{
	struct run *run = context_get_run(io->context, io);
	struct image_extent extent;

	if (!run)
		return 0;
	run->read.queue = io->context->queue;
	run->read.loop = io->context->loop;
	run->read.bypass = io->bypass;
	run->read.source = LAYER_FROM_IMAGE;
	run->read.done = read_done;
	run->cut_bytes = 0;
	extent = io->disk->route->read(run, block, limit, buffer);
	if (extent.state == EXTENT_ABSENT)
		extent = read_below(run, io->disk->stack, block, extent.blocks, buffer);
	if (extent.state == EXTENT_DATA || run->read.source != LAYER_FROM_IMAGE)
		count_read(io, block, extent.blocks, run->read.source);
	if (extent.state == EXTENT_DATA && extent.blocks == 0)
		io_note_wait(io, DISK_WAIT_FETCH);
	if (extent.state == EXTENT_DATA) {
		io->pending++;
	} else {
		memset(buffer, 0, extent.blocks << BLOCK_SHIFT);
		context_put_run(io->context, run);
	}
	return extent.blocks;
}
