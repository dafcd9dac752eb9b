/* A set of whole numbers kept as sorted, disjoint, non-adjacent intervals. */
#ifndef LEAFDISK_CORE_INTERVALS_H
#define LEAFDISK_CORE_INTERVALS_H

#include <stdbool.h>
#include <stdint.h>

struct interval {
	uint64_t first;
	uint64_t count;
};

struct intervals;

struct intervals *intervals_new(void);
void intervals_free(struct intervals *set); /* NULL is allowed */

/* FIRST + COUNT must not wrap. */
void intervals_add(struct intervals *set, uint64_t first, uint64_t count);
void intervals_remove(struct intervals *set, uint64_t first, uint64_t count);
/* True when VALUE is in the set; *RUN, unless NULL, is how many values from
 * VALUE on, up to LIMIT, share the answer. */
bool intervals_contains(const struct intervals *set, uint64_t value, uint64_t limit, uint64_t *run);

unsigned intervals_length(const struct intervals *set);
struct interval intervals_get(const struct intervals *set, unsigned position);

#endif
