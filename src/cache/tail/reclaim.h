/* The reclaim thread: empties the oldest segments and moves the tail. */
#ifndef LEAFDISK_CACHE_TAIL_RECLAIM_H
#define LEAFDISK_CACHE_TAIL_RECLAIM_H

#include "cache/internal.h"

bool reclaim_start(struct cache *cache, GError **error);
/* Ends the thread; what it has begun is left for the next mount. */
void reclaim_stop(struct cache *cache);

/* The head has gone on, or a segment's first record is sealed. */
void reclaim_look_locked(struct cache *cache);

/* Room gets short, and what is dirty in the oldest segment keeps it. */
bool reclaim_is_blocked_locked(const struct cache *cache);

/* There is no room and never will be: pinned blocks fill the log, orphans. */
bool reclaim_is_hopeless_locked(const struct cache *cache);

/* Moves what is worth it out of SEGMENT and empties it; `reclaim.c` decides
 * when, `move.c` how. Segments' worth of slots moved are added to *MOVED.
 * False: not finished (no room to move to, or the thread is to end). */
bool reclaim_empty_segment(struct cache *cache, uint64_t segment, unsigned *moved);
/* Waits for `changed`; false when the thread is to end. Told of readers and
 * puts too. */
bool reclaim_wait_locked(struct cache *cache);

#endif
