/* The writer's thread: sealed records to the file, flushes, and trying again. */
#ifndef LEAFDISK_CACHE_WRITER_WRITER_H
#define LEAFDISK_CACHE_WRITER_WRITER_H

#include "cache/internal.h"

bool writer_init(struct cache *cache, GError **error);
bool writer_start(struct cache *cache, GError **error);
/* Ends the thread once nothing is under way, whatever is still unwritten. */
void writer_stop(struct cache *cache);
void writer_clear(struct cache *cache);

/* Until it is let go the thread is not woken, only then, if it was to be. */
void writer_hold_locked(struct cache *cache);
void writer_let_go_locked(struct cache *cache);

#endif
