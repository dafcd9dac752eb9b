/* The writer's thread: sealed records to the file, flushes, and trying again. */
#ifndef LEAFDISK_CACHE_WRITER_WRITER_H
#define LEAFDISK_CACHE_WRITER_WRITER_H

#include "cache/internal.h"

bool writer_init(struct cache *cache, GError **error);
bool writer_start(struct cache *cache, GError **error);
/* Ends the thread once nothing is under way, whatever is still unwritten. */
void writer_stop(struct cache *cache);
void writer_clear(struct cache *cache);

/* A record was begun: it is sealed after a while. */
void writer_begun_locked(struct cache *cache);
/* On the writer's thread, without the lock: does what is due. */
void writer_look(struct cache *cache);
/* There is something to do. */
void writer_wake_locked(struct cache *cache);
/* Until it is let go the thread is not woken, only then, if it was to be. */
void writer_hold_locked(struct cache *cache);
void writer_let_go_locked(struct cache *cache);
/* Everything up to SEQUENCE is to be flushed soon. */
void writer_sync_locked(struct cache *cache, uint64_t sequence);
/* What is written by then is to be flushed then. */
void writer_sync_before_locked(struct cache *cache, uint64_t until_ns);

#endif
