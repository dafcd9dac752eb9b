/* The engine of requests, for phases: what they wait for, and what that steps. */
#ifndef LEAFDISK_DISK_IO_STEP_H
#define LEAFDISK_DISK_IO_STEP_H

#include "disk/object.h"
#include "disk/route.h"

/* A request that is answered without any phase. */
#define PHASE_NONE UINT8_MAX

/* For who asks what the disk does. On IO's loop. */
static inline void io_note_phase(struct disk_io *io, const char *name)
{
	atomic_store_explicit(&io->phase_name, name, memory_order_relaxed);
}
static inline void io_note_wait(struct disk_io *io, enum disk_wait wait)
{
	atomic_store_explicit(&io->wait, wait, memory_order_relaxed);
}

/* IO is in work: goes on with it where it stopped. */
void disk_io_step(struct disk_io *io);

/* RUN, counted in its owner's pending, is over. */
void io_run_finished(struct run *run, int result);
void io_transfer_done(struct image_io *image_io, int result);
void io_op_done(struct image_op *op, int result);
/* RUN waits until IMAGE may take a write that it had no room for. */
void io_wait_for_room(struct run *run, struct image *image);
/* Until the cache may take what it had no room for; DIRTY: because too much is
 * dirty of its disk, or of all. */
enum step io_wait_for_cache(struct disk_io *io, bool dirty);
/* Nothing of IO is pending. It gives all back that it holds and begins anew
 * when the disk's gate opens the next time; what a phase returns then. */
enum step io_park(struct disk_io *io);
/* What a phase returns when it has nothing left to submit. */
enum step io_wait_pending(const struct disk_io *io);

#endif
