/* The phases of a disk_io, and what they are made of. */
#ifndef LEAFDISK_DISK_IO_IO_H
#define LEAFDISK_DISK_IO_IO_H

#include "disk/object.h"

/* STEP_WAIT: something is pending, the request is stepped again after it. */
enum step { STEP_WAIT, STEP_NEXT };

/* Reads up to LIMIT blocks at BLOCK into BUFFER. Returns how many are read or
 * being read, 0 when IO is starved. */
uint64_t io_read_blocks(struct disk_io *io, uint64_t block, uint64_t limit, uint8_t *buffer);
/* Writes likewise; also 0 when it has to wait for room, or after an error (in
 * io->result). */
uint64_t io_write_blocks(struct disk_io *io, uint64_t block, uint64_t limit, uint8_t *buffer);
/* A run for an operation on the leaf: OFFSET and LENGTH in bytes. False when
 * starved. */
bool io_run_op(struct disk_io *io, void (*submit)(struct image *, struct image_op *), uint64_t offset, uint64_t length,
	       bool bottom);
/* RUN, counted in its owner's pending, is over. */
void io_run_finished(struct run *run, int result);
void io_transfer_done(struct image_io *image_io, int result);
void io_op_done(struct image_op *op, int result);
/* RUN waits until IMAGE may take a write that it had no room for. */
void io_wait_for_room(struct run *run, struct image *image);
/* Nothing of IO is pending. It gives all back that it holds and begins anew
 * when the disk's gate opens the next time; what a phase returns then. */
enum step io_park(struct disk_io *io);
/* What a phase returns when it has nothing left to submit. */
enum step io_wait_pending(const struct disk_io *io);

/* edges.c: blocks that are touched in part. */
enum step phase_write_edges_read(struct disk_io *io);
enum step phase_zero_edges_read(struct disk_io *io);
enum step phase_zero_edges_write(struct disk_io *io);

#endif
