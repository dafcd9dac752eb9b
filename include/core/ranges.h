/* A map of whole numbers to the highest rank that was given to a range with them, as sorted,
 * disjoint ranges. Nothing is taken out. */
#ifndef LEAFDISK_CORE_RANGES_H
#define LEAFDISK_CORE_RANGES_H

#include <stdint.h>

struct ranges;

struct ranges *ranges_new(void);
void ranges_free(struct ranges *ranges); /* NULL is allowed */

/* Where COUNT numbers from FIRST on have a lower rank, or none, they have RANK, above 0, now.
 * FIRST + COUNT must not wrap. */
void ranges_raise(struct ranges *ranges, uint64_t first, uint64_t count, uint64_t rank);
/* 0: it has none. */
uint64_t ranges_rank(const struct ranges *ranges, uint64_t value);

#endif
