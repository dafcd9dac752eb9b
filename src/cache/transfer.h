/* Blocking transfers of whole lengths on a descriptor. */
#ifndef LEAFDISK_CACHE_TRANSFER_H
#define LEAFDISK_CACHE_TRANSFER_H

#include <stddef.h>
#include <stdint.h>

/* 0 or -errno; a read past the end is -ENODATA. Where the descriptor is
 * O_DIRECT all three must be block-aligned. */
int cache_transfer_read(int fd, void *data, size_t length, uint64_t offset);
int cache_transfer_write(int fd, const void *data, size_t length, uint64_t offset);

#endif
