/* The files of the control tree: what each says.
 *
 * Lines of "key: value", but for the JSON of `stats` and the metrics. */
#ifndef LEAFDISK_FUSE_CONTROL_FILES_H
#define LEAFDISK_FUSE_CONTROL_FILES_H

#include <stdbool.h>

#include "session.h"

/* Appends to TEXT what the file says now. DISK: whose file it is, NULL for the
 * mount's. 0, or a negative errno that has been logged where there is more to
 * say. May block; on a background thread. */
typedef int control_make_fn(struct session *session, struct disk *disk, GString *text);

control_make_fn control_make_version;
control_make_fn control_make_config;
control_make_fn control_make_stats;
control_make_fn control_make_metrics;
control_make_fn control_make_cache_info;
control_make_fn control_make_disk_info;
control_make_fn control_make_disk_chain;
control_make_fn control_make_disk_state;
control_make_fn control_make_disk_mode;

bool control_has_cache(struct session *session);

#endif
