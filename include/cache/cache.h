/* The cache: a log on fast local storage, in front of any number of layers.
 *
 * It maps (layer, block) to the block's newest content. Blocks are CLEAN (the
 * layer's image has the same; they may be forgotten at any time), PINNED
 * (nobody else has them: they stay until they are overwritten, forgotten or
 * their layer is dropped, and are void after a restart), or DIRTY (the image
 * will get them, epoch by epoch, through struct cache_batch; a restart finds
 * them again).
 *
 * Threads: cache_open, cache_start, cache_close and the layer functions block
 * and run on any thread but a loop's data path. Everything else runs on any
 * thread, never blocks, and holds the cache's lock for a moment only. Writes
 * go to a buffer in memory and from there to the file by the cache's own
 * threads; reads use the caller's queue.
 *
 * A cache whose file fails, or does not answer for 10 s, is SUSPENDED: nothing
 * can be put, what was put can be read where the file still answers, and the last
 * writes are tried again every few seconds until they succeed. Of a file that
 * does not answer what is clean is not found any more: its image has it.
 *
 * The cache does no locking of ranges: writes to one block are the caller's to
 * put in order. */
#ifndef LEAFDISK_CACHE_CACHE_H
#define LEAFDISK_CACHE_CACHE_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "aio/queue.h"
#include "core/bytes.h"
#include "core/list.h"
#include "core/loop.h"

#define CACHE_ID_BYTES 16
/* Of a layer's name, what is kept. */
#define CACHE_NAME_BYTES 255
/* Of a new file. */
#define CACHE_BYTES_DEFAULT (UINT64_C(10) << 30)

struct cache;

struct cache_options {
	const char *path;    /* file or block device; NULL: an unlinked file in /var/tmp */
	uint64_t size_bytes; /* 0: a device's own, an existing file's own, or the default for a new file */
	uint8_t pool_id[CACHE_ID_BYTES];
	const char *pool_path; /* for messages */
};
/* Creates the file when there is none, and formats what is empty or zeros at
 * its start; otherwise recovers what the log holds. A larger SIZE_BYTES grows a
 * file. Locked against other processes (OFD lock). NULL and ERROR: a sentence
 * with the command that resets a cache which is damaged or another pool's.
 * Starts no thread. */
struct cache *cache_open(const struct cache_options *options, GError **error);
/* Starts the threads: after the daemon's fork, before the first put. */
bool cache_start(struct cache *cache, GError **error);
/* Writes what is buffered, makes it durable, ends the threads. 0 or -errno of
 * that; the threads have ended in either case, and only cache_get_status() and
 * cache_close() may follow. All layers must be closed and no request in flight. */
int cache_stop(struct cache *cache);
/* The same, if it is still to do, and frees. NULL is allowed. */
int cache_close(struct cache *cache);
/* For a process that ends whatever its threads wait for: what is buffered becomes
 * durable if the file answers within PATIENCE_NS, and nothing of this process
 * holds the file or its lock any more, but for calls that the kernel has. 0 or
 * -errno. Only cache_get_status() may follow. Any thread. */
int cache_leave(struct cache *cache, uint64_t patience_ns);

enum cache_state { CACHE_ACTIVE, CACHE_SUSPENDED };
struct cache_status {
	enum cache_state state;
	char reason[256];      /* SUSPENDED: a sentence */
	struct timespec since; /* realtime, of the last change of state */
	uint64_t size_bytes;
	uint64_t segments;
	uint64_t free_segments;
	uint64_t head_segment, tail_segment;
	uint64_t generation, sequence;
	uint64_t cached_blocks; /* live: clean and pinned */
	uint64_t pinned_blocks;
	uint64_t pinned_blocks_max;
	uint64_t dirty_blocks;
	uint64_t dirty_blocks_max; /* by cache_set_limits(), or what the log holds */
	bool short_of_room;	   /* what is dirty keeps the log from being reclaimed, or zeros from being put */
	uint64_t memory_bytes;	   /* index, buffers, layer table */
};
void cache_get_status(struct cache *cache, struct cache_status *status);
/* Of the file: another one after it was formatted anew. */
void cache_get_id(const struct cache *cache, uint8_t id[CACHE_ID_BYTES]);

/* A layer in the cache. IDENTITY says which image; STAMP changes whenever the
 * image changes by other hands than ours. */
struct cache_layer;
struct cache_layer_key {
	uint8_t identity[CACHE_ID_BYTES];
	uint64_t stamp; /* not 0 */
	uint64_t size_bytes;
	const char *name; /* for messages and dumps */
	/* Of the ownership under which this cache last had the image's dirty
	 * blocks, as the pool tells it; 0: another has or had it since. */
	uint64_t owned;
};
/* What a recovered layer of this identity holds is kept when its recorded
 * stamp is KEY's, and dropped otherwise. With WRITABLE the recorded stamp is
 * void from now on until cache_layer_close() records one: a crash costs its
 * cached blocks. A second open of the same identity shares the layer when both
 * are read-only, and is refused (NULL) otherwise, as is one with dirty blocks,
 * which stay as they are: that image goes uncached. */
struct cache_layer *cache_layer_open(struct cache *cache, const struct cache_layer_key *key, bool writable);
/* For DIRTY blocks, under the new ownership GENERATION, which is durable in the
 * log when this returns. What a recovered layer holds is kept when its stamp is
 * KEY's or its generation is KEY's or the one that was to follow it. Otherwise
 * its dirty blocks are orphaned: they stay in the log, for
 * cache_dump() only. Blocks. NULL and *RESULT: -EBUSY, open already; -EIO and
 * others: not recorded. */
struct cache_layer *cache_layer_open_dirty(struct cache *cache, const struct cache_layer_key *key, uint64_t generation,
					   int *result);
/* A layer that no restart keeps, for PINNED blocks. */
struct cache_layer *cache_layer_new_volatile(struct cache *cache, const char *name);
/* STAMP: the image's now, for a writable layer whose cached blocks are to be
 * found good at the next open; 0: they are not. A read-only layer keeps its
 * stamp, a volatile one is dropped. One with dirty blocks keeps all it has, for
 * the next open. NULL is allowed. */
void cache_layer_close(struct cache_layer *layer, uint64_t stamp);

/* Gives up all that the cache has of LAYER, dirty blocks too, as degrading does:
 * its image is written by others from now on. */
void cache_layer_abandon(struct cache_layer *layer, const char *reason);
/* LAYER's dirty blocks are nobody's to write back: another owns its image. It
 * is closed; they stay in the log. */
void cache_layer_orphan(struct cache_layer *layer);

/* What an image that is not open has in the cache. */
struct cache_layer_found {
	uint64_t generation;
	uint64_t dirty_blocks; /* and zero ranges */
};
/* False: nothing is known of it. */
bool cache_layer_find(struct cache *cache, const uint8_t identity[CACHE_ID_BYTES], struct cache_layer_found *found);
/* Calls EACH with the name of every closed layer that has dirty blocks and is
 * not orphaned (ORPHAN false), or is. */
void cache_layer_foreach_dirty(struct cache *cache, bool orphan,
			       void (*each)(void *opaque, const char *name, uint64_t dirty_blocks), void *opaque);

enum cache_layer_state {
	CACHE_LAYER_ACTIVE,
	/* The cache could not keep up with a change: all that it had of the
	 * layer was dropped, puts are refused, nothing is recorded as good. It
	 * becomes active again, empty, when the cache is active again. */
	CACHE_LAYER_DEGRADED,
};
struct cache_layer_status {
	enum cache_layer_state state;
	char reason[256];
	struct timespec since;
};
void cache_layer_get_status(struct cache_layer *layer, struct cache_layer_status *status);

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
	uint32_t slot;
	int result;
	struct loop_task task;
};
/* Looks up the first block; when it is a HIT the read of just that extent is
 * under way and DONE will come, from the loop, never from inside. */
struct cache_extent cache_read(struct cache_io *io);

/* Copies up to BLOCKS blocks from DATA and returns how many, from the first on;
 * they are what a lookup finds from now on. NEWER: the image does not have
 * them; they are pinned, or dirty where the layer was opened so. -EAGAIN: no
 * room at the moment (cache_wait). -ENOSPC: the limit of pinned blocks is
 * reached, or blocks that nobody may write back fill the log. -EIO: suspended,
 * or the layer is degraded. What is not NEWER does not replace anything in a
 * layer that was opened for dirty blocks: -EAGAIN where there is something. */
int64_t cache_put(struct cache_layer *layer, uint64_t block, uint64_t blocks, const void *data, bool newer);
/* Zeros from now on, pinned or dirty; not of a layer that is mirrored. -ENOSPC:
 * too many separate ranges. -EAGAIN, -EIO: as cache_put(). Nothing is changed
 * then. */
int cache_put_zero(struct cache_layer *layer, uint64_t block, uint64_t blocks);
/* 0: the cache has nothing of these from now on, also after a restart; where it
 * is suspended and cannot record that, the layer is degraded. -EAGAIN: no room
 * to record it at the moment (cache_wait), nothing is changed; never of a
 * volatile layer. */
int cache_forget(struct cache_layer *layer, uint64_t block, uint64_t blocks);

/* TASK is posted to LOOP once what got -EAGAIN may succeed or fail for good, or
 * with cache_wake(). Each wait is answered once. */
struct cache_waiter {
	struct loop *loop;
	struct loop_task task;
	bool dirty; /* it was for dirty blocks or zeros */
	struct list link;
};
void cache_wait(struct cache *cache, struct cache_waiter *waiter);
/* All who wait now are answered: there may be a reason not to wait on. */
void cache_wake(struct cache *cache);

/* ---- Dirty blocks: flush and migration ---- */

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

/* An epoch of LAYER ends here, if there is room to say so. Nothing is made durable. */
void cache_end_epoch(struct cache_layer *layer);

/* DIRTY_MAX_BLOCKS 0: what the log holds. A flush may wait that long for others. */
void cache_set_limits(struct cache *cache, uint64_t dirty_max_blocks, uint64_t barrier_deadline_ns);

struct cache_dirty {
	uint64_t blocks;    /* that a read would find; 0 when only zeros are dirty */
	uint64_t slots;	    /* of the log, with what was overwritten since */
	uint64_t zeros;	    /* ranges */
	uint64_t oldest_ns; /* loop_now_ns() when the oldest came; 0: nothing is dirty */
	uint64_t distance;  /* of the oldest from the log's tail, in blocks */
	bool has_barrier;   /* an epoch is complete */
};
void cache_layer_get_dirty(struct cache_layer *layer, struct cache_dirty *dirty);

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

	/* The cache's. */
	struct cache_layer *layer;
	uint32_t layer_id;
	struct epoch_range *range;
	uint8_t *data;
};
struct cache_batch_limits {
	unsigned data_blocks; /* one epoch is taken however large it is */
	unsigned extents;
	bool cut; /* where no epoch is complete, one ends now */
};
/* The oldest epochs of LAYER. *BATCH NULL and 0: none is complete. -EIO: a block
 * of it cannot be read or is damaged; LOST, unless NULL, is called for each.
 * One batch of a layer at a time; blocks; not from a loop. */
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

/* Blocks until there is something to migrate where there was nothing, somebody
 * waits for room, much more is dirty, a layer has its first barrier, the state of
 * the cache changes, cache_kick() is called, or UNTIL_NS of loop_now_ns()
 * (UINT64_MAX: no limit). One thread. */
void cache_wait_work(struct cache *cache, uint64_t until_ns);
void cache_kick(struct cache *cache);

/* Blocks until all that was put before is in the file and durable. 0 or -errno. */
int cache_sync(struct cache *cache);

struct cache *cache_layer_cache(const struct cache_layer *layer);

#endif
