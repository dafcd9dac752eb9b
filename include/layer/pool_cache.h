/* What the disks of a pool, and their layers, share to use its cache. */
#ifndef LEAFDISK_LAYER_POOL_CACHE_H
#define LEAFDISK_LAYER_POOL_CACHE_H

#include <stdatomic.h>

#include "cache/writeback.h"
#include "core/loop.h"
#include "layer/backlog.h"
#include "layer/fetch.h"

struct migrator;
struct place;
struct tunables;

struct pool_cache {
	struct cache *cache;
	struct fetches fetches;
	struct backlogs backlogs;
	struct list keepers; /* under the backlogs' lock: see disk/keeper.h */
	struct migrator *migrator;
	struct tunables *tunables; /* the pool's */
	/* Copies of tunables, for the data path. */
	_Atomic bool copy_on_read;
	_Atomic uint64_t read_run_bypass; /* bytes */
	_Atomic uint64_t last_io_ns;	  /* loop_now_ns() of the last write to the cache or read from the pool */
	bool stopped;			  /* pool_cache_stop() was called */
	_Atomic bool ending;		  /* nobody waits for the pool or the cache any more */
	const struct place *pool;	  /* whose owner frees it after this */
};

/* Something that the migrator looks at has changed. */
static inline void pool_cache_kick(struct pool_cache *pool_cache)
{
	cache_kick(pool_cache->cache);
}

/* The shared store, or the guest, was not idle now. */
static inline void pool_cache_note_io(struct pool_cache *pool_cache)
{
	atomic_store_explicit(&pool_cache->last_io_ns, loop_now_ns(), memory_order_relaxed);
}

#endif
