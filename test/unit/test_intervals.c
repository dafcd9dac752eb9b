/* The interval set against a bitmap. */
#include <glib.h>
#include <string.h>

#include "core/intervals.h"

#define LIMIT 200

static void assert_equal(const struct intervals *set, const uint8_t *model)
{
	uint64_t floor = 0;

	for (uint64_t value = 0; value < LIMIT;) {
		uint64_t run = 0, expected = 1;

		g_assert_cmpint(intervals_contains(set, value, LIMIT - value, &run), ==, model[value]);
		while (value + expected < LIMIT && model[value + expected] == model[value])
			expected++;
		g_assert_cmpuint(run, ==, expected);
		value += run;
	}
	for (unsigned i = 0; i < intervals_length(set); i++) {
		struct interval interval = intervals_get(set, i);

		g_assert_cmpuint(interval.count, >, 0);
		g_assert_true(i == 0 || interval.first > floor);
		floor = interval.first + interval.count;
	}
}

static void test_random(void)
{
	struct intervals *set = intervals_new();
	uint8_t model[LIMIT] = {0};

	for (int i = 0; i < 20000; i++) {
		uint64_t first = (uint64_t)g_test_rand_int_range(0, LIMIT);
		uint64_t count = (uint64_t)g_test_rand_int_range(0, (gint32)(LIMIT - first) / (1 + i % 9) + 1);
		bool add = g_test_rand_bit();

		if (add)
			intervals_add(set, first, count);
		else
			intervals_remove(set, first, count);
		memset(model + first, add, count);
		assert_equal(set, model);
	}
	intervals_free(set);
}

static void test_edges(void)
{
	struct intervals *set = intervals_new();
	uint64_t run;

	g_assert_false(intervals_contains(set, 0, 7, &run));
	g_assert_cmpuint(run, ==, 7);
	intervals_add(set, 10, 5);
	intervals_add(set, 15, 5);
	g_assert_cmpuint(intervals_length(set), ==, 1);
	intervals_remove(set, 12, 1);
	g_assert_cmpuint(intervals_length(set), ==, 2);
	intervals_remove(set, 0, 100);
	g_assert_cmpuint(intervals_length(set), ==, 0);
	intervals_free(set);
	intervals_free(NULL);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/intervals/random", test_random);
	g_test_add_func("/intervals/edges", test_edges);
	return g_test_run();
}
