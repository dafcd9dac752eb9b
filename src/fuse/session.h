/* A mount: libfuse's session, the pool behind it and the loops that serve it. */
#ifndef LEAFDISK_FUSE_SESSION_H
#define LEAFDISK_FUSE_SESSION_H

#define FUSE_USE_VERSION 314

#include <fuse3/fuse_lowlevel.h>
#include <glib.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "core/lock.h"
#include "core/loop.h"
#include "pool/pool.h"
#include "node.h"
#include "options.h"

struct channel;
struct end;

struct session {
	const struct mount_options *options;
	struct disk_pool *pool;
	struct node_table *nodes;
	/* What the pool shows under a name, and which number means that disk: shown.c.
	 * Never held across I/O. After the pool's `scanning`; before its lock and the
	 * nodes'. */
	struct lock names_lock;
	uid_t owner;
	gid_t group;
	struct timespec started;

	struct lock handles_lock;
	struct condition handle_closed;
	struct list handles;	   /* every open disk file */
	struct list directories;   /* every open directory */
	struct list control_files; /* every open file of the control tree */
	uint64_t closes_begun;

	struct fuse_session *fuse;
	struct lock connection_lock; /* for ending it; held for a moment */
	bool mounted;
	bool parallel_lookups;	   /* the kernel offers to send them side by side */
	struct channel **channels; /* options->threads of them; the first runs on the main thread */
	bool over;		   /* it has served */
	int signal_fd;
	struct end *end; /* watches it; NULL: not yet, or no more */
	int rest_fd;	 /* what is left to write back once it has ended, for its successor (rest.h) */
	atomic_bool stopping;
	atomic_bool close_failed; /* a disk that the end closed; the exit status says so */
	atomic_bool tuned;	  /* read-ahead has been set */

	struct lock message_lock;
	char *last_refusal; /* sentence of the last command to the mount that failed */
};

/* Opens the pool and mounts it. SIGNAL_FD from daemon_signal_fd(), which stays
 * the caller's. NULL and ERROR: nothing is mounted. Blocks. */
struct session *session_new(const struct mount_options *options, int signal_fd, GError **error);

/* Serves the mount until it is unmounted or a signal comes, then closes every
 * disk, takes the mount down and writes back what is dirty. READY is called when
 * requests can be served. False when a disk could not be closed well, or something
 * stays in the cache; that has been logged. */
bool session_run(struct session *session, void (*ready)(void));

/* Closes the pool, and unmounts if that is still to do. NULL is allowed. */
void session_free(struct session *session);

/* Makes all loops take no more requests, finish those in work, and end. Any
 * thread, any number of times. */
void session_stop(struct session *session);

/* Ends the connection while loops and whoever else may still be at work, so that
 * nobody waits at the mount: for a process that leaves. Any thread; does not
 * block. */
void session_cut_off(struct session *session);

#endif
