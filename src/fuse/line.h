/* How far a write-back is, as it is shown: a line on a terminal, or one in the log now and then. */
#ifndef LEAFDISK_FUSE_LINE_H
#define LEAFDISK_FUSE_LINE_H

#include <stdbool.h>
#include <stdint.h>

#include "core/progress.h"

struct line {
	const char *before; /* what stands before how much is left; borrowed */
	bool on_terminal;
	bool shown; /* it stands on the terminal */
	struct progress progress;
};

void line_begin(struct line *line, const char *before, bool on_terminal);
/* LEFT_BYTES are left. What is said, where a line is due, or NULL. g_free. */
char *line_show(struct line *line, uint64_t left_bytes);
/* The terminal is as it was. */
void line_end(struct line *line);

#endif
