/* Reading: where blocks are found, and how they are brought. */
#ifndef LEAFDISK_DISK_IO_READ_H
#define LEAFDISK_DISK_IO_READ_H

#include "disk/object.h"

/* Reads up to LIMIT blocks at BLOCK into BUFFER. Returns how many are read or
 * being read, 0 when IO is starved. */
uint64_t io_read_blocks(struct disk_io *io, uint64_t block, uint64_t limit, uint8_t *buffer);

#endif
