/* Snapshots and forks of ephemeral disks: all of it stays in the log, and is gone with the mount.
 *
 * A disk's log layer is sealed and gets another on it, as a leaf does (change.h). All of it blocks, on threads that
 * may wait; GO_ON (NULL: yes) is asked several times a second while others are waited for, and false gives up. A
 * failure leaves the disks as they were. */
#ifndef LEAFDISK_DISK_SAVED_H
#define LEAFDISK_DISK_SAVED_H

#include <glib.h>

#include "disk/object.h"
#include "layer/logs.h"

struct disk_saved {
	char *tag;
	struct logs *logs; /* with a reference */
	uint64_t size_bytes;
	uint64_t made_on; /* as the disk's */
	int64_t taken_s;  /* since the epoch */
	uint64_t blocks;  /* that only its top layer has */
	bool below;	  /* in what disk_get_saved() gives: the disk stands on it */
};

/* Each of DISKS (COUNT), which the caller has opened for writing, is saved as TAG, all at one instant. False and ERROR.
 */
bool disk_save(struct disk **disks, unsigned count, const char *tag, bool (*go_on)(void *opaque), void *opaque,
	       GError **error);
/* FORKS (COUNT), which nobody knows yet, are what DISK is now, which the caller has opened for writing. False and
 * ERROR. */
bool disk_fork(struct disk *disk, struct disk *const *forks, unsigned count, bool (*go_on)(void *opaque), void *opaque,
	       GError **error);
/* DISK is what it was as TAG was made; NULL: what its image is. LIVE: although others than the caller have it open.
 * False and ERROR. */
bool disk_go_back(struct disk *disk, const char *tag, bool live, bool (*go_on)(void *opaque), void *opaque,
		  GError **error);
/* TAG is forgotten; what nobody else stands on goes. False and ERROR. */
bool disk_forget_saved(struct disk *disk, const char *tag, GError **error);
/* FORK, which was forked from an ephemeral disk, has nothing any more, and is not opened any more; whoever knows it may
 * keep it. False and ERROR: EBUSY, somebody has it open, or opens or changes it and is not done with that soon; ENOENT,
 * it has ended. */
bool disk_end_fork(struct disk *fork, bool (*go_on)(void *opaque), void *opaque, GError **error);
/* Whether DISK, an ephemeral one, has anything that this mount alone has: snapshots, or changes, or it may have had
 * some. Does not block. */
bool disk_has_own(struct disk *disk);
/* What has been saved of DISK, the newest first: an array of struct disk_saved, free function set. Does not block. */
GPtrArray *disk_get_saved(struct disk *disk);

#endif
