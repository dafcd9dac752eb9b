/* How far a write-back is, as it is shown. */
#include "line.h"

#include <glib.h>
#include <stdio.h>

#include "core/log.h"
#include "core/time.h"

#define TERMINAL_INTERVAL_NS (NS_PER_S / 5)
#define LOG_INTERVAL_NS (5 * NS_PER_S)

void line_begin(struct line *line, const char *before, bool on_terminal)
{
	*line = (struct line){.before = before, .on_terminal = on_terminal};
	progress_init(&line->progress, on_terminal ? TERMINAL_INTERVAL_NS : LOG_INTERVAL_NS);
}

char *line_show(struct line *line, uint64_t left_bytes)
{
	g_autofree char *left = progress_line(&line->progress, left_bytes);
	char *text;

	if (!left)
		return NULL;
	text = g_strconcat(line->before, left, NULL);
	if (line->on_terminal)
		fprintf(stderr, "\r\033[K%s", text);
	else
		log_info("%s", text);
	line->shown = line->on_terminal;
	return text;
}

void line_end(struct line *line)
{
	if (line->shown)
		fputs("\r\033[K", stderr);
	line->shown = false;
}
