/* Counting what requests of a disk do. On the request's loop. */
#ifndef LEAFDISK_DISK_COUNT_H
#define LEAFDISK_DISK_COUNT_H

#include "cache/block.h"
#include "disk/object.h"

struct disk_count;

/* Of a disk that is opened first; g_free. */
struct disk_count *count_new(void);

/* IO, whose range is set, begins. */
void count_begin(struct disk_io *io);
/* What IO, a read, has found at BLOCK: nothing is counted of other requests. SOURCE is not told of what no
 * layer has. */
void count_read(struct disk_io *io, uint64_t block, uint64_t blocks, enum layer_source source);
/* The cache took what IO, a write, has at BLOCK; likewise. */
void count_put(struct disk_io *io, uint64_t block, uint64_t blocks, const struct cache_found *found);
/* IO is answered with RESULT. */
void count_finished(struct disk_io *io, int64_t result);

#endif
