/* Searching what is in order. */
#ifndef LEAFDISK_CORE_BISECT_H
#define LEAFDISK_CORE_BISECT_H

#include <stdbool.h>
#include <stdint.h>

/* How many of the COUNT elements of SET are before VALUE: the position of the first one that is not. IS_BEFORE tells it
 * of one, and is true of none behind one that it is not true of. */
static inline __attribute__((always_inline)) unsigned
bisect(const void *set, unsigned count, bool (*is_before)(const void *set, unsigned position, uint64_t value),
       uint64_t value)
{
	unsigned low = 0, high = count;

	while (low < high) {
		unsigned middle = low + (high - low) / 2;

		if (is_before(set, middle, value))
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

#endif
