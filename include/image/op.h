/* An operation on an image: anything that is not a transfer. */
#ifndef LEAFDISK_IMAGE_OP_H
#define LEAFDISK_IMAGE_OP_H

#include <stdbool.h>
#include <stdint.h>

#include "aio/queue.h"
#include "core/list.h"
#include "core/loop.h"
#include "core/workers.h"

struct image;

/* One extent of an all-or-nothing batch. */
struct image_apply_extent {
	uint64_t offset; /* bytes, block-aligned */
	uint64_t length; /* bytes, whole blocks */
	void *data;	 /* block-aligned memory; NULL: zeros */
};

/* Anything that is not a transfer. The submitter owns it until DONE. */
struct image_op {
	struct aio_queue *queue;
	uint64_t offset;			  /* zero: bytes, block-aligned */
	uint64_t length;			  /* zero: bytes, whole blocks; resize: the new size */
	bool keep_allocated;			  /* zero: leave the space allocated where the format can */
	bool bottom;				  /* zero, apply, resize: nothing is below, absent is as good as zero */
	const struct image_apply_extent *extents; /* apply */
	unsigned extent_count;
	/* apply, note_progress: the order, in the log of a cache, up to which the image has
	 * that one's changes with it; 0: nothing is to be noted. */
	uint64_t progress;
	void (*done)(struct image_op *op, int result);

	/* The driver's. */
	struct image *image;
	void *driver;
	int result;
	struct list link;
	struct loop_task task;
	struct loop_work work;
};

/* Runs SUBMIT(image, op) on a queue of its own and waits. Not on a loop's thread. */
int image_run_blocking(struct image *image, struct image_op *op, void (*submit)(struct image *, struct image_op *));

#endif
