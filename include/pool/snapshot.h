/* Snapshots of running disks.
 *
 * A disk's leaf is sealed and gets the name snapshots/STEM@NAME in the pool; a new leaf on it takes its place. What
 * is dirty of it goes to its image in the background, before anything of the new one. What is made of an ephemeral disk
 * is in the log, and gone with the mount: no file of the pool is of it. */
#ifndef LEAFDISK_POOL_SNAPSHOT_H
#define LEAFDISK_POOL_SNAPSHOT_H

#include <glib.h>
#include <stdbool.h>

#include "pool/pool.h"

/* The disks shown as NAMES (NULL-terminated) are sealed as TAG, all at one instant. GO_ON (NULL: yes) is asked while
 * requests in work are waited for, and false gives up. False and ERROR: all run on as they were. Blocks. */
bool disk_pool_snapshot(struct disk_pool *pool, const char *const *names, const char *tag, bool (*go_on)(void *opaque),
			void *opaque, GError **error);

/* New disks, shown as FORKS (NULL-terminated, "web2.img"), on what the disk NAME is now, which is sealed for that under
 * a name that is free. Otherwise as a snapshot. Blocks. */
bool disk_pool_fork(struct disk_pool *pool, const char *name, const char *const *forks, bool (*go_on)(void *opaque),
		    void *opaque, GError **error);

/* The disk NAME is what it was as its snapshot TAG was made (NULL: the newest that it stands on; of an ephemeral one,
 * its image); what came since is dropped, but for other snapshots. Refused while others have it
 * open, unless LIVE. Otherwise as a snapshot. *REVERTED: it is, whatever failed afterwards. Blocks. */
bool disk_pool_revert(struct disk_pool *pool, const char *name, const char *tag, bool live, bool *reverted,
		      bool (*go_on)(void *opaque), void *opaque, GError **error);
/* The snapshot TAG of DISK is removed. False and ERROR: EBUSY, somebody stands on it. Blocks. */
bool disk_pool_delete(struct disk_pool *pool, struct disk *disk, const char *tag, bool (*go_on)(void *opaque),
		      void *opaque, GError **error);

/* FORK, which was forked from an ephemeral disk and which nobody has open, loses what it has, and cannot be opened any
 * more. False and ERROR: EINVAL, it is an image of the pool; otherwise as disk_end_fork(). Blocks. */
bool disk_pool_end_fork(struct disk *fork, bool (*go_on)(void *opaque), void *opaque, GError **error);
/* And then it is shown no more. Does not block. */
void disk_pool_drop_fork(struct disk_pool *pool, struct disk *fork);

/* No fork stands on DISK's image, which may be written, moved and removed as far as that goes. False and EBUSY: a
 * sentence with one. Does not block. */
bool disk_pool_has_no_fork(struct disk_pool *pool, const struct disk *disk, GError **error);

/* The ephemeral disk NAME is an image of the pool from now on, with all that it was, and is written there: IMAGE, a
 * name like "web4", or, of a fork, its own. Its snapshots are gone. It is shown as it was while the mount runs, and as
 * IMAGE in the next. False and ERROR: it runs on as it was. Blocks. */
bool disk_pool_keep(struct disk_pool *pool, const char *name, const char *image, bool (*go_on)(void *opaque),
		    void *opaque, GError **error);

struct disk_snapshot {
	char *tag;  /* "mon"; of another disk's, or of this one's under another name, "web1@mon" */
	char *path; /* of its image; "": the log has it */
	uint64_t size_bytes;
	uint64_t allocated_bytes;
	uint64_t dirty_bytes; /* of it that only the cache has */
	int64_t taken_s;      /* since the epoch; 0: not known */
	bool below;	      /* the disk stands on it */
};
/* Those that DISK stands on, the newest first, and then those with its name that no disk stands on (array of struct
 * disk_snapshot *, free function set). Blocks. */
GPtrArray *disk_pool_snapshots(struct disk_pool *pool, struct disk *disk, GError **error);

#endif
