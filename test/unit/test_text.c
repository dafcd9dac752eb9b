/* Bytes of any kind as text. */
#include "core/text.h"

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

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/text/escapes", test_escapes);
	return g_test_run();
}
