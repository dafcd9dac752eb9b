/* Writeback: what the mode puts into a request's phases. */
#ifndef LEAFDISK_DISK_MODE_WRITEBACK_H
#define LEAFDISK_DISK_MODE_WRITEBACK_H

#include "disk/io/io.h"

/* As io_write_blocks(). */
uint64_t writeback_write_blocks(struct disk_io *io, uint64_t block, uint64_t limit, uint8_t *buffer);
enum step phase_zero_dirty(struct disk_io *io);
enum step phase_barrier(struct disk_io *io);
/* Nothing is dirty any more; the whole range is held, so nothing becomes so. */
enum step phase_drain(struct disk_io *io);

#endif
