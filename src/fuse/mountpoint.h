/* The directory that a pool is to be mounted on. All of it blocks, on the thread that
 * starts the mount. */
#ifndef LEAFDISK_FUSE_MOUNTPOINT_H
#define LEAFDISK_FUSE_MOUNTPOINT_H

#include <glib.h>
#include <stdbool.h>

/* No leafdisk is mounted on PATH (absolute, no links in it): one whose daemon is gone is
 * taken down. False and EBUSY: there is one. Before any thread is started. */
bool mountpoint_settle(const char *path, GError **error);

/* False and EBUSY: PATH holds disk images, which the mount would hide. Anything else that it
 * would hide is warned of. */
bool mountpoint_look_into(const char *path, GError **error);

/* A descriptor, close-on-exec and the caller's to close: nobody else mounts a leafdisk on
 * PATH until then, and none was. -1 and ERROR. */
int mountpoint_claim(const char *path, GError **error);

/* mount(8) has mounted already, and passed the descriptor on: "/dev/fd/N". *FD is N. */
bool mountpoint_is_descriptor(const char *path, int *fd);
/* Where the file system of that descriptor is mounted; NULL: that cannot be told. g_free. */
char *mountpoint_of_descriptor(int fd);

#endif
