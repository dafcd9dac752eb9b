/* How far long work has come, on a terminal. */
#include "drain_progress.h"

#include <glib.h>
#include <stdio.h>
#include <unistd.h>

#include "core/time.h"

#define INTERVAL_NS (NS_PER_S / 5)

void drain_progress_begin(struct drain_progress *drain)
{
	*drain = (struct drain_progress){.on_terminal = isatty(STDERR_FILENO)};
	progress_init(&drain->progress, INTERVAL_NS);
}

/* LINE is taken over; NULL: none is due. */
static void show(struct drain_progress *drain, char *line)
{
	if (!line)
		return;
	fprintf(stderr, "\r\033[K%s", line);
	drain->shown = true;
	g_free(line);
}

void drain_progress_show(struct drain_progress *drain, uint64_t left_bytes)
{
	if (drain->on_terminal)
		show(drain, progress_line(&drain->progress, left_bytes));
}

void drain_progress_show_of(struct drain_progress *drain, uint64_t done_bytes, uint64_t total_bytes)
{
	if (drain->on_terminal)
		show(drain, progress_line_of(&drain->progress, done_bytes, total_bytes));
}

void drain_progress_end(struct drain_progress *drain)
{
	if (drain->shown)
		fputs("\r\033[K", stderr);
	drain->shown = false;
}
