/* The cache's state: who changes it, and who is told. */
#ifndef LEAFDISK_CACHE_WRITER_STATE_H
#define LEAFDISK_CACHE_WRITER_STATE_H

#include "cache/internal.h"

/* The file failed with ERROR: SUSPENDED, unless it is already; what cannot be
 * kept true is degraded. WHAT failed: "cannot be written". */
void cache_suspend_locked(struct cache *cache, int error, const char *what);
/* The file does not answer: SUSPENDED, and nothing clean is read from it. */
void cache_silence_locked(struct cache *cache);
/* ACTIVE again once nothing fails any more. */
void cache_resume_locked(struct cache *cache);
/* The writer's thread: an operation that has no answer by NOW suspends the cache. */
void cache_look_for_silence_locked(struct cache *cache, uint64_t now);
/* Puts the last change of state into the log; without the lock. */
void cache_announce(struct cache *cache);

#endif
