/* What the files of a pool share.
 *
 * `scanning` is held by whoever looks at the directory or changes it, and while
 * that blocks on the store; `lock` for a moment, never across I/O. So a disk that
 * is known is found whatever the store does for others. Order: scanning, whatever
 * the front end holds while it shows a change, lock. */
#ifndef LEAFDISK_POOL_INTERNAL_H
#define LEAFDISK_POOL_INTERNAL_H

#include <string.h>

#include "cache/layer.h"
#include "core/lock.h"
#include "pool/pool.h"
#include "disk/object.h"
#include "names.h"
#include "owner/owner.h"
#include "room.h"
#include "scan.h"

/* When the directory was looked at. */
struct look_time {
	struct timespec mtime; /* the directory's then */
	bool again;	       /* that time was not settled, or the look failed */
};

struct disk_pool {
	/* Constant while it is open. */
	struct scan_options options;
	struct chain_roots *roots;
	bool quiet;
	bool stale_reads;
	struct pool_cache *pool_cache; /* NULL: there is no cache */
	struct tunables *tunables;
	struct owner_self owner;
	struct room *room; /* NULL: nobody watches it */

	struct lock scanning;
	GPtrArray *left;   /* groups (GPtrArray of struct succession) of before the mount, and removals, that are not
			      settled */
	GPtrArray *failed; /* struct succession of this mount that are to be undone */
	struct scan_known *known;
	struct look_time looked[SCAN_EXTENTS]; /* last, at so much at least */
	uint64_t new_looks;		       /* looks at what is new, so far */
	uint64_t unchecked;		       /* the last of them, for recheck.c; 0: all was looked at since */
	GError *trouble;		       /* of the last look; NULL: it succeeded */
	char *broken_then;		       /* what has been logged of it */
	char *notes;
	_Atomic uint64_t looks[SCAN_EXTENTS]; /* that have begun; written under `scanning` */

	struct lock lock;
	GHashTable *disks; /* disk->name -> struct disk */
	struct names *names;
	char *broken; /* lines, as of the last look */
	char *foreign;
	uint64_t next_id;

	/* Looks that are waited for only so long (pool.c). */
	uint64_t asked;	       /* for */
	uint64_t answered;     /* of those */
	bool answering;	       /* a thread looks */
	struct condition told; /* one of the two above */

	/* resume.c, under `lock`. */
	struct {
		bool running; /* a thread */
		bool stop;
		struct list tries; /* under way, the last one first */
		struct condition changed;
	} resume;

	/* recheck.c, under `lock`. */
	struct {
		bool wanted;
		bool running; /* a thread */
		bool stop;
		uint64_t pause_ns; /* before the next one */
		struct condition changed;
	} recheck;

	struct stat seen; /* of the directory */
	bool has_seen;
	_Atomic unsigned lookers; /* at that, now; not under the lock */
};

static inline struct place *pool_place(const struct disk_pool *pool)
{
	return chain_roots_pool(pool->roots);
}

/* The name of the file at PATH, which is right in the pool, or in its directory of sealed images. */
static inline const char *pool_file_name(const char *path)
{
	return strrchr(path, '/') + 1;
}

/* resume.c: what an earlier mount left in the cache begins to be written back, as soon
 * as it can be. Blocks, for CHAIN_PATIENCE_NS at most after the last store that answered. False and
 * ERROR: there is some, and no thread to be had that tries again what cannot be opened now. */
bool disk_pool_resume(struct disk_pool *pool, GError **error);
/* Begins WORK, which may wait for DISK's store, on a thread of its own: one for a disk at a time, and
 * so many at once that a store which hangs keeps others none. Where the kernel gives no thread
 * it is done by the caller if HERE. False: not begun, as the store hangs, another of DISK is
 * under way, there is no thread, or nothing is begun any more. Blocks as disk_pool_resume() does. */
bool pool_try(struct disk_pool *pool, struct disk *disk, bool here, void (*work)(struct disk *disk, void *opaque),
	      void *opaque);
/* The same, to open DISK so that it gets what an earlier mount left of it. Why it does not: disk_get_left(). */
bool pool_try_left(struct disk_pool *pool, struct disk *disk, bool here);
/* Sealed images of which nobody has what an earlier mount left of them have a keeper, but for those whose stores do not
 * answer for CHAIN_PATIENCE_NS. Blocks as long. */
void pool_keep_sealed(struct disk_pool *pool);
/* Waits for the end of what is tried of DISK, until UNTIL_NS at most. True: nothing is. */
bool pool_await_try(struct disk_pool *pool, const struct disk *disk, uint64_t until_ns);
/* Waits until nothing is tried any more. */
void pool_stop_resuming(struct disk_pool *pool);
/* change.c. "x.img" -> "x"; NULL and ERROR when NAME cannot be a disk's. g_free. */
char *pool_stem_of(const char *name, GError **error);
/* No disk, and no image that is not shown now, has NAME. */
bool pool_name_is_free(struct disk_pool *pool, const char *name, GError **error);
/* The same, and nobody else gets it: see names_reserve(). */
bool pool_reserve_name(struct disk_pool *pool, const char *name, GError **error);

/* A descriptor, or -1: as long as it is open no command takes a hidden file of DIRECTORY for left. */
int pool_join_those_at_work(int directory);

/* left.c: whether what the cache has of DISK, which is closed and whose image the caller has
 * locked, is no reason against its image being moved or removed. False and EBUSY: a sentence
 * with the commands. Blocks. */
bool pool_left_allows(struct disk_pool *pool, struct disk *disk, bool moved, GError **error);

/* Waits until no thread looks. */
void pool_await_look(struct disk_pool *pool);

#endif
