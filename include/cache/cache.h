/* The cache: a log on fast local storage, in front of any number of layers.
 *
 * It maps (layer, block) to the block's newest content. Blocks are CLEAN (the
 * layer's image has the same; they may be forgotten at any time) or PINNED
 * (nobody else has them: they stay until they are overwritten, forgotten or
 * their layer is dropped, and are void after a restart).
 *
 * Threads: cache_open, cache_start, cache_close and the layer functions block
 * and run on any thread but a loop's data path. Everything else runs on any
 * thread, never blocks, and holds the cache's lock for a moment only. Writes
 * go to a buffer in memory and from there to the file by the cache's own
 * threads; reads use the caller's queue.
 *
 * A cache whose file fails is SUSPENDED: nothing can be put, what was put can
 * be read where the file still answers, and the last writes are tried again
 * every few seconds until they succeed.
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
 * that; the cache is closed in either case. All layers must be closed and no
 * request in flight. NULL is allowed. */
int cache_close(struct cache *cache);

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
	uint64_t memory_bytes; /* index, buffers, layer table */
};
void cache_get_status(struct cache *cache, struct cache_status *status);

/* A layer in the cache. IDENTITY says which image; STAMP changes whenever the
 * image changes by other hands than ours. */
struct cache_layer;
struct cache_layer_key {
	uint8_t identity[CACHE_ID_BYTES];
	uint64_t stamp; /* not 0 */
	uint64_t size_bytes;
	const char *name; /* for messages and dumps */
};
/* What a recovered layer of this identity holds is kept when its recorded
 * stamp is KEY's, and dropped otherwise. With WRITABLE the recorded stamp is
 * void from now on until cache_layer_close() records one: a crash costs its
 * cached blocks. A second open of the same identity shares the layer when both
 * are read-only, and is refused (NULL) otherwise: that image goes uncached. */
struct cache_layer *cache_layer_open(struct cache *cache, const struct cache_layer_key *key, bool writable);
/* A layer that no restart keeps, for PINNED blocks. */
struct cache_layer *cache_layer_new_volatile(struct cache *cache, const char *name);
/* STAMP: the image's now, for a writable layer whose cached blocks are to be
 * found good at the next open; 0: they are not. A read-only layer keeps its
 * stamp, a volatile one is dropped. NULL is allowed. */
void cache_layer_close(struct cache_layer *layer, uint64_t stamp);

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
/* Looks only. */
struct cache_extent cache_lookup(struct cache_layer *layer, uint64_t block, uint64_t limit);

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
	uint32_t slot;
	int result;
	struct loop_task task;
};
/* Looks up the first block; when it is a HIT the read of just that extent is
 * under way and DONE will come, from the loop, never from inside. */
struct cache_extent cache_read(struct cache_io *io);

/* Copies up to BLOCKS blocks from DATA and returns how many, from the first on;
 * they are what a lookup finds from now on. -EAGAIN: no room at the moment
 * (cache_wait). -ENOSPC: PINNED only, the limit of pinned blocks is reached.
 * -EIO: suspended, or the layer is degraded. */
int64_t cache_put(struct cache_layer *layer, uint64_t block, uint64_t blocks, const void *data, bool pinned);
/* Zeros from now on, pinned; of a volatile layer. -ENOSPC: too many separate ranges; nothing is changed. */
int cache_put_zero(struct cache_layer *layer, uint64_t block, uint64_t blocks);
/* 0: the cache has nothing of these from now on, also after a restart; where it
 * is suspended and cannot record that, the layer is degraded. -EAGAIN: no room
 * to record it at the moment (cache_wait), nothing is changed; never of a
 * volatile layer. */
int cache_forget(struct cache_layer *layer, uint64_t block, uint64_t blocks);

/* TASK is posted to LOOP once what got -EAGAIN may succeed or fail for good.
 * Each wait is answered once. */
struct cache_waiter {
	struct loop *loop;
	struct loop_task task;
	struct list link;
};
void cache_wait(struct cache *cache, struct cache_waiter *waiter);

/* Blocks until all that was put before is in the file and durable. 0 or -errno. */
int cache_sync(struct cache *cache);

struct cache *cache_layer_cache(const struct cache_layer *layer);

#endif
