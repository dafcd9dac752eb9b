/* The kernel's table of mounts, read without touching any of them: a stat()
 * of a mount whose server hangs would hang too. */
#ifndef LEAFDISK_FUSE_MOUNTS_H
#define LEAFDISK_FUSE_MOUNTS_H

#include <stdbool.h>

#include "core/answer.h"

struct mount_entry {
	unsigned major;
	unsigned minor;
	char *type;   /* "fuse.leafdisk" */
	char *source; /* what stands in the first column of mount(8)'s output */
};

/* The topmost mount on PATH (absolute, no links in it). False when there is
 * none; ENTRY is to be cleared in any case. */
bool mounts_find(const char *path, struct mount_entry *entry);
/* Whether the file system with the device number MAJOR:MINOR is mounted in this namespace; where, the last
 * time, is put into *POINT (NULL: it does not matter; g_free). */
enum answer mounts_look(unsigned major, unsigned minor, char **point);
void mount_entry_clear(struct mount_entry *entry);

#endif
