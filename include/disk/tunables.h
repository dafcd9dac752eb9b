/* What can be changed while a pool is in use. */
#ifndef LEAFDISK_DISK_TUNABLES_H
#define LEAFDISK_DISK_TUNABLES_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/config.h"

/* What can be changed while a pool is in use. */
struct disk_tunables {
	uint64_t read_run_bypass;     /* bytes; longer sequential runs do not fill the cache */
	bool copy_on_read;	      /* reads fill the cache */
	uint64_t max_dirty;	      /* bytes of all disks; 0: what the cache holds */
	uint64_t max_dirty_age;	      /* seconds */
	uint64_t migrate_idle_ms;     /* the shared store counts as idle after that */
	uint64_t migrate_threshold;   /* percent of max_dirty */
	uint64_t migrate_batch;	      /* blocks */
	uint64_t barrier_deadline_ms; /* a flush may wait that long for others to join */
};

#define DISK_TUNABLES_DEFAULT                                                                                          \
	{                                                                                                              \
		.read_run_bypass = 4 << 20, .copy_on_read = true, .max_dirty_age = 30, .migrate_idle_ms = 200,         \
		.migrate_threshold = 50, .migrate_batch = 4096                                                         \
	}

/* The tunables by name; ends with a NULL name. */
extern const struct config_key disk_tunable_keys[];

struct tunables;

struct tunables *tunables_new(const struct disk_tunables *values);
void tunables_free(struct tunables *tunables); /* NULL is allowed */
/* Any thread. */
void tunables_get(struct tunables *tunables, struct disk_tunables *values);
bool tunables_set(struct tunables *tunables, const char *key, const char *value, GError **error);

#endif
