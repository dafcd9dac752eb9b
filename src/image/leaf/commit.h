/* A commit under way: data flush, record or checkpoint, flush. */
#ifndef LEAFDISK_IMAGE_LEAF_COMMIT_H
#define LEAFDISK_IMAGE_LEAF_COMMIT_H

#include "dirty.h"
#include "core/workers.h"

struct apply_plan;

struct leaf_commit {
	struct leaf *leaf;
	struct aio_queue *queue;
	struct list waiters;	    /* image_op */
	struct apply_plan *plan;    /* a batch, or NULL */
	struct leaf_resize *resize; /* NULL: the size stays; its operation is the last waiter */
	bool whole;		    /* a checkpoint, not a record */
	struct leaf_checkpoint *checkpoint;
	struct leaf_dirty taken; /* what it writes */
	int64_t record_bytes;
	bool data_flush;
	bool header_touched; /* or a batch recorded: a failure now is for good */
	int result;
	void (*next)(struct leaf_commit *commit, int result);
	struct aio_request aio;
	struct loop_work work;
	struct image_op room; /* waits for the file to be extended */
	struct loop_task task;
};

/* OP waits on LIST, leaf->flushes, ->applies or ->resizes, for its commit; a
 * commit begins when none runs. */
void leaf_commit_enqueue(struct leaf *leaf, struct list *list, struct image_op *op);
/* The record in leaf->record, BYTES long, is written and flushed; NEXT is
 * called with the result. */
void leaf_commit_write_record(struct leaf_commit *commit, int64_t bytes,
			      void (*next)(struct leaf_commit *commit, int result));
void leaf_commit_finish(struct leaf_commit *commit, int result);

void leaf_flush(struct image *image, struct image_op *op);

#endif
