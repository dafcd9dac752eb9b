/* An open file: what fuse_file_info.fh points to. */
#ifndef LEAFDISK_FUSE_HANDLE_H
#define LEAFDISK_FUSE_HANDLE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "session.h"

struct handle {
	struct node *node; /* pinned */
	struct disk *disk; /* open, with a reference */
	bool write;
	bool direct;	   /* the kernel keeps no pages for it, and makes no write durable by itself */
	bool durable;	   /* opened with O_DSYNC or O_SYNC */
	bool grows;	   /* was opened without a byte in it: what is written past its end makes it larger */
	atomic_bool dirty; /* a change was made that no flush has covered */
	uint64_t closing;  /* number of its release, 0 before that */
	struct list link;  /* on session->handles */
};

/* Opens NODE's disk. *KEEP_CACHE (may be NULL): the kernel's pages are still
 * good. 0, or a negative errno that has been logged. Blocks. */
int handle_open(struct session *session, struct node *node, bool write, struct handle **handle, bool *keep_cache);

/* The kernel has given the handle back; HAND_OVER hands handle_close() to a
 * thread, and does not block. The end of
 * a file's use reaches us without anybody waiting for it, so `rm` after `dd`
 * could find the disk still open. Whoever needs it closed waits for the closes
 * that had begun when its own request came. */
void handle_begin_close(struct session *session, struct handle *handle, void (*hand_over)(void *opaque), void *opaque);
/* Number of the last close that has begun; asked before the work that is to wait
 * for it is handed over. */
uint64_t handle_closes_begun(struct session *session);
/* Waits until no close of DISK up to number LAST is left. Blocks. */
void handle_await_closes(struct session *session, const struct disk *disk, uint64_t last);

/* Closes the disk and frees the handle. 0 or a negative errno, logged; while the
 * mount ends it is remembered in session->close_failed too. Blocks. */
int handle_close(struct session *session, struct handle *handle);

/* Closes what is open, at the end, when no loop runs any more. */
void handle_close_all(struct session *session);

static inline struct handle *handle_of(const struct fuse_file_info *file)
{
	return (struct handle *)(uintptr_t)file->fh;
}

#endif
