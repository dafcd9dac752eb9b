/* Tries of the page cache: how many, by how warm the file is. */
#include "../../src/aio/estimate.h"

#include <glib.h>

#define READS 100000

/* How many of READS are tried when PERCENT of the pages are there. */
static unsigned tries(struct cache_estimate *estimate, int percent)
{
	unsigned count = 0;

	for (unsigned i = 0; i < READS; i++) {
		if (!estimate_says_try(estimate))
			continue;
		count++;
		estimate_note(estimate, g_test_rand_int_range(0, 100) < percent);
	}
	return count;
}

static void test_steady(void)
{
	struct cache_estimate cold = {0}, half = {0}, warm = {0};

	g_assert_cmpuint(tries(&warm, 100), ==, READS);
	g_assert_cmpuint(tries(&cold, 0), <=, READS / 100);
	g_assert_cmpuint(tries(&half, 50), <, READS / 10);
}

static void test_change(void)
{
	struct cache_estimate estimate = {0};

	tries(&estimate, 100);
	g_assert_cmpuint(tries(&estimate, 0), <=, READS / 100);
	g_assert_cmpuint(tries(&estimate, 100), >, READS - 1000);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/aio/estimate/steady", test_steady);
	g_test_add_func("/aio/estimate/change", test_change);
	return g_test_run();
}
