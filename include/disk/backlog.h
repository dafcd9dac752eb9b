/* A disk's backlog: what is dirty in the cache and not in the pool yet. */
#ifndef LEAFDISK_DISK_BACKLOG_H
#define LEAFDISK_DISK_BACKLOG_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "core/list.h"
#include "core/loop.h"

struct disk;
struct disk_io;
struct pool_cache;

/* Somebody waits until nothing of a disk is dirty. */
struct drain {
	struct loop *loop;
	struct loop_task task; /* posted once */
	int result;	       /* 0, or why that will take long: -errno */
	struct list link;
};

/* A disk's part. */
struct migration {
	struct list link; /* on the pool's list: what it writes may be dirty */
	bool attached;
	bool working;	      /* the migrator has given it to one of its threads */
	bool busy;	      /* for a batch: its chain stays as it is */
	uint64_t batch_bytes; /* while busy: memory of the batch, or what it may be */
	uint64_t owned_at_ns; /* when its owner record was read; 0: it is to be read (migrate/owned.c) */
	unsigned looks;	      /* how often that was asked for */
	bool away;	      /* the cache fails: it goes to the pool until that is over */
	unsigned urged;	      /* who wants all of it written back */
	struct list waiters;  /* struct drain */
	unsigned failures;    /* in a row */
	int error;	      /* of the last one */
	unsigned batch_max;   /* blocks; less than is tuned while the store is full */
	bool lent;	      /* see migrate_lend_leaf() */
	bool in_pieces;	      /* the batch has discards that are to make room for the rest of it */
	uint64_t retry_at_ns;
	bool failed; /* for good */
	bool lost;   /* that is why: another has its image */
	char reason[256];
	struct timespec since;
};

/* Those of a pool. The lock guards the list and every disk's struct migration; it is
 * taken inside open_lock. */
struct backlogs {
	GMutex lock;
	GCond changed;	   /* a disk is no longer busy */
	struct list disks; /* by migration.link */
};
void backlogs_init(struct backlogs *backlogs);
void backlogs_clear(struct backlogs *backlogs);
struct disk *backlog_disk(struct list *node);

void migration_init(struct migration *migration);

/* DISK's chain is open and its route is WRITEBACK, until it is detached;
 * blocks until no batch is under way. Both have no effect again. */
void migrate_attach(struct disk *disk);
void migrate_detach(struct disk *disk);

/* Posts DRAIN's task once nothing of DISK is dirty, or it failed for a while. */
void migrate_drain(struct disk *disk, struct drain *drain);
/* Requests that wait for the migrator are woken, with -EAGAIN for a result: the
 * gate is being closed. */
void migrate_send_back(struct disk *disk);
/* All of DISK is wanted in the pool (+1), or no longer (-1). */
void migrate_urge(struct disk *disk, int change);
/* Who waits for DISK to be clean with its open_lock, behind its closed gate, lends
 * the leaf meanwhile: one that failed can be exchanged, which needs both. */
void migrate_lend_leaf(struct disk *disk, bool lent);
/* 0: nothing has failed lately; otherwise -errno and a sentence (g_free). */
int migrate_get_error(struct disk *disk, char **reason);

/* For good, until DISK is opened anew: the cache has lost some of it, or another
 * has taken it over. */
bool migrate_has_failed(struct disk *disk);

/* Something of DISK is dirty, so that its chain has to stay open. */
bool migrate_is_needed(struct disk *disk);
/* Fills what STATUS says of dirty blocks; true: and of the state too. */
struct disk_status;
bool migrate_get_status(struct disk *disk, struct disk_status *status);

/* Whoever waits, for room, for a drain or before a gate, looks again. Does not
 * block for long. */
void migrate_look_again(struct pool_cache *pool_cache);
/* The shared store, or the guest, was not idle now. */
void migrate_note_io(struct pool_cache *pool_cache);
/* Something that the migrator looks at has changed. */
void migrate_kick(struct pool_cache *pool_cache);

/* For the migrator, under the lock. */

/* Who waits for a drain is told of failure after so many. */
#define BACKLOG_FAILURES_TOLD 3
/* Who waits for a drain is told RESULT: 0 or -errno. */
void backlog_answer_drains_locked(struct migration *migration, int result);
/* What is dirty of an attached disk; of another one, nothing. */
struct cache_dirty;
void backlog_get_dirty_locked(struct disk *disk, struct cache_dirty *dirty);
/* What `state` says from now on; "": nothing. */
void backlog_set_reason_locked(struct migration *migration, const char *reason);

#endif
