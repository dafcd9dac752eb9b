/* Fetches: blocks on their way from a layer into the cache.
 *
 * A block is fetched once however many ask for it, clones of one base too; who
 * comes later waits. A fetch publishes nothing that was cancelled meanwhile: a
 * guest's write to those blocks is newer. Any thread. */
#ifndef LEAFDISK_LAYER_FETCH_H
#define LEAFDISK_LAYER_FETCH_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "cache/block.h"
#include "core/list.h"
#include "core/lock.h"
#include "core/loop.h"

struct fetches {
	struct lock lock;
	struct list under_way; /* struct fetch */
};

struct fetch {
	/* Set before fetch_begin(). */
	struct cache_layer *layer;
	uint64_t block;
	uint64_t blocks;
	struct loop *loop;
	struct loop_task ended; /* posted when the fetch that this one waits for has ended */

	struct list link; /* under way, or waiting on another */
	struct list waiting;
	bool cancelled;
};

void fetches_init(struct fetches *fetches);
void fetches_clear(struct fetches *fetches);

/* FETCH is under way, for fetch->blocks, which may be fewer than before. False:
 * its first block is on its way already; FETCH waits for that. */
bool fetch_begin(struct fetches *fetches, struct fetch *fetch);
/* It turns out that only BLOCKS come. Who waits for one of the others is woken now. */
void fetch_shorten(struct fetches *fetches, struct fetch *fetch, uint64_t blocks);
/* DATA goes to the cache; NULL: the fetch failed. */
void fetch_end(struct fetches *fetches, struct fetch *fetch, const uint8_t *data);
/* What is under way for these blocks is not to be published. */
void fetch_cancel(struct fetches *fetches, const struct cache_layer *layer, uint64_t block, uint64_t blocks);

#endif
