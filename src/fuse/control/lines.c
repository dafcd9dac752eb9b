/* Lines of the control tree's files. */
#include "lines.h"

#include <inttypes.h>

#include "core/text.h"

void lines_text(GString *text, const char *key, const char *value)
{
	g_string_append_printf(text, "%s: ", key);
	text_append_escaped(text, value, "");
	g_string_append_c(text, '\n');
}

void lines_number(GString *text, const char *key, uint64_t number)
{
	g_string_append_printf(text, "%s: %" PRIu64 "\n", key, number);
}

char *lines_time_text(const struct timespec *time)
{
	g_autoptr(GDateTime) date = g_date_time_new_from_unix_utc(time->tv_sec);
	char *text = date ? g_date_time_format_iso8601(date) : NULL;

	return text ? text : g_strdup("");
}

void lines_time(GString *text, const char *key, const struct timespec *time)
{
	g_autofree char *value = lines_time_text(time);

	lines_text(text, key, value);
}
