/* How far long work has come, as a person reads it. One thread. */
#ifndef LEAFDISK_CORE_PROGRESS_H
#define LEAFDISK_CORE_PROGRESS_H

#include <stdint.h>

struct progress {
	uint64_t interval_ns; /* between lines */
	uint64_t next_ns;
	uint64_t since_ns; /* the rate is that of the time since */
	uint64_t since_bytes;
};

/* The first line is due after the first interval. */
void progress_init(struct progress *progress, uint64_t interval_ns);
/* "1.5 GiB left to write back, 120 MiB/s, 13 s to go", or NULL when no line is due. g_free. */
char *progress_line(struct progress *progress, uint64_t left_bytes);
/* The same of work whose end is known: "32.0 %  959 MiB of 2.9 GiB, 120 MiB/s, 17 s to go". */
char *progress_line_of(struct progress *progress, uint64_t done_bytes, uint64_t total_bytes);

#endif
