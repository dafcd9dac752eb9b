/* Numbers as people type them. */
#include "core/number.h"

#include <glib.h>

static void test_sizes(void)
{
	static const struct {
		const char *text;
		enum number_result result;
		uint64_t bytes;
	} cases[] = {
		{"0", NUMBER_GOOD, 0},
		{"1.5G", NUMBER_GOOD, UINT64_C(3) << 29},
		{"1.5GiB", NUMBER_GOOD, UINT64_C(3) << 29},
		{"0.25k", NUMBER_GOOD, 256},
		{"1.3M", NUMBER_GOOD, 1363148 / 4096 * 4096},
		{"1.9999999999999T", NUMBER_GOOD, (UINT64_C(2) << 40) - 4096},
		{"15.5E", NUMBER_GOOD, UINT64_C(31) << 59},
		{"16E", NUMBER_TOO_LARGE, 0},
		{"99999999T", NUMBER_TOO_LARGE, 0},
		{"18446744073709551616", NUMBER_TOO_LARGE, 0},
		{"99999999999999999999x", NUMBER_MALFORMED, 0},
		{"1.5", NUMBER_MALFORMED, 0},
		{"1.G", NUMBER_MALFORMED, 0},
		{".5G", NUMBER_MALFORMED, 0},
		{"1,5G", NUMBER_MALFORMED, 0},
		{"1.5.5G", NUMBER_MALFORMED, 0},
		{"-1", NUMBER_MALFORMED, 0},
		{"10 G", NUMBER_MALFORMED, 0},
		{"1e9", NUMBER_MALFORMED, 0},
		{"", NUMBER_MALFORMED, 0},
	};

	for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
		uint64_t bytes = 0;

		g_assert_cmpint(number_parse_size(cases[i].text, &bytes), ==, cases[i].result);
		g_assert_cmpuint(bytes, ==, cases[i].bytes);
	}
}

static void test_times(void)
{
	static const struct {
		const char *text;
		uint64_t unit_ms;
		enum number_result result;
		uint64_t number;
	} cases[] = {
		{"30", 1000, NUMBER_GOOD, 30},
		{"30s", 1000, NUMBER_GOOD, 30},
		{"5m", 1000, NUMBER_GOOD, 300},
		{"2h", 1000, NUMBER_GOOD, 7200},
		{"1d", 1000, NUMBER_GOOD, 86400},
		{"2000ms", 1000, NUMBER_GOOD, 2},
		{"2s", 1, NUMBER_GOOD, 2000},
		{"200", 1, NUMBER_GOOD, 200},
		{"0", 1000, NUMBER_GOOD, 0},
		{"500ms", 1000, NUMBER_TOO_SMALL, 0},
		{"1500ms", 1000, NUMBER_MALFORMED, 0},
		{"5 m", 1000, NUMBER_MALFORMED, 0},
		{"m", 1000, NUMBER_MALFORMED, 0},
		{"5M", 1000, NUMBER_MALFORMED, 0},
		{"99999999999999999d", 1000, NUMBER_TOO_LARGE, 0},
	};
	static const struct {
		uint64_t number, unit_ms;
		const char *text;
	} formats[] = {{86400, 1000, "1d"}, {90, 1000, "90s"}, {300, 1000, "5m"}, {1, 1, "1ms"}, {0, 1, "0"}};

	for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
		uint64_t number = 0;

		g_assert_cmpint(number_parse_time(cases[i].text, cases[i].unit_ms, &number), ==, cases[i].result);
		g_assert_cmpuint(number, ==, cases[i].number);
	}
	for (unsigned i = 0; i < G_N_ELEMENTS(formats); i++) {
		g_autofree char *text = number_format_time(formats[i].number, formats[i].unit_ms);

		g_assert_cmpstr(text, ==, formats[i].text);
	}
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/number/sizes", test_sizes);
	g_test_add_func("/number/times", test_times);
	return g_test_run();
}
