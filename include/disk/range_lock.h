/* Range lock: one writer at a time on any block of a disk.
 *
 * Serves read-modify-write, allocation, discards and resizing. Reads do not
 * take it. First come, first served among those that overlap. Not locked: the
 * owner's mutex is held for every call. */
#ifndef LEAFDISK_DISK_RANGE_LOCK_H
#define LEAFDISK_DISK_RANGE_LOCK_H

#include <stdbool.h>
#include <stdint.h>

#include "core/list.h"

struct range_lock {
	struct list held;    /* struct range by link */
	struct list waiting; /* in order of arrival */
};

/* Whoever takes a range has one: it is on a list from its taking to its return. */
struct range {
	uint64_t first;
	uint64_t blocks; /* at least 1 */
	/* It is held, after it had to wait. Called by range_unlock(), so with the
	 * mutex held: it posts a task, and does nothing else. */
	void (*granted)(struct range *range);
	struct list link;
};

void range_lock_init(struct range_lock *lock);
void range_init(struct range *range, void (*granted)(struct range *range));
/* False: RANGE waits, and is granted later. */
bool range_lock_take(struct range_lock *lock, struct range *range);
/* Of a range that is held. */
void range_unlock(struct range_lock *lock, struct range *range);
/* It is held, or waits. */
bool range_is_taken(const struct range *range);

#endif
