/* What the local configuration says of all images of the process. */
#ifndef LEAFDISK_IMAGE_SETTINGS_H
#define LEAFDISK_IMAGE_SETTINGS_H

#include <stdint.h>

/* leaf/grow.c */
/* ARGV (NULL-terminated, copied; NULL: none) is run when a block device has no
 * room left, with the device's path appended. Every leaf image opened later
 * uses it. Comes from the local configuration only. */
void image_set_grow_command(const char *const *argv);

/* file.c */
/* How long what blocks on an image's file tries again after transient errors; 0:
 * 120 s. The process's. */
void image_set_io_timeout(uint64_t timeout_ns);

#endif
