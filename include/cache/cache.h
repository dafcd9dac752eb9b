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
 * Four headers for four users: this one opens a cache and tells its state; layer.h
 * opens layers in it; block.h is for who reads and writes; writeback.h for who
 * flushes and migrates.
 *
 * The cache does no locking of ranges: writes to one block are the caller's to
 * put in order. */
#ifndef LEAFDISK_CACHE_CACHE_H
#define LEAFDISK_CACHE_CACHE_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#define CACHE_ID_BYTES 16
/* Of a new file. */
#define CACHE_BYTES_DEFAULT (UINT64_C(10) << 30)

struct cache;

struct cache_options {
	const char *path;    /* file or block device; NULL: an unlinked file in /var/tmp */
	uint64_t size_bytes; /* 0: a device's own, an existing file's own, or the default for a new file */
	uint8_t pool_id[CACHE_ID_BYTES];
	const char *pool_path; /* for messages */
	/* The file is only read: for what cannot be written. What this mount appends goes with
	 * it. */
	bool keep;
};
/* Creates the file when there is none, and formats what is empty or zeros all over, unless it
 * is named like an image; otherwise recovers what the log holds. A larger SIZE_BYTES grows a
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
/* Blocks until all that was put before is in the file and durable. 0 or -errno. */
int cache_sync(struct cache *cache);
/* What the layers that are closed by now had is clean, or dropped, durably in the log. 0, or
 * -errno: that cannot be recorded now. */
int cache_settle(struct cache *cache);
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
	unsigned incomplete_layers; /* of which the log has lost changes */
	/* And layers that had some in this generation or an earlier one may be among those of
	 * which it has nothing any more; 0: no. */
	uint64_t lost_generation;
	uint64_t dirty_blocks_max; /* by cache_set_limits(), or what the log holds */
	struct timespec removed;   /* realtime, since when the file is known to have no name any more; 0: it has one */
	bool short_of_room;	   /* what is dirty keeps the log from being reclaimed, or zeros from being put */
};
void cache_get_status(struct cache *cache, struct cache_status *status);
/* Whether the file still has its name is looked at soon. Any thread. */
void cache_look_soon(struct cache *cache);
/* Whether it had one and has none now. Blocks. */
bool cache_is_removed(struct cache *cache);
/* Index, buffers and layer table: looks at each layer. */
uint64_t cache_memory_bytes(struct cache *cache);
/* Of the file: another one after it was formatted anew. */
void cache_get_id(const struct cache *cache, uint8_t id[CACHE_ID_BYTES]);
/* The numbers of this mount and of those before it, as in struct cache_super_ondisk: valid as
 * long as CACHE. */
const uint8_t *cache_get_mounts(const struct cache *cache);

#endif
