/* Who keeps a mount from being taken down, and from its end. Both block; nobody's answer is needed for them. */
#ifndef LEAFDISK_CTL_USERS_H
#define LEAFDISK_CTL_USERS_H

#include "mounted.h"

/* Processes and loop devices that use MOUNT, as a part of a sentence; empty: none is seen. g_free. */
char *users_text(const struct mounted *mount);
/* The same of the disk that MOUNT names. g_free. */
char *users_of_disk(const struct mounted *mount);
/* Where the file system of MOUNT is mounted, here and in other mount namespaces that processes
 * are in, as a part of a sentence; empty: nowhere is seen. g_free. */
char *users_places(const struct mounted *mount);

#endif
