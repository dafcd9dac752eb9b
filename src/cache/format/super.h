/* The superblock in the file: reading and replacing its two copies, and why a file is not
 * used. Blocks. */
#ifndef LEAFDISK_CACHE_FORMAT_SUPER_H
#define LEAFDISK_CACHE_FORMAT_SUPER_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "format/cache.h"

enum cache_super_result {
	CACHE_SUPER_GOOD,
	CACHE_SUPER_BLANK,   /* zeros all over, or an empty file: may be formatted */
	CACHE_SUPER_FOREIGN, /* something else is there, or both copies are damaged: ERROR set */
};
/* The copy that counts. BAD_COPIES may be NULL. */
enum cache_super_result cache_super_read(int fd, const char *path, uint64_t file_bytes,
					 struct cache_super_ondisk *super, unsigned *bad_copies, GError **error);
/* Both copies, the older one first, each made durable before the next; SUPER's
 * sequence rises with each. 0 or -errno: then call it again to try again. */
int cache_super_write(int fd, const char *path, struct cache_super_ondisk *super);

/* Sets ERROR: PATH, WHY it is not used, and the command that resets it. False. */
bool cache_refuse(GError **error, const char *path, const char *why);
/* The same of what never was a cache, WHAT it is: no command makes it one in passing. */
bool cache_refuse_other(GError **error, const char *path, const char *what);

#endif
