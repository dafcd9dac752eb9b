/* What the modes do with the shared leaf. */
#ifndef LEAFDISK_DISK_MODE_DIRECT_H
#define LEAFDISK_DISK_MODE_DIRECT_H

#include "disk/io/step.h"

/* As in struct route. */
struct image_extent direct_read(struct run *run, uint64_t block, uint64_t limit, uint8_t *buffer);
uint64_t direct_write(struct disk_io *io, uint64_t block, uint64_t limit, uint8_t *buffer);
struct image_extent direct_extent(struct disk *disk, uint64_t block, uint64_t limit);
bool direct_takes_writes(const struct disk *disk);

enum step phase_zero(struct disk_io *io);
enum step phase_flush(struct disk_io *io);
enum step phase_resize(struct disk_io *io);
enum step phase_grow(struct disk_io *io);

#endif
