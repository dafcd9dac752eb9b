/* How far a write-back has come, as a person reads it. One thread. */
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
/* "1.5 GiB left to write back, 120 MiB/s", or NULL when no line is due. g_free. */
char *progress_line(struct progress *progress, uint64_t left_bytes);

#endif
