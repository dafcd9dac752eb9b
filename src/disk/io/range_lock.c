/* Range lock: two lists, scanned.
 *
 * A range waits when it overlaps one that is held, or one that came before it
 * and waits. The lists are as long as the queue is deep. */
#include "disk/range_lock.h"

#include "core/counters.h"

void range_lock_init(struct range_lock *lock)
{
	list_init(&lock->held);
	list_init(&lock->waiting);
}

void range_init(struct range *range, void (*granted)(struct range *range))
{
	range->granted = granted;
	list_init(&range->link);
}

bool range_is_taken(const struct range *range)
{
	return !list_is_empty(&range->link);
}

static bool overlaps(const struct range *a, const struct range *b)
{
	return a->first < b->first + b->blocks && b->first < a->first + a->blocks;
}

/* True when RANGE overlaps one of LIST, looking no further than STOP. */
static bool overlaps_any(struct list *list, const struct list *stop, const struct range *range)
{
	for (struct list *node = list->next; node != list && node != stop; node = node->next)
		if (overlaps(container_of(node, struct range, link), range))
			return true;
	return false;
}

bool range_lock_take(struct range_lock *lock, struct range *range)
{
	if (overlaps_any(&lock->held, NULL, range) || overlaps_any(&lock->waiting, NULL, range)) {
		list_append(&lock->waiting, &range->link);
		counter_add(range_waits, 1);
		return false;
	}
	list_append(&lock->held, &range->link);
	return true;
}

void range_unlock(struct range_lock *lock, struct range *range)
{
	list_remove(&range->link);
	list_foreach(node, &lock->waiting)
	{
		struct range *waiter = container_of(node, struct range, link);

		if (overlaps_any(&lock->held, NULL, waiter) || overlaps_any(&lock->waiting, node, waiter))
			continue;
		list_remove(node);
		list_append(&lock->held, node);
		waiter->granted(waiter);
	}
}
