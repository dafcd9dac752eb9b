/* What is in a file or device that is no cache. Blocks. */
#ifndef LEAFDISK_CACHE_FORMAT_CONTENT_H
#define LEAFDISK_CACHE_FORMAT_CONTENT_H

#include <stdbool.h>
#include <stdint.h>

/* What stands in FD, of BYTES, for a sentence: "is a qcow2 image". NULL: nothing, zeros all over. g_free.
 * KNOWN: it is what it is called, and never was a cache.
 *
 * A file is looked at as a whole, but for its holes; of a device the first and the last 2 MiB, and
 * one block in each MiB. What cannot be read is something. */
char *cache_content_text(int fd, uint64_t bytes, bool *known);

/* A leaf image begins in FD, whole or not. */
bool cache_content_is_leaf(int fd);

#endif
