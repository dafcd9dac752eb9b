/* Loop devices on an image's file. */
#ifndef LEAFDISK_IMAGE_LOOP_DEVICE_H
#define LEAFDISK_IMAGE_LOOP_DEVICE_H

#include <stdbool.h>

#include "aio/file.h"

/* False with ERROR: the regular file FILE has a loop device, and has for a second, that can write it, or for
 * !WRITABLE ones of ours only reads it. One whose file cannot be told is none. Blocks. */
bool loop_device_allows(const struct aio_file *file, bool writable, GError **error);

#endif
