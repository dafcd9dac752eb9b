/* Retry: how far apart, until when. */
#include "aio/retry.h"

#include <glib.h>

#define MS ((uint64_t)1000000)

static void test_spacing(void)
{
	g_assert_cmpuint(retry_spacing_ns(0), ==, MS);
	g_assert_cmpuint(retry_spacing_ns(1), ==, 2 * MS);
	g_assert_cmpuint(retry_spacing_ns(9), ==, 512 * MS);
	g_assert_cmpuint(retry_spacing_ns(10), ==, 1000 * MS);
	g_assert_cmpuint(retry_spacing_ns(UINT16_MAX), ==, 1000 * MS);
	for (unsigned tries = 0; tries < 100; tries++)
		g_assert_cmpuint(retry_spacing_ns(tries), <=, retry_spacing_ns(tries + 1));
}

static void test_deadline(void)
{
	const uint64_t start = 5000 * MS;
	uint64_t at;

	g_assert_true(retry_schedule(3, start, 100 * MS, start + 10 * MS, &at));
	g_assert_cmpuint(at, ==, start + 18 * MS);
	/* The last try is at the deadline, and there is none after it. */
	g_assert_true(retry_schedule(8, start, 100 * MS, start + 99 * MS, &at));
	g_assert_cmpuint(at, ==, start + 100 * MS);
	g_assert_false(retry_schedule(9, start, 100 * MS, start + 100 * MS, &at));
	g_assert_false(retry_schedule(0, start, 100 * MS, UINT64_MAX, &at));
	/* A clock read before the submission's own reading is no age. */
	g_assert_true(retry_schedule(0, start, 100 * MS, start - 1, &at));
	g_assert_cmpuint(at, ==, start - 1 + MS);
}

static void test_whole_life(void)
{
	const uint64_t timeout = 120000 * MS;
	uint64_t now = 0;
	unsigned tries = 0;

	while (retry_schedule(tries, 0, timeout, now, &now))
		tries++;
	g_assert_cmpuint(now, ==, timeout);
	g_assert_cmpuint(tries, >, 120);
	g_assert_cmpuint(tries, <, 140);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/aio/retry/spacing", test_spacing);
	g_test_add_func("/aio/retry/deadline", test_deadline);
	g_test_add_func("/aio/retry/whole-life", test_whole_life);
	return g_test_run();
}
