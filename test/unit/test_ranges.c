/* Ranges with ranks, held to an array. */
#include "core/ranges.h"

#include <glib.h>

#define NUMBERS 200
#define STEPS 2000

static void test_random(void)
{
	struct ranges *ranges = ranges_new();
	uint64_t ranks[NUMBERS] = {0};

	for (unsigned step = 0; step < STEPS; step++) {
		unsigned first = (unsigned)g_test_rand_int_range(0, NUMBERS);
		unsigned count = (unsigned)g_test_rand_int_range(0, (gint32)MIN(NUMBERS - first, 40) + 1);
		uint64_t rank = (uint64_t)g_test_rand_int_range(1, (gint32)step / 4 + 2);

		ranges_raise(ranges, first, count, rank);
		for (unsigned i = first; i < first + count; i++)
			ranks[i] = MAX(ranks[i], rank);
		for (unsigned i = 0; i < NUMBERS; i++)
			g_assert_cmpuint(ranges_rank(ranges, i), ==, ranks[i]);
	}
	ranges_free(ranges);
}

static void test_ends(void)
{
	struct ranges *ranges = ranges_new();

	g_assert_cmpuint(ranges_rank(ranges, 0), ==, 0);
	ranges_raise(ranges, 0, UINT64_MAX, 1);
	ranges_raise(ranges, 10, 5, 3);
	ranges_raise(ranges, 12, 5, 2);
	g_assert_cmpuint(ranges_rank(ranges, 9), ==, 1);
	g_assert_cmpuint(ranges_rank(ranges, 14), ==, 3);
	g_assert_cmpuint(ranges_rank(ranges, 16), ==, 2);
	g_assert_cmpuint(ranges_rank(ranges, UINT64_MAX - 1), ==, 1);
	g_assert_cmpuint(ranges_rank(ranges, UINT64_MAX), ==, 0);
	ranges_free(ranges);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/ranges/random", test_random);
	g_test_add_func("/ranges/ends", test_ends);
	return g_test_run();
}
