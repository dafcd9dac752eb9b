/* A set of whole numbers as a sorted array of intervals.
 *
 * Binary search finds, one splice changes. Invariant: for neighbours a, b:
 * a.first + a.count < b.first. */
#include "core/intervals.h"

#include <glib.h>

#include "core/bisect.h"

struct intervals {
	GArray *array;
};

struct intervals *intervals_new(void)
{
	struct intervals *set = g_new0(struct intervals, 1);

	set->array = g_array_new(FALSE, FALSE, sizeof(struct interval));
	return set;
}

void intervals_free(struct intervals *set)
{
	if (!set)
		return;
	g_array_free(set->array, TRUE);
	g_free(set);
}

unsigned intervals_length(const struct intervals *set)
{
	return set->array->len;
}

struct interval intervals_get(const struct intervals *set, unsigned position)
{
	return g_array_index(set->array, struct interval, position);
}

static bool ends_before(const void *set, unsigned position, uint64_t value)
{
	struct interval interval = intervals_get(set, position);

	return interval.first + interval.count < value;
}

/* The first interval that ends at VALUE or behind. */
static unsigned find_ending_at(const struct intervals *set, uint64_t value)
{
	return bisect(set, set->array->len, ends_before, value);
}

void intervals_add(struct intervals *set, uint64_t first, uint64_t count)
{
	unsigned position = find_ending_at(set, first);
	unsigned end = position;
	uint64_t last = first + count;
	struct interval merged;

	if (!count)
		return;
	for (; end < set->array->len && intervals_get(set, end).first <= last; end++) {
		struct interval interval = intervals_get(set, end);

		first = MIN(first, interval.first);
		last = MAX(last, interval.first + interval.count);
	}
	merged = (struct interval){first, last - first};
	if (end > position) {
		g_array_index(set->array, struct interval, position) = merged;
		if (end > position + 1)
			g_array_remove_range(set->array, position + 1, end - position - 1);
	} else {
		g_array_insert_val(set->array, position, merged);
	}
}

void intervals_remove(struct intervals *set, uint64_t first, uint64_t count)
{
	uint64_t last = first + count;
	unsigned position = count ? find_ending_at(set, first) : set->array->len;

	while (position < set->array->len && intervals_get(set, position).first < last) {
		struct interval interval = intervals_get(set, position);
		struct interval left = {interval.first, first > interval.first ? first - interval.first : 0};
		uint64_t end = interval.first + interval.count;
		struct interval right = {last, end > last ? end - last : 0};

		if (end <= first) {
			position++;
			continue;
		}
		g_array_remove_index(set->array, position);
		if (right.count)
			g_array_insert_val(set->array, position, right);
		if (left.count)
			g_array_insert_val(set->array, position++, left);
		if (right.count)
			return;
	}
}

bool intervals_contains(const struct intervals *set, uint64_t value, uint64_t limit, uint64_t *run)
{
	unsigned position = find_ending_at(set, value + 1);
	struct interval interval = {0};
	bool inside;
	uint64_t length = limit;

	if (position < set->array->len)
		interval = intervals_get(set, position);
	inside = interval.count && interval.first <= value;
	if (inside)
		length = interval.first + interval.count - value;
	else if (interval.count)
		length = interval.first - value;
	if (run)
		*run = MIN(length, limit);
	return inside;
}
