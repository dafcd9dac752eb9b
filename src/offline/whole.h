/* New files that have their name once they are whole.
 *
 * Until then a file stands beside it under a hidden name, which no pool shows. A program that is killed
 * leaves that; the next one for the same name removes it, where it can tell that nobody is at work on it.
 * A block device is written where it is. */
#ifndef LEAFDISK_OFFLINE_WHOLE_H
#define LEAFDISK_OFFLINE_WHOLE_H

#include <glib.h>
#include <stdbool.h>

struct whole {
	char *path;   /* that it is to have */
	char *hidden; /* that it has meanwhile; nothing is there at first. A device: its path */
	bool device;
	int directory; /* of a file */
};

/* False and ERROR: a file has that path, or its directory cannot be used. Blocks. */
bool whole_begin(struct whole *whole, const char *path, GError **error);
/* The same, whatever has that path. */
bool whole_begin_beside(struct whole *whole, const char *path, GError **error);
/* GOOD: what is at the hidden path, durable by itself, is at the path, durably; otherwise it is removed (a device:
 * stays as it is), and ERROR, which is set, names the path. False: it is not there. */
bool whole_end(struct whole *whole, bool good, GError **error);
/* As whole_end(), under the first of the names of PATHS (NULL at the end) that nothing has. */
bool whole_end_as(struct whole *whole, const char *const *paths, GError **error);

#endif
