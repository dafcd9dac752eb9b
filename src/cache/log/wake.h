/* Who looks again, and what wakes him. Whoever changes something calls this; nothing here
 * calls back into the cache. */
#ifndef LEAFDISK_CACHE_LOG_WAKE_H
#define LEAFDISK_CACHE_LOG_WAKE_H

#include "cache/internal.h"

/* The writer's thread has something to do. */
void wake_writer_locked(struct cache *cache);
/* A record was begun: the writer's thread seals it after a while. */
void wake_to_seal_locked(struct cache *cache);
/* Everything up to SEQUENCE is to be flushed soon. */
void wake_to_sync_locked(struct cache *cache, uint64_t sequence);
/* What is written by UNTIL_NS is to be flushed then. */
void wake_to_sync_before_locked(struct cache *cache, uint64_t until_ns);

/* Whoever migrates has something to look at (cache_wait_work()). */
void wake_migration_locked(struct cache *cache);

/* The head has gone on, or a segment's first record is sealed: the reclaim thread
 * looks, or migration where dirty blocks are in its way. */
void wake_reclaim_locked(struct cache *cache);
/* The reclaim thread waits for `changed`, and is told of readers and puts too; false
 * when it is to end. */
bool wake_wait_reclaim_relock(struct cache *cache);

/* Posts those in cache_wait() when there is room, or when there will be none. */
void wake_waiters_locked(struct cache *cache);

struct cache_flush;
/* Posts FLUSH with RESULT. */
void wake_flush_locked(struct cache *cache, struct cache_flush *flush, int result);
/* Posts the flushes of what is durable now, or will not become so. */
void wake_flushes_locked(struct cache *cache);

#endif
