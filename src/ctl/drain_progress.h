/* How far long work has come, on a terminal. */
#ifndef LEAFDISK_CTL_DRAIN_PROGRESS_H
#define LEAFDISK_CTL_DRAIN_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

#include "core/progress.h"

struct drain_progress {
	struct progress progress;
	bool on_terminal; /* standard error is one */
	bool shown;
};

void drain_progress_begin(struct drain_progress *drain);
void drain_progress_show(struct drain_progress *drain, uint64_t left_bytes);
/* The same of work whose end is known. */
void drain_progress_show_of(struct drain_progress *drain, uint64_t done_bytes, uint64_t total_bytes);
/* Takes the line away. */
void drain_progress_end(struct drain_progress *drain);

#endif
