/* A pool: a directory of images, and the disks that it makes.
 *
 * The directory is looked at again whenever a name is asked for that is not
 * known, and whenever it is listed, so that an image which appears becomes a
 * disk without a remount and one that disappears goes. Any thread; what does not
 * say otherwise may block. */
#ifndef LEAFDISK_POOL_POOL_H
#define LEAFDISK_POOL_POOL_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "core/config.h"
#include "disk/disk.h"
#include "disk/tunables.h"

struct disk_pool;

struct disk_pool_options {
	const char *path;    /* the pool's directory */
	const char *layers;  /* DIR[:DIR]: where parents may be, besides the pool; NULL: none */
	const char *disks;   /* GLOB on the shown names; NULL: all */
	bool read_only;	     /* every disk is read-only */
	bool stale_reads;    /* disks whose newest changes are elsewhere can be read */
	bool only_look;	     /* what others left in the pool stays as it is; no disk is opened */
	bool quiet;	     /* broken images are not logged: see disk_pool_broken() */
	GKeyFile *config;    /* [disk NAME] groups; NULL: none; borrowed until close */
	enum disk_mode mode; /* of disks whose group names none */
	const char *cache;   /* file or device; NULL: an unlinked file, where a disk is ephemeral */
	uint64_t cache_size; /* bytes; 0: as it is, or the default */
	bool keep_cache;     /* its file is not written: what is dirty in it stays so there */
	struct disk_tunables tunables;
};

/* Reads the directory and the headers of its images. A broken image is logged
 * and left out. Opens the cache when a disk's mode needs one, and starts its
 * threads: after any fork. NULL and ERROR when the pool or the cache cannot be
 * used. */
struct disk_pool *disk_pool_open(const struct disk_pool_options *options, GError **error);
/* Logs what OPTIONS, which POOL was opened with, may not have meant: no disk, a pattern or
 * a group that names none, a cache in the pool or without room to grow, disks whose newest
 * changes another cache has. Blocks. */
void disk_pool_warn(struct disk_pool *pool, const struct disk_pool_options *options);
/* All disks must be closed. References may remain (a disk outlives its pool),
 * but for a pool with a cache. */
void disk_pool_close(struct disk_pool *pool);

const char *disk_pool_path(const struct disk_pool *pool); /* absolute */

/* The disk shown as NAME with a reference. Looks at the directory where that has
 * changed and the name is not known, or its file is gone. NULL with ERROR: -ENOENT,
 * or what kept the pool from telling. Blocks on the pool's store, but not on what
 * others do there. */
struct disk *disk_pool_lookup(struct disk_pool *pool, const char *name, GError **error);
/* The disk that was shown as NAME when somebody looked last, with a reference; NULL:
 * none. Does not block. */
struct disk *disk_pool_find(struct disk_pool *pool, const char *name);
/* Whether it is what the pool has under its name now. Does not block. */
bool disk_pool_shows(struct disk_pool *pool, const struct disk *disk);

/* Looks at the directory where it has changed. Blocks on the pool's store. */
void disk_pool_look(struct disk_pool *pool);
/* The same; a store that does not answer is not waited for longer than for an image. */
void disk_pool_look_for_a_while(struct disk_pool *pool);
/* All disks as of the last look, sorted by name, each with a reference (array of
 * struct disk *, free function set). Does not block. */
GPtrArray *disk_pool_shown(struct disk_pool *pool);
/* These, and behind them those that are not shown any more and may have something dirty. */
GPtrArray *disk_pool_dirty(struct disk_pool *pool);

/* Identity of the pool at PATH, by which a cache knows it. Blocks. */
bool disk_pool_read_id(const char *path, uint8_t id[16], GError **error);

/* Owner and times of the pool's directory. Blocks. */
int disk_pool_stat(struct disk_pool *pool, struct stat *st);
/* The former as they were told last; false: never. Does not block. */
bool disk_pool_recall_stat(struct disk_pool *pool, struct stat *st);
/* Somebody is waiting for them at this moment. */
bool disk_pool_is_looked_at(struct disk_pool *pool);
/* Of its file system. Blocks. */
int disk_pool_statvfs(struct disk_pool *pool, struct statvfs *st);

/* From now on the log says when the pool's file system is nearly full. Once, after any fork. */
void disk_pool_watch_room(struct disk_pool *pool);
/* A disk has found no room, or somebody asks: it is looked at soon. Any thread; does not block. */
void disk_pool_look_at_room(struct disk_pool *pool);
/* As it was found last; false: never. Any thread; does not block. */
bool disk_pool_recall_room(struct disk_pool *pool, uint64_t *size_bytes, uint64_t *free_bytes);

/* disk_drain() of every disk; DIRTY_BYTES are those of all. True when nothing
 * is dirty. False and ERROR: a sentence with how much of which disks stays in
 * the cache, and why. Blocks. */
bool disk_pool_drain(struct disk_pool *pool, bool (*go_on)(void *opaque, uint64_t dirty_bytes), void *opaque,
		     GError **error);

/* From now on no request waits for the pool or the cache: one that would is
 * answered -EIO. Any thread; does not block. */
void disk_pool_end(struct disk_pool *pool);

/* Ends all that disk_pool_close() would wait for, which then only frees: disks are
 * forgotten, threads end, the cache is durable. False: the cache is not, though
 * something stays in it; that has been logged. Blocks. */
bool disk_pool_stop(struct disk_pool *pool);
/* For a process that ends although disks are open and threads wait for stores:
 * what the cache has becomes durable, for PATIENCE_NS at most, and its lock is
 * free; *LEFT_BYTES are dirty in it. 0 or -errno of that. The pool is of no use
 * any more. Any thread, while no other frees the pool. */
int disk_pool_leave(struct disk_pool *pool, uint64_t patience_ns, uint64_t *left_bytes);

/* A copy of what is in force. */
void disk_pool_get_tunables(struct disk_pool *pool, struct disk_tunables *tunables);
/* False and ERROR: what is allowed. */
bool disk_pool_set_tunable(struct disk_pool *pool, const char *key, const char *value, GError **error);

/* The cache as "key: value" lines; NULL: there is none. g_free. */
char *disk_pool_cache_text(struct disk_pool *pool);
/* The file of the cache was removed: no mount after this one has what is in it. Blocks. */
bool disk_pool_cache_is_removed(struct disk_pool *pool);

/* Images that could not be shown: "file: reason" lines. g_free. */
char *disk_pool_broken(struct disk_pool *pool);

/* Files of other formats that are not shown, and disks that are taken for raw and look like one:
 * "file: reason" lines with what to type. g_free. */
char *disk_pool_foreign(struct disk_pool *pool);

/* The keys of a [disk NAME] group, for the man page's test. */
extern const struct config_key disk_config_keys[];

#endif
