/* Range lock: two lists, scanned.
 *
 * A request waits when it overlaps one that holds, or one that came before it
 * and waits. The lists are as long as the queue is deep. */
#include "disk/range_lock.h"

#include "core/counters.h"

void range_lock_init(struct range_lock *lock)
{
	list_init(&lock->held);
	list_init(&lock->waiting);
}

static bool overlaps(const struct disk_io *a, const struct disk_io *b)
{
	return a->first_block < b->first_block + b->blocks && b->first_block < a->first_block + a->blocks;
}

/* True when IO overlaps one of LIST, looking no further than STOP. */
static bool overlaps_any(struct list *list, const struct list *stop, const struct disk_io *io)
{
	for (struct list *node = list->next; node != list && node != stop; node = node->next)
		if (overlaps(container_of(node, struct disk_io, range_link), io))
			return true;
	return false;
}

bool range_lock_take(struct range_lock *lock, struct disk_io *io)
{
	if (overlaps_any(&lock->held, NULL, io) || overlaps_any(&lock->waiting, NULL, io)) {
		list_append(&lock->waiting, &io->range_link);
		counter_add(range_waits, 1);
		return false;
	}
	list_append(&lock->held, &io->range_link);
	return true;
}

void range_unlock(struct range_lock *lock, struct disk_io *io, struct list *granted)
{
	list_remove(&io->range_link);
	list_foreach(node, &lock->waiting)
	{
		struct disk_io *waiter = container_of(node, struct disk_io, range_link);

		if (overlaps_any(&lock->held, NULL, waiter) || overlaps_any(&lock->waiting, node, waiter))
			continue;
		list_remove(node);
		list_append(&lock->held, node);
		list_append(granted, &waiter->link);
	}
}
