/* The files of the control tree: what each says.
 *
 * Lines of "key: value", but for the JSON of `stats` and the metrics. */
#ifndef LEAFDISK_FUSE_CONTROL_FILES_H
#define LEAFDISK_FUSE_CONTROL_FILES_H

#include <stdbool.h>
#include <stdint.h>

#include "fuse/session.h"

/* What a file is about. */
struct control_subject {
	struct session *session;
	struct node *node; /* of a disk, pinned; NULL: the mount's file */
	struct disk *disk; /* with a reference */
	const struct config_key *tunable;
};

/* Appends to TEXT what the file says now. 0, or a negative errno that has been
 * logged where there is more to say. May block; on a background thread. */
typedef int control_make_fn(const struct control_subject *subject, GString *text);

/* Of a file that is read on: from *NEXT on, which is moved. */
typedef void control_read_on_fn(uint64_t *next, GString *text);

control_make_fn control_make_version;
control_make_fn control_make_pid;
control_make_fn control_make_config;
control_make_fn control_make_stats;
control_make_fn control_make_metrics;
control_make_fn control_make_dirty;
control_make_fn control_make_last_error;
control_make_fn control_make_tunable;
control_make_fn control_make_cache_info;
control_make_fn control_make_disk_info;
control_make_fn control_make_disk_chain;
control_make_fn control_make_disk_state;
control_make_fn control_make_disk_mode;
control_make_fn control_make_disk_size;

/* measures.c */
control_make_fn control_make_disk_stats;
control_make_fn control_make_disk_latency;
control_make_fn control_make_disk_requests;

bool control_has_cache(struct session *session);
/* Dirty bytes of all disks. May block. */
uint64_t control_dirty_bytes(struct session *session);

#endif
