/* The mount that had the cache before, and still writes back. */
#ifndef LEAFDISK_FUSE_PREDECESSOR_H
#define LEAFDISK_FUSE_PREDECESSOR_H

#include <glib.h>

struct end;

/* Waits while a leafdisk of this machine, whose mount has ended, has the file CACHE open (absolute; NULL: none),
 * and says so, and how far it is: on a terminal, in the log, and to the service manager. Until END is given up.
 * Blocks. */
void predecessor_await(const char *cache, const struct end *end);
/* ERROR is why CACHE cannot be used; where that is as another mount has it, it names the one. */
void predecessor_name_holder(const char *cache, GError **error);

#endif
