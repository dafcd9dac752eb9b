/* What the mount shows under a name: the pool's disk and the number that means it.
 *
 * Waiters only: all of it blocks on the pool's store. */
#ifndef LEAFDISK_FUSE_SHOWN_H
#define LEAFDISK_FUSE_SHOWN_H

#include "session.h"

/* The disk shown as NAME: *NODE is its node, pinned. 0 or -errno. */
int shown_find(struct session *session, const char *name, struct node **node);
/* The same; whether the file of a disk that is known is there is not asked. */
int shown_find_known(struct session *session, const char *name, struct node **node);
/* The node of DISK, pinned; NULL: the pool does not show it (any more). */
struct node *shown_pin(struct session *session, struct disk *disk);

/* Calls EACH for all disks by name, as of the last look, and gives up the nodes of those that are gone. */
void shown_list(struct session *session, void (*each)(void *opaque, const struct disk *disk, uint64_t ino),
		void *opaque);

/* Whether the mount manages its pool: without that no name is made, renamed or removed through it. False with
 * ERROR, which says that NAME was not DONE ("removed"), and what allows it. Any thread; does not block. */
bool shown_may_change(const struct session *session, const char *name, const char *done, GError **error);
/* DISK, a fork of an ephemeral one, is removed: nothing in the pool is of it. False and ERROR. Blocks. */
bool shown_drop_fork(struct session *session, struct disk *disk, bool (*go_on)(void *opaque), void *opaque,
		     GError **error);
/* 0 or -errno; the refusal is logged. */
int shown_remove(struct session *session, const char *name);
int shown_rename(struct session *session, const char *name, const char *new_name, bool replace);

#endif
