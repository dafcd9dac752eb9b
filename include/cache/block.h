/* Blocks of a layer: looking them up, reading, putting, and waiting for room. On any
 * thread; nothing blocks but cache_lookup_far(). */
#ifndef LEAFDISK_CACHE_BLOCK_H
#define LEAFDISK_CACHE_BLOCK_H

#include <stdbool.h>
#include <stdint.h>

#include "aio/queue.h"
#include "core/list.h"
#include "core/loop.h"

struct cache;
struct cache_layer;

/* ---- Looking up and reading (content/read.c) --------------------------- */

enum cache_answer { CACHE_MISS, CACHE_HIT, CACHE_ZERO };
struct cache_extent {
	enum cache_answer answer;
	uint64_t blocks; /* that share it, from the first on */
};
/* Looks only, and not very far. */
struct cache_extent cache_lookup(struct cache_layer *layer, uint64_t block, uint64_t limit);
/* The same, as far as it goes: in time proportional to what the cache has, however
 * long the range is. The cache can be used meanwhile; what is put in the meantime is
 * seen. Not on a loop. */
struct cache_extent cache_lookup_far(struct cache_layer *layer, uint64_t block, uint64_t limit);

/* The cache's: an operation of its file that is under way. */
struct cache_watch {
	struct list link;
	uint64_t begun_ns;
};

/* One read. The submitter owns it and keeps it and the buffer until DONE. */
struct cache_io {
	struct aio_queue *queue;
	struct cache_layer *layer;
	uint64_t block;
	uint64_t blocks; /* at most 256 are read at once */
	void *buffer;	 /* block-aligned */
	/* 0. -EAGAIN: what was there is damaged, cannot be read, and was
	 * forgotten: look again. -EIO: the same of a pinned block, which stays
	 * unreadable until it is written again. */
	void (*done)(struct cache_io *io, int result);

	/* The cache's. */
	struct cache *cache;
	struct aio_request aio;
	struct cache_watch watch;
	bool buffered; /* a HIT from memory */
	uint32_t slot;
	int result;
	struct loop_task task;
};
/* Looks up the first block; when it is a HIT the read of just that extent is
 * under way and DONE will come, from the loop, never from inside. */
struct cache_extent cache_read(struct cache_io *io);

/* ---- Changing (content/put.c) ------------------------------------------ */

/* Copies up to BLOCKS blocks from DATA and returns how many, from the first on;
 * they are what a lookup finds from now on. NEWER: the image does not have
 * them; they are pinned, or dirty where the layer was opened so. -EAGAIN: no
 * room at the moment (cache_wait). -ENOSPC: the limit of pinned blocks is
 * reached, blocks that nobody may write back fill the log, or, unless the layer was
 * opened for dirty blocks, what is dirty of others has to be written back first.
 * -EIO: suspended, or the layer is degraded. What is not NEWER does not replace anything in a
 * layer that was opened for dirty blocks: -EAGAIN where there is something. */
int64_t cache_put(struct cache_layer *layer, uint64_t block, uint64_t blocks, const void *data, bool newer);

/* Where the cache had blocks that a put supersedes: how many, and the first and the last of those
 * that were put. */
enum cache_place { CACHE_NOWHERE, CACHE_IN_LOG, CACHE_IN_BUFFER };
struct cache_found {
	uint32_t blocks[CACHE_IN_BUFFER + 1]; /* by enum cache_place */
	enum cache_place first;
	enum cache_place last;
};
/* As cache_put(), and sets *FOUND, unless it fails. */
int64_t cache_put_over(struct cache_layer *layer, uint64_t block, uint64_t blocks, const void *data, bool newer,
		       struct cache_found *found);
/* Zeros from now on, pinned or dirty; not of a layer that is mirrored. -ENOSPC:
 * too many separate ranges. -EAGAIN, -EIO: as cache_put(). Nothing is changed
 * then. */
int cache_put_zero(struct cache_layer *layer, uint64_t block, uint64_t blocks);
/* 0: the cache has nothing of these from now on, also after a restart; where it
 * is suspended, or others have to be written back first, and it cannot record that,
 * the layer is degraded. -EAGAIN: no room
 * to record it at the moment (cache_wait), nothing is changed; never of a
 * volatile layer. */
int cache_forget(struct cache_layer *layer, uint64_t block, uint64_t blocks);

/* ---- Waiting for room (log/wake.c) ------------------------------------- */

/* TASK is posted to LOOP once what got -EAGAIN may succeed or fail for good, or
 * with cache_wake(). Each wait is answered once. */
struct cache_waiter {
	struct loop *loop;
	struct loop_task task;
	struct cache_layer *layer; /* whose dirty blocks or zeros it was for, open until then; or NULL */
	struct list link;
};
void cache_wait(struct cache *cache, struct cache_waiter *waiter);
/* All who wait now are answered: there may be a reason not to wait on. */
void cache_wake(struct cache *cache);

#endif
