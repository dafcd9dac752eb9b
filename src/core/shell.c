/* Words for a command line. */
#include "core/shell.h"

#include <glib.h>
#include <string.h>

char *shell_quote(const char *text)
{
	for (const char *p = text; *p; p++)
		if (!g_ascii_isalnum(*p) && !strchr("/._-+:@%,=", *p))
			return g_shell_quote(text);
	return *text ? g_strdup(text) : g_shell_quote(text);
}
