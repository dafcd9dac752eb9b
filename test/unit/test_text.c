/* Bytes of any kind as text. */
#include "core/text.h"

#include <stdint.h>
#include <string.h>

static void test_escapes(void)
{
	static const struct {
		const char *value;
		const char *also;
		const char *text;
	} cases[] = {
		{"", "", ""},
		{"web1.img", " ", "web1.img"},
		{"two words", "", "two words"},
		{"two words", " ", "two\\040words"},
		{"a\nb\tc\x7f", "", "a\\012b\\011c\\177"},
		{"back\\slash", "", "back\\134slash"},
		{"\xc3\xa4\xff", " ", "\xc3\xa4\xff"},
		{"a=b, c", "=,", "a\\075b\\054 c"},
	};

	for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
		g_autoptr(GString) text = g_string_new("before ");
		g_autofree char *back = NULL;

		text_append_escaped(text, cases[i].value, cases[i].also);
		g_assert_true(g_str_has_prefix(text->str, "before "));
		g_assert_cmpstr(text->str + 7, ==, cases[i].text);
		back = g_strcompress(text->str + 7);
		g_assert_cmpstr(back, ==, cases[i].value);
	}
}

static void test_hex(void)
{
	static const uint8_t value[] = {0x00, 0x01, 0x7f, 0x80, 0xab, 0xff};
	char text[2 * sizeof(value) + 1];
	uint8_t back[sizeof(value)];

	memset(text, 'x', sizeof(text));
	text_format_hex(text, value, sizeof(value));
	g_assert_cmpstr(text, ==, "00017f80abff");
	g_assert_true(text_parse_hex(text, back, sizeof(back)));
	g_assert_cmpmem(back, sizeof(back), value, sizeof(value));
	g_assert_true(text_parse_hex("00017F80ABFF and more", back, sizeof(back)));
	g_assert_cmpmem(back, sizeof(back), value, sizeof(value));
}

static void test_what_is_no_hex(void)
{
	static const char *const cases[] = {
		"", "0", "0001", "00017f80abf", "00017f80abfg", " 0017f80abff", "0x017f80abff"};
	uint8_t value[6];

	for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
		g_autofree char *text = g_strdup(cases[i]);

		g_assert_false(text_parse_hex(text, value, sizeof(value)));
	}
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/text/escapes", test_escapes);
	g_test_add_func("/text/hex", test_hex);
	g_test_add_func("/text/no hex", test_what_is_no_hex);
	return g_test_run();
}
