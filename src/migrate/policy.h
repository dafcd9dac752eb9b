/* What the migrator does next, and when. Nothing here blocks. */
#ifndef LEAFDISK_MIGRATE_POLICY_H
#define LEAFDISK_MIGRATE_POLICY_H

#include <stdbool.h>
#include <stdint.h>

#include "cache/cache.h"
#include "disk/object.h"
#include "disk/tunables.h"

/* What can be done to a disk. All but a batch is done with its open_lock. */
enum work {
	WORK_NONE,
	WORK_BATCH,
	WORK_END,      /* it has failed: its route follows */
	WORK_TO_POOL,  /* the cache is suspended, and has nothing of it that the pool has not */
	WORK_TO_CACHE, /* it works again */
	WORK_LEAVE,    /* what an earlier mount left is in the pool: on to the mode that was asked for */
	WORK_CLOSE,    /* nobody has it open any more */
};

/* While the state has to change, and cannot yet. */
#define LOOK_AGAIN_NS (50 * NS_PER_MS)

/* One look at the disks of a pool. */
struct look {
	struct pool_cache *pool_cache;
	struct disk_tunables tunables;
	struct cache_status cache;
	uint64_t now_ns;
	uint64_t next_ns; /* when to look again, if nothing comes before */
	uint64_t oldest;  /* distance of the oldest dirty block of those whose images take them */
	uint64_t going;	  /* dirty blocks of these */
	bool mixed;	  /* images are on several stores */
};
void look_refresh(struct look *look, struct pool_cache *pool_cache);
void look_again(struct look *look, uint64_t at_ns);

/* What is to be done to DISK, which nobody works on. OPEN_LOCKED: its open_lock is
 * held; otherwise only a batch is thought of. *CUT: an epoch is to end for it. Tells
 * drains of a clean disk. The backlogs' lock is held. */
enum work policy_choose_locked(struct look *look, struct disk *disk, bool open_locked, bool *cut);
/* The same of all but batches, for who works on it, with its open_lock. */
enum work policy_choose_state(struct look *look, struct disk *disk);
/* Lets requests begin that were parked while the cache came back or was left. The
 * backlogs' lock is held. */
void policy_release_locked(struct look *look, struct disk *disk);

#endif
