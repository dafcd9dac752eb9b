/* Persistent. The shared leaf comes first and decides: an error there goes to
 * the guest, and the cache forgets the blocks, because nobody knows what the
 * image has now. What succeeded is put into the cache, or forgotten where the
 * cache does not take it; a cache that fails and cannot even record that it
 * forgets gives the whole layer up (degraded). So at every answer to the guest
 * the cache has of these blocks what the image has, or nothing.
 *   1. Fetches under way are cancelled before the cache is changed (fetch.c). */
#include "persistent.h"

#include <errno.h>

#include "direct.h"
#include "disk/count.h"
#include "disk/io/phases.h"

enum step phase_forget(struct disk_io *io)
{
	uint64_t first = io->first_block, blocks = io->blocks;

	if (io->op == DISK_RESIZE) {
		first = MIN(io->length, io->old_size) >> BLOCK_SHIFT;
		blocks = blocks_of(MAX(io->length, io->old_size)) - first;
	}
	if (blocks == 0)
		return STEP_NEXT;
	fetch_cancel(&io->disk->pool_cache->fetches, io->disk->leaf->cached, first, blocks);
	return cache_forget(io->disk->leaf->cached, first, blocks) == -EAGAIN ? io_wait_for_cache(io, false)
									      : STEP_NEXT;
}

static enum step phase_mirror(struct disk_io *io)
{
	const uint8_t *data = io->bounce ? io->bounce : io->buffer;
	uint64_t end = io->first_block + io->blocks;

	if (io->result < 0)
		return phase_forget(io);
	if (io->stage == 0) {
		fetch_cancel(&io->disk->pool_cache->fetches, io->disk->leaf->cached, io->first_block, io->blocks);
		io->next_block = io->first_block;
		io->stage = 1;
	}
	while (io->next_block < end) {
		struct cache_found found;
		int64_t n = cache_put_over(io->disk->leaf->cached, io->next_block, end - io->next_block,
					   data + ((io->next_block - io->first_block) << BLOCK_SHIFT), false, &found);

		if (n == -EAGAIN)
			return io_wait_for_cache(io, false);
		if (n < 0)
			return phase_forget(io);
		count_put(io, io->next_block, (uint64_t)n, &found);
		io->next_block += (uint64_t)n;
	}
	return STEP_NEXT;
}

const struct route route_persistent = {
	.name = "persistent",
	.read = direct_read,
	.write = direct_write,
	.extent = direct_extent,
	.takes_writes = direct_takes_writes,
	.phases =
		{
			[DISK_READ] = PHASES(phase_read),
			[DISK_WRITE] = PHASES(phase_lock, phase_write_edges_read, phase_write, phase_mirror),
			[DISK_DISCARD] = PHASES(phase_lock, phase_zero_edges_read, phase_zero_edges_write, phase_zero,
						phase_forget),
			[DISK_ZERO] = PHASES(phase_lock, phase_zero_edges_read, phase_zero_edges_write, phase_zero,
					     phase_forget),
			[DISK_FLUSH] = PHASES(phase_flush),
			[DISK_RESIZE] = PHASES(phase_lock, phase_zero_edges_read, phase_zero_edges_write, phase_resize,
					       phase_forget),
			[DISK_GROW] = PHASES(phase_lock, phase_grow),
		},
};
