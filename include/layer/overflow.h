/* Overflow layers: what an ephemeral disk writes and the cache does not take.
 *
 * A leaf image in POOL/.leafdisk/overflow, whose name is removed as soon as it
 * is open: it goes with the process. */
#ifndef LEAFDISK_LAYER_OVERFLOW_H
#define LEAFDISK_LAYER_OVERFLOW_H

#include "core/loop.h"
#include "layer/layer.h"

struct overflow_wait {
	/* The caller's. */
	struct loop *loop;
	uint64_t size_bytes; /* of the disk */
	void (*done)(struct overflow_wait *wait, int result);

	struct layer *layer;
	struct loop_work work;
	struct list link; /* on the layer's overflow_waiters */
	int result;
};

/* Makes LAYER's overflow layer if there is none: DONE is called on WAIT's loop with 0,
 * or -errno which has been logged. One makes it for all who ask meanwhile. Does not
 * block. */
void overflow_make(struct layer *layer, struct overflow_wait *wait);
void overflow_free(struct layer *layer);

/* Removes what a crash between making and opening one left, and the directory
 * when it is empty. Blocks. */
void overflow_sweep(const struct place *pool);

#endif
