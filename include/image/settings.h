/* What the local configuration says of all images of the process. */
#ifndef LEAFDISK_IMAGE_SETTINGS_H
#define LEAFDISK_IMAGE_SETTINGS_H

#include <stdint.h>

/* How long what blocks on an image's file tries again after transient errors; 0:
 * 120 s. The process's. */
void image_set_io_timeout(uint64_t timeout_ns);

#endif
