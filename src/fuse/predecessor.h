/* The mount that had the cache before, and still writes back. */
#ifndef LEAFDISK_FUSE_PREDECESSOR_H
#define LEAFDISK_FUSE_PREDECESSOR_H

#include <stdbool.h>

struct end;

/* Waits while a leafdisk of this machine, whose mount has ended, has the file CACHE open (absolute; NULL: none),
 * and says so. Until END is given up. Blocks. */
void predecessor_await(const char *cache, const struct end *end);

#endif
