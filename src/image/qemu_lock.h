/* QEMU's image locks. */
#ifndef LEAFDISK_IMAGE_QEMU_LOCK_H
#define LEAFDISK_IMAGE_QEMU_LOCK_H

#include <stdbool.h>

#include "aio/file.h"

/* The locks of who writes the image in FILE, or with !WRITABLE of who reads it and has nobody write it,
 * until it is closed. NO with ERROR, of which ADVICE is the end: somebody else's exclude them, and have
 * for a second; nothing is locked. UNKNOWN: there are none here. Where aio_file_lock() said YES. Blocks. */
enum answer qemu_lock_take(struct aio_file *file, bool writable, const char *advice, GError **error);

/* What a writer holds becomes what a reader does; FD has the locks. */
void qemu_lock_lower(int fd);

#endif
