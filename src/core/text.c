/* Bytes of any kind as text. */
#include "core/text.h"

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
