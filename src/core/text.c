/* Bytes of any kind as text. */
#include "core/text.h"

#include <stdint.h>
#include <string.h>

void text_append_escaped(GString *text, const char *value, const char *also)
{
	for (; *value; value++) {
		if (g_ascii_iscntrl(*value) || *value == '\\' || strchr(also, *value))
			g_string_append_printf(text, "\\%03o", (unsigned char)*value);
		else
			g_string_append_c(text, *value);
	}
}

void text_format_hex(char *text, const void *value, size_t size)
{
	static const char digits[] = "0123456789abcdef";
	const uint8_t *bytes = value;

	for (size_t i = 0; i < size; i++) {
		*text++ = digits[bytes[i] >> 4];
		*text++ = digits[bytes[i] & 15];
	}
	*text = '\0';
}

bool text_parse_hex(const char *text, void *value, size_t size)
{
	uint8_t *bytes = value;

	for (size_t i = 0; i < size; i++) {
		int high = g_ascii_xdigit_value(text[2 * i]);
		int low = high < 0 ? high : g_ascii_xdigit_value(text[2 * i + 1]);

		if (low < 0)
			return false;
		bytes[i] = (uint8_t)(high << 4 | low);
	}
	return true;
}
