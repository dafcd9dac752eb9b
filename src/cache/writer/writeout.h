/* Writes, flushes and new tries; the writer's thread calls them, NOW being its
 * time. */
#ifndef LEAFDISK_CACHE_WRITER_WRITEOUT_H
#define LEAFDISK_CACHE_WRITER_WRITEOUT_H

#include "cache/internal.h"

/* Records that are written at once. */
#define WRITES_MAX 4
/* Something is with the kernel. */
bool writeout_is_under_way(const struct writer *writer);
/* The last record up to which all are written. */
uint64_t writeout_written_locked(const struct cache *cache);

/* Something is to be written or flushed, or to be tried again. */
bool writeout_is_due_locked(const struct cache *cache);
/* What is not durable is one record, nobody has begun with it, and nothing is
 * under way: it is written, durably, on QUEUE, from its loop's thread. False:
 * it is not so; nothing is done. */
bool writeout_write_durable_locked(struct cache *cache, struct aio_queue *queue);

void writeout_watch_locked(struct cache *cache, uint64_t now);
void writeout_retry_locked(struct cache *cache, uint64_t now);
void writeout_write_locked(struct cache *cache, uint64_t now);
void writeout_sync_locked(struct cache *cache, uint64_t now);

#endif
