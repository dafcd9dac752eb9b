/* Snapshots in the control tree. */
#ifndef LEAFDISK_FUSE_CONTROL_SNAPSHOTS_H
#define LEAFDISK_FUSE_CONTROL_SNAPSHOTS_H

#include "commands.h"

control_make_fn control_make_snapshots;
control_make_fn control_make_disk_snapshots;
/* "create NAME DISK...", as a shell quotes them. */
control_write_fn control_write_snapshot;
/* "create NAME", "fork DISK...", "revert [NAME]", "delete NAME"; "delete", of a fork of an ephemeral disk; "keep
 * [IMAGE]". */
control_write_fn control_write_disk_snapshot;

#endif
