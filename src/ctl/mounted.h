/* A name that lies in a leafdisk mount, and the image in the pool behind it. */
#ifndef LEAFDISK_CTL_MOUNTED_H
#define LEAFDISK_CTL_MOUNTED_H

#include <glib.h>
#include <stdbool.h>
#include <sys/types.h>

typedef struct mounted {
	char *pool; /* its directory, absolute */
	char *name; /* below the mount: "web1.img"; empty: the mount itself */
	char *top;  /* a directory that shows the whole mount; NULL: there is none */
	dev_t device;
} mounted;

/* NULL when PATH does not exist or lies in no leafdisk mount. Blocks. */
struct mounted *mounted_find(const char *path);
void mounted_free(struct mounted *mount);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(mounted, mounted_free)
/* Where the pool at PATH is mounted; NULL: nowhere, or PATH is none. Blocks; g_free. */
char *mounted_point_of_pool(const char *path);
/* The file of the disk NAME, with its ending or without, in the only mount that has it; NULL: none or several
 * have, or they do not answer. g_free. */
char *mounted_disk_of_name(const char *name);
/* PATH is a disk that is there; its store is not asked. */
bool mounted_is_disk(const char *path);
/* Where a process has the leafdisk mount DEVICE, whose TABLE of mounts is the text of its
 * mountinfo (proc(5)). NULL: nowhere; g_free. */
char *mounted_place(const char *table, dev_t device);

/* The file of the image that PATH means: PATH itself, or for a file in a mount
 * the image in the pool, which may have its parents in LAYERS (may be NULL).
 * NULL and ERROR when the pool has no image for it. g_free. */
char *mounted_image_path(const char *path, const char *layers, GError **error);

/* Refuses a new file in a mount: images are made in the pool. */
bool mounted_allow_new(const char *path, GError **error);

#endif
