/* Dirty blocks: flushing, and migration to the layer's image in batches. */
#ifndef LEAFDISK_CACHE_WRITEBACK_H
#define LEAFDISK_CACHE_WRITEBACK_H

#include <stdbool.h>
#include <stdint.h>

#include "aio/queue.h"
#include "core/list.h"
#include "core/loop.h"

struct cache;
struct cache_layer;
struct epoch_range;

/* ---- Flushes (writer/flush.c) ------------------------------------------ */

struct cache_flush {
	struct aio_queue *queue; /* of the loop that TASK is posted to */
	struct loop_task task;
	/* The cache's until TASK is posted; then 0, or -EIO: the cache was
	 * suspended, nobody knows what is durable. */
	int result;
	uint64_t sequence;
	struct list link;
};
/* An epoch of LAYER ends here: all that was put before is durable when TASK
 * comes. 0; or -EAGAIN (cache_wait) and -EIO, and TASK will not come. */
int cache_flush(struct cache_layer *layer, struct cache_flush *flush);

/* ---- Epochs, limits, what is dirty (content/dirty.c) ------------------- */

/* An epoch of LAYER ends here, if there is room to say so. Nothing is made durable. */
void cache_end_epoch(struct cache_layer *layer);

/* DIRTY_MAX_BLOCKS 0: what the log holds. A flush may wait that long for others. */
void cache_set_limits(struct cache *cache, uint64_t dirty_max_blocks, uint64_t barrier_deadline_ns);

struct cache_dirty {
	uint64_t blocks;	/* that a read would find; 0 when only zeros are dirty */
	uint64_t slots;		/* of the log, with what was overwritten since */
	uint64_t zeros;		/* ranges */
	uint64_t oldest_ns;	/* loop_now_ns() when the oldest came; 0: nothing is dirty */
	uint64_t distance;	/* of the oldest from the log's tail, in blocks */
	bool has_barrier;	/* an epoch is complete */
	unsigned share_percent; /* how much it has of what it may have at the moment */
	bool stuck;		/* see cache_layer_set_stuck() */
	bool owed;		/* the log, which has little room, does not say yet that what is migrated is clean */
};
void cache_layer_get_dirty(struct cache_layer *layer, struct cache_dirty *dirty);

/* Whether LAYER's image takes what is dirty; while it does not, LAYER has a share of
 * what may be dirty that leaves others theirs. */
void cache_layer_set_stuck(struct cache_layer *layer, bool stuck);

/* ---- Batches (tail/batch.c) -------------------------------------------- */

/* Whole epochs of a layer, to be applied to its image all or none. */
struct cache_batch_extent {
	uint64_t block;
	uint64_t blocks;
	uint8_t *data; /* NULL: zeros */
};
struct cache_batch {
	struct cache_batch_extent *extents; /* sorted by block */
	unsigned extent_count;
	uint64_t data_blocks;
	/* Up to which the image has all when it has this; 0: a crash can leave a log that
	 * does not know that. */
	uint64_t order;

	/* The cache's. */
	struct cache_layer *layer;
	uint32_t layer_id;
	struct epoch_range *range;
	uint8_t *data;
};
/* What memory is sure to be had for, by one at a time. */
#define CACHE_BATCH_BLOCKS_MAX 16384u
struct cache_batch_limits {
	unsigned data_blocks; /* CACHE_BATCH_BLOCKS_MAX at most; one epoch is taken however large it is */
	unsigned extents;
	bool cut; /* where no epoch is complete, one ends now */
	/* Whether there is memory for so many data blocks, of which it is told before they are read; a
	 * caller of lost() otherwise. NULL: there is. */
	bool (*has_memory)(void *opaque, uint64_t data_blocks);
};
/* The oldest epochs of LAYER. *BATCH NULL and 0: none is complete. -EAGAIN: there is no memory
 * for it. -ENOMEM: the process has none, and another batch has what is set aside. -EIO: a block of
 * it is damaged; LOST, unless NULL, is called for each; or it cannot be read now. One batch of a
 * layer at a time; blocks; not from a loop. */
int cache_batch_take(struct cache_layer *layer, const struct cache_batch_limits *limits, struct cache_batch **batch,
		     void (*lost)(void *opaque, uint64_t block), void *opaque);
/* The image has it, durably: what was not overwritten since is clean. */
void cache_batch_done(struct cache_batch *batch);
/* It was not applied, or nobody knows; it stays dirty. NULL is allowed. */
void cache_batch_free(struct cache_batch *batch);
/* The image does not have it, and will not after a crash either. True: it is
 * freed, and the next one may be smaller, down to one epoch. False: it is the
 * smallest already, or that cannot be written down; nothing has changed. */
bool cache_batch_refuse(struct cache_batch *batch);

/* ---- Who migrates waits (log/wake.c) ----------------------------------- */

/* Blocks until there is something to migrate where there was nothing, somebody
 * waits for room, much more is dirty, a layer has its first barrier, nothing is owed
 * any more, the state of the cache changes, cache_kick() is called, or UNTIL_NS of loop_now_ns()
 * (UINT64_MAX: no limit). One thread. */
void cache_wait_work(struct cache *cache, uint64_t until_ns);
void cache_kick(struct cache *cache);

#endif
