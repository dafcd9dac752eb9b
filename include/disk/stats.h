/* What a disk has done since it was opened first, or counted anew: what its requests
 * moved, where the cache had it, how long they took. Any thread; nothing blocks. */
#ifndef LEAFDISK_DISK_STATS_H
#define LEAFDISK_DISK_STATS_H

#include <time.h>

#include "core/counters.h"
#include "core/histogram.h"
#include "disk/disk.h"

/* X(identifier, unit, help): counters of a disk. */
#define DISK_COUNTER_LIST(X)                                                                                           \
	X(read_bytes, "bytes", "bytes returned to read requests")                                                      \
	X(write_bytes, "bytes", "bytes taken from write requests")                                                     \
	X(discard_bytes, "bytes", "bytes that were discarded or zeroed")                                               \
	X(errors, "requests", "requests answered with an error")                                                       \
	HIT_CLASS_LIST(X)

enum disk_counter {
#define X(name, unit, help) DISK_COUNTER_##name,
	DISK_COUNTER_LIST(X)
#undef X
		DISK_COUNTERS
};

struct disk_counter_info {
	const char *name;
	const char *unit;
	const char *help;
};
extern const struct disk_counter_info disk_counter_table[DISK_COUNTERS];

/* Kinds of requests whose time is counted. X(symbol, name) */
#define DISK_KIND_LIST(X)                                                                                              \
	X(READ, "read")                                                                                                \
	X(WRITE, "write")                                                                                              \
	X(FLUSH, "flush")                                                                                              \
	X(DISCARD, "discard")

enum disk_kind {
#define X(symbol, name) DISK_KIND_##symbol,
	DISK_KIND_LIST(X)
#undef X
		DISK_KINDS
};
extern const char *const disk_kind_names[DISK_KINDS];

struct disk_stats {
	struct timespec since; /* realtime; zeros: it was never open */
	uint64_t counters[DISK_COUNTERS];
	struct histogram_view latency[DISK_KINDS]; /* from a request's arrival to its answer */
};
void disk_get_stats(struct disk *disk, struct disk_stats *stats);
/* Counts from 0 again. */
void disk_reset_stats(struct disk *disk);

#endif
