/* Range locks: one holder on any block, in order of arrival among those that overlap. */
#include "disk/range_lock.h"

#include <glib.h>

#define RANGES 6

static struct range ranges[RANGES];
static unsigned granted_order[RANGES];
static unsigned granted_count;

static void granted(struct range *range)
{
	granted_order[granted_count++] = (unsigned)(range - ranges);
}

static void begin(struct range_lock *lock)
{
	range_lock_init(lock);
	granted_count = 0;
	for (unsigned i = 0; i < RANGES; i++)
		range_init(&ranges[i], granted);
}

static bool take(struct range_lock *lock, unsigned i, uint64_t first, uint64_t blocks)
{
	ranges[i].first = first;
	ranges[i].blocks = blocks;
	return range_lock_take(lock, &ranges[i]);
}

static void test_apart(void)
{
	struct range_lock lock;

	begin(&lock);
	g_assert_true(take(&lock, 0, 0, 4));
	g_assert_true(take(&lock, 1, 4, 1));
	g_assert_true(take(&lock, 2, 1000, UINT64_MAX / 4));
	g_assert_true(range_is_taken(&ranges[0]));
	range_unlock(&lock, &ranges[0]);
	g_assert_false(range_is_taken(&ranges[0]));
	g_assert_cmpuint(granted_count, ==, 0);
}

static void test_overlapping_wait(void)
{
	struct range_lock lock;

	begin(&lock);
	g_assert_true(take(&lock, 0, 10, 10));
	g_assert_false(take(&lock, 1, 19, 1));
	g_assert_false(take(&lock, 2, 0, 11));
	range_unlock(&lock, &ranges[0]);
	g_assert_cmpuint(granted_count, ==, 2);
	g_assert_cmpuint(granted_order[0], ==, 1);
	g_assert_cmpuint(granted_order[1], ==, 2);
}

/* A later one that overlaps only one that waits does not overtake it. */
static void test_no_overtaking(void)
{
	struct range_lock lock;

	begin(&lock);
	g_assert_true(take(&lock, 0, 0, 4));
	g_assert_false(take(&lock, 1, 2, 8));
	g_assert_false(take(&lock, 2, 8, 4));
	g_assert_true(take(&lock, 3, 20, 4));
	range_unlock(&lock, &ranges[3]);
	g_assert_cmpuint(granted_count, ==, 0);
	range_unlock(&lock, &ranges[0]);
	g_assert_cmpuint(granted_count, ==, 1);
	g_assert_cmpuint(granted_order[0], ==, 1);
	range_unlock(&lock, &ranges[1]);
	g_assert_cmpuint(granted_order[1], ==, 2);
}

/* A resize takes everything, waits for all, and all that comes waits for it. */
static void test_everything(void)
{
	struct range_lock lock;

	begin(&lock);
	g_assert_true(take(&lock, 0, 5, 1));
	g_assert_true(take(&lock, 1, 1 << 20, 1));
	g_assert_false(take(&lock, 2, 0, UINT64_MAX / 2));
	g_assert_false(take(&lock, 3, 5, 1));
	range_unlock(&lock, &ranges[1]);
	g_assert_cmpuint(granted_count, ==, 0);
	range_unlock(&lock, &ranges[0]);
	g_assert_cmpuint(granted_count, ==, 1);
	range_unlock(&lock, &ranges[2]);
	g_assert_cmpuint(granted_count, ==, 2);
	g_assert_cmpuint(granted_order[1], ==, 3);
}

enum { FREE, WAITING, HELD };

static bool overlap(unsigned a, unsigned b)
{
	return ranges[a].first < ranges[b].first + ranges[b].blocks &&
	       ranges[b].first < ranges[a].first + ranges[a].blocks;
}

/* No two holders overlap, and nobody waits without a cause. */
static void check(const int states[RANGES])
{
	for (unsigned a = 0; a < RANGES; a++) {
		bool cause = false;

		for (unsigned b = 0; b < RANGES; b++) {
			bool meets = b != a && states[b] != FREE && overlap(a, b);

			g_assert_false(meets && states[a] == HELD && states[b] == HELD);
			cause |= meets;
		}
		g_assert_true(states[a] != WAITING || cause);
	}
}

static void unlock(struct range_lock *lock, int states[RANGES], unsigned i)
{
	states[i] = FREE;
	granted_count = 0;
	range_unlock(lock, &ranges[i]);
	for (unsigned j = 0; j < granted_count; j++) {
		g_assert_cmpint(states[granted_order[j]], ==, WAITING);
		states[granted_order[j]] = HELD;
	}
}

static void test_random(void)
{
	struct range_lock lock;
	int states[RANGES] = {0};

	begin(&lock);
	for (unsigned step = 0; step < 20000; step++) {
		unsigned i = (unsigned)g_test_rand_int_range(0, RANGES);
		uint64_t first = (uint64_t)g_test_rand_int_range(0, 32), blocks = (uint64_t)g_test_rand_int_range(1, 8);

		if (states[i] == HELD)
			unlock(&lock, states, i);
		else if (states[i] == FREE)
			states[i] = take(&lock, i, first, blocks) ? HELD : WAITING;
		check(states);
	}
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/range-lock/apart", test_apart);
	g_test_add_func("/range-lock/overlapping-wait", test_overlapping_wait);
	g_test_add_func("/range-lock/no-overtaking", test_no_overtaking);
	g_test_add_func("/range-lock/everything", test_everything);
	g_test_add_func("/range-lock/random", test_random);
	return g_test_run();
}
