/* What is in a file or device that is no cache. Blocks. */
#ifndef LEAFDISK_CACHE_FORMAT_CONTENT_H
#define LEAFDISK_CACHE_FORMAT_CONTENT_H

#include <stdint.h>

/* What stands in FD, of BYTES, for a sentence: "is a qcow2 image". NULL: nothing, zeros all over. g_free.
 *
 * A file is looked at as a whole, but for its holes; of a device the first and the last 2 MiB, and
 * one block in each MiB. What cannot be read is something. */
char *cache_content_text(int fd, uint64_t bytes);

#endif
