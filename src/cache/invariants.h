/* The invariants of internal.h, checked in the tests' build wherever a thread of the
 * cache, or the one that migrates, wakes. */
#ifndef LEAFDISK_CACHE_INVARIANTS_H
#define LEAFDISK_CACHE_INVARIANTS_H

#include "internal.h"

#ifdef LEAFDISK_FAULTS
/* NULL, or which invariant does not hold: "3: ...". SEGMENTS from FIRST on are looked
 * at slot by slot, and the counts of slots only where that is the whole ring. */
const char *cache_find_breach_locked(struct cache *cache, uint64_t first, uint64_t segments);
/* Aborts where one does not hold. Each call looks at one more segment, and now and then
 * at all of a small ring. */
void cache_check_locked(struct cache *cache);
#else
static inline void cache_check_locked(struct cache *cache)
{
	(void)cache;
}
#endif

#endif
