/* The images of a pool that were sealed. */
#ifndef LEAFDISK_OFFLINE_SEALED_H
#define LEAFDISK_OFFLINE_SEALED_H

#include <glib.h>
#include <stdbool.h>

/* Their directory in POOL, which need not be there. g_free. */
char *sealed_directory(const char *pool);
/* EACH gets the path of each file of it that is not hidden, in no order. False and ERROR: it cannot be told which there
 * are. Blocks. */
bool sealed_foreach(const char *pool, void (*each)(void *opaque, const char *path), void *opaque, GError **error);

#endif
