/* Lines about a write-back: when they come, and what they say. */
#include "core/progress.h"

#include <glib.h>
#include <string.h>

#define MIB (UINT64_C(1) << 20)

static void test_first_line_comes_after_the_interval(void)
{
	struct progress progress;

	progress_init(&progress, UINT64_C(3600) * 1000000000);
	for (uint64_t left = 10; left > 0; left--)
		g_assert_null(progress_line(&progress, left * MIB));
}

static double rate_of(const char *line)
{
	const char *rate = strstr(line, "to write back, ");

	g_assert_nonnull(rate);
	return g_ascii_strtod(rate + strlen("to write back, "), NULL);
}

static void test_what_it_says(void)
{
	struct progress progress;
	g_autofree char *first = NULL;
	g_autofree char *second = NULL;
	g_autofree char *third = NULL;

	progress_init(&progress, 0);
	first = progress_line(&progress, 3 * MIB);
	g_assert_cmpstr(first, ==, "3 MiB left to write back, 0 B/s");
	second = progress_line(&progress, 2 * MIB);
	g_assert_true(g_str_has_prefix(second, "2 MiB left to write back, "));
	g_assert_cmpfloat(rate_of(second), >, 0);
	g_assert_true(g_str_has_suffix(second, " s to go"));
	third = progress_line(&progress, 5 * MIB);
	g_assert_cmpstr(third, ==, "5 MiB left to write back, 0 B/s");
}

static void test_of_a_whole(void)
{
	struct progress progress;
	g_autofree char *first = NULL, *second = NULL, *last = NULL;

	progress_init(&progress, 0);
	first = progress_line_of(&progress, 0, 4 * MIB);
	g_assert_cmpstr(first, ==, "  0.0 %  0 B of 4 MiB, 0 B/s");
	second = progress_line_of(&progress, 2 * MIB, 4 * MIB);
	g_assert_true(g_str_has_prefix(second, " 50.0 %  2 MiB of 4 MiB, "));
	g_assert_true(g_str_has_suffix(second, "/s, 0 s to go"));
	last = progress_line_of(&progress, 4 * MIB, 4 * MIB);
	g_assert_true(g_str_has_prefix(last, "100.0 %  4 MiB of 4 MiB, "));
	g_assert_true(g_str_has_suffix(last, "/s"));
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/progress/interval", test_first_line_comes_after_the_interval);
	g_test_add_func("/progress/text", test_what_it_says);
	g_test_add_func("/progress/whole", test_of_a_whole);
	return g_test_run();
}
