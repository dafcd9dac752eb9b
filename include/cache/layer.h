/* Layers in the cache: opening and closing them, their state, and what is known of
 * those that are closed. Blocks; on any thread but a loop's data path. */
#ifndef LEAFDISK_CACHE_LAYER_H
#define LEAFDISK_CACHE_LAYER_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "cache/cache.h"
#include "format/cache.h"

/* Of a layer's name, what is kept. */
#define CACHE_NAME_BYTES 255
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
	bool goes_on;  /* and that ownership has not ended */
	bool disowned; /* what is dirty is not KEY's; orphaned for REASON, where it is not older than OWNED */
	enum cache_orphan_reason reason;
};
/* What a recovered layer of this identity holds is kept when its recorded
 * stamp is KEY's, and dropped otherwise. With WRITABLE the recorded stamp is
 * void from now on until cache_layer_close() records one: a crash costs its
 * cached blocks. A second open of the same identity shares the layer when both
 * are read-only, and is refused (NULL) otherwise, as is one with dirty blocks,
 * which stay as they are: that image goes uncached. */
struct cache_layer *cache_layer_open(struct cache *cache, const struct cache_layer_key *key, bool writable);
/* For DIRTY blocks, under the ownership *GENERATION, the one that is to follow, and the
 * claim NONCE (NULL: zeros). Where KEY's goes on, and the layer has dirty blocks, it becomes that of these instead.
 * When this returns every dirty block is durably known to be of *GENERATION; the log
 * need not have room for it, but where blocks change from one to another. What a
 * recovered layer holds is kept when its stamp is KEY's or its generation is KEY's or
 * the one that was to follow it. Otherwise its dirty blocks are orphaned: they stay in
 * the log, for cache_dump() only. Blocks. NULL and *RESULT: -EBUSY, open already;
 * -EBADMSG: the log has lost changes of it; -ENOSPC: no room to record it; -EIO: the
 * cache is suspended; others: not recorded. */
struct cache_layer *cache_layer_open_dirty(struct cache *cache, const struct cache_layer_key *key, uint64_t *generation,
					   const uint8_t *nonce, int *result);
/* Of a closed layer that has dirty blocks which are not KEY's (disowned): what would be
 * done with them when it is opened. */
void cache_layer_disown(struct cache *cache, const struct cache_layer_key *key);
/* A layer that no restart keeps, for PINNED blocks. */
struct cache_layer *cache_layer_new_volatile(struct cache *cache, const char *name);
/* What of a volatile LAYER nobody else has: blocks, and ranges of zeros. Any thread; does not block. */
void cache_layer_get_pinned(struct cache_layer *layer, uint64_t *blocks, uint64_t *zeros);
/* STAMP: the image's now, for a writable layer whose cached blocks are to be
 * found good at the next open; 0: they are not. A read-only layer keeps its
 * stamp, a volatile one is dropped. One with dirty blocks keeps all it has, for
 * the next open. NULL is allowed. */
void cache_layer_close(struct cache_layer *layer, uint64_t stamp);

/* Of an open layer whose image has all, and gets no more: it goes on as one that is only read. STAMP is the
 * image's now; 0: what is cached is not to be found good at the next open. */
void cache_layer_seal(struct cache_layer *layer, uint64_t stamp);
/* Its image has another name now: what the log, messages and dumps call it. */
void cache_layer_rename(struct cache_layer *layer, const char *name);

/* What the image has is clean, durably in the log: a crash from now on brings none of
 * it back. 0, or -errno: that cannot be recorded now. */
int cache_layer_settle(struct cache_layer *layer);

/* Gives up all that the cache has of LAYER, dirty blocks too, as degrading does:
 * its image is written by others from now on. */
void cache_layer_abandon(struct cache_layer *layer, const char *reason);
/* LAYER's dirty blocks are nobody's to write back: another owns its image. It
 * is closed; they stay in the log. */
void cache_layer_orphan(struct cache_layer *layer, enum cache_orphan_reason reason);
/* LAYER, which nobody else has open, is closed and forgotten with all that it has, dirty blocks too. Durable with the
 * next cache_settle(). */
void cache_layer_discard(struct cache_layer *layer);
/* Forgets the closed layer ID and all that it has, dirty blocks too, durably. 0 or -errno: ENOENT; EBUSY, it is open;
 * ENOSPC. */
int cache_layer_purge(struct cache *cache, uint32_t id);
/* The same of that with IDENTITY; 0 also where there is none. */
int cache_layer_forget(struct cache *cache, const uint8_t identity[CACHE_ID_BYTES]);

/* What an image that is not open has in the cache. */
struct cache_layer_found {
	uint8_t identity[CACHE_ID_BYTES];
	uint64_t generation;
	uint8_t nonce[CACHE_ID_BYTES]; /* zeros: of version 1 */
	bool orphan;
	bool open;		 /* by the image that is called NAME */
	const char *orphan_text; /* why it is one, for people */
	uint64_t reached;	 /* the highest order that the log knows of its changes; 0: none */
	bool incomplete;	 /* the log has lost changes of it */
	uint64_t dirty_blocks;	 /* and zero ranges */
	char loss[192];		 /* and this is what is known of that: the rest of a sentence */
	char name[CACHE_NAME_BYTES + 1];
};
/* False: nothing is known of it. */
bool cache_layer_find(struct cache *cache, const uint8_t identity[CACHE_ID_BYTES], struct cache_layer_found *found);
/* The same of the newest orphan of it. */
bool cache_layer_find_orphan(struct cache *cache, const uint8_t identity[CACHE_ID_BYTES],
			     struct cache_layer_found *found);
/* The same of whatever image has what is dirty of the claim with NONCE, open or not, or
 * an orphan of it. */
bool cache_layer_find_claim(struct cache *cache, const uint8_t nonce[CACHE_ID_BYTES], struct cache_layer_found *found);
/* Calls EACH for every closed layer that has dirty blocks and is not orphaned (ORPHAN
 * false), or is. */
struct cache_layer_dirty {
	const char *name;
	const char *orphan_text; /* of an orphan: why it is one */
	uint8_t identity[CACHE_ID_BYTES];
	uint64_t dirty_blocks;
};
void cache_layer_foreach_dirty(struct cache *cache, bool orphan,
			       void (*each)(void *opaque, const struct cache_layer_dirty *dirty), void *opaque);

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
struct cache *cache_layer_cache(const struct cache_layer *layer);

#endif
