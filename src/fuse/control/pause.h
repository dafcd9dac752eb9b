/* Pauses in the control tree. */
#ifndef LEAFDISK_FUSE_CONTROL_PAUSE_H
#define LEAFDISK_FUSE_CONTROL_PAUSE_H

#include "commands.h"
#include "disk/pause.h"

control_make_fn control_make_disk_pause;
/* "pause", "resume". */
control_write_fn control_write_disk_pause;

/* A line: how it is held, since when, and by whom. */
void control_append_holder(GString *text, const struct disk_holder *holder);

#endif
