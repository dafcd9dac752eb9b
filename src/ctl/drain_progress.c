/* How far a write-back has come, on a terminal. */
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

void drain_progress_show(struct drain_progress *drain, uint64_t left_bytes)
{
	g_autofree char *line = drain->on_terminal ? progress_line(&drain->progress, left_bytes) : NULL;

	if (!line)
		return;
	fprintf(stderr, "\r\033[K%s", line);
	drain->shown = true;
}

void drain_progress_end(struct drain_progress *drain)
{
	if (drain->shown)
		fputs("\r\033[K", stderr);
	drain->shown = false;
}
