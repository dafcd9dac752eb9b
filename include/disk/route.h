/* Where a disk's writes go: from one mode to another, while it is open. */
#ifndef LEAFDISK_DISK_ROUTE_H
#define LEAFDISK_DISK_ROUTE_H

#include "disk/disk.h"
#include "image/image.h"

struct run;

/* STEP_WAIT: something is pending, the request is stepped again after it. */
enum step { STEP_WAIT, STEP_NEXT };
struct phase {
	const char *name; /* of the function, without what all begin with */
	enum step (*run)(struct disk_io *io);
};

/* Of up to six functions that are named phase_NAME. */
#define PHASE(function)                                                                                                \
	{                                                                                                              \
		&#function[sizeof("phase_") - 1], function                                                             \
	}
#define PHASES_1(a) PHASE(a)
#define PHASES_2(a, ...) PHASE(a), PHASES_1(__VA_ARGS__)
#define PHASES_3(a, ...) PHASE(a), PHASES_2(__VA_ARGS__)
#define PHASES_4(a, ...) PHASE(a), PHASES_3(__VA_ARGS__)
#define PHASES_5(a, ...) PHASE(a), PHASES_4(__VA_ARGS__)
#define PHASES_6(a, ...) PHASE(a), PHASES_5(__VA_ARGS__)
#define PHASES_OF(a, b, c, d, e, f, list, ...) list
#define PHASES(...)                                                                                                    \
	((const struct phase[]){                                                                                       \
		PHASES_OF(__VA_ARGS__, PHASES_6, PHASES_5, PHASES_4, PHASES_3, PHASES_2, PHASES_1, none)(__VA_ARGS__), \
		{0}})
#define PHASES_NONE ((const struct phase[]){{0}})
#define DISK_OPS (DISK_GROW + 1)

/* What a mode does with requests, in the file of mode/ of its name. */
struct route {
	const char *name;
	/* What the leaf has of up to LIMIT blocks at BLOCK, into BUFFER: as
	 * layer_read(), by RUN's read. EXTENT_ABSENT: what is below it counts. */
	struct image_extent (*read)(struct run *run, uint64_t block, uint64_t limit, uint8_t *buffer);
	/* Returns how many of up to LIMIT blocks are written or being written; 0 when
	 * IO is starved, has to wait, or after an error (in io->result). */
	uint64_t (*write)(struct disk_io *io, uint64_t block, uint64_t limit, uint8_t *buffer);
	/* The same as READ, without reading. Blocks. */
	struct image_extent (*extent)(struct disk *disk, uint64_t block, uint64_t limit);
	bool (*takes_writes)(const struct disk *disk);
	/* What a smaller size cuts off inside the last block stands there still. */
	bool keeps_what_is_cut;
	/* By enum disk_op; each ends with one that has no function. */
	const struct phase *phases[DISK_OPS];
};

extern const struct route route_direct;	    /* to the leaf in the pool */
extern const struct route route_persistent; /* there, then into the cache */
extern const struct route route_ephemeral;  /* to the cache and the overflow layer */
extern const struct route route_writeback;  /* to the cache, and from there to the leaf by migration */
extern const struct route route_failed;	    /* nowhere: the disk is not what it was */

/* Whether route_begin_writing() has nothing to do any more. With open_lock held, the chain open. */
bool route_is_begun(const struct disk *disk);

/* All with open_lock held, the chain open, and no request in work: behind the
 * gate, or before the first open returns. They block. */

/* The leaf has just been opened: its first route. Into writeback where the cache
 * has changes of it. False and ERROR. */
bool route_open(struct disk *disk, GError **error);
/* The leaf is about to be closed: nothing, or nothing more, is written back. */
void route_close(struct disk *disk);
/* The same of a leaf that is sealed: its keeper's use of it ends. Requests of others may be in work. */
void route_close_sealed(struct disk *disk);
/* The same where its image is to be removed, and nobody stands on it: the cache forgets what it has of it. */
void route_discard_sealed(struct disk *disk);
/* Before that: an image without an identity of its own gets one, where it can. True: it
 * is known by another one now than the disk's links say. */
bool route_identify(struct disk *disk);
/* Makes the leaf ready to be written in the disk's mode: claimed, its stamp or
 * generation moved, its layer in the cache opened as the mode needs it. Again
 * has no effect. */
bool route_begin_writing(struct disk *disk, GError **error);
/* Into writeback, whatever the mode says. False: the disk is as before. */
bool route_enter_writeback(struct disk *disk, GError **error);
/* From what it is to what the mode says; of a disk in writeback nothing is
 * dirty. */
bool route_change(struct disk *disk, GError **error);
/* Out of it, to what the mode says; nothing is dirty. */
bool route_leave_writeback(struct disk *disk, GError **error);
/* Out of it as the cache fails: it gives up what it has of the leaf, all of
 * which the pool has. */
bool route_flee_cache(struct disk *disk, const char *reason, GError **error);
/* Nothing goes anywhere any more. LOST: another owns the image. */
void route_fail(struct disk *disk, bool lost);

#endif
