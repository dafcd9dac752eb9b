/* What a mount's metrics say of each of its disks: all of them in one reading. */
#ifndef LEAFDISK_CTL_METRICS_H
#define LEAFDISK_CTL_METRICS_H

#include "client.h"

/* Counted since the disk was opened first, or its stats were reset. */
typedef struct disk_metrics {
	char *name;
	char *state;
	double opens;
	double dirty_bytes;
	double reads;
	double writes;
	double read_seconds; /* that all of them took */
	double write_seconds;
	double read_bytes;
	double write_bytes;
	double hits;  /* blocks read that the cache had */
	double asked; /* blocks read */
} disk_metrics;

/* Name: struct disk_metrics. NULL and ERROR. */
GHashTable *metrics_read(const struct mounted *mount, GError **error);
/* PART of ALL as people read it, "12%"; NULL: ALL is nothing. g_free. */
char *metrics_percent(double part, double all);

#endif
