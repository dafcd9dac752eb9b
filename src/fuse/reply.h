/* Answers with an errno: the one way out for all of them.
 *
 * An errno can come from anywhere: a file system below the pool, an NBD server,
 * a command. To the kernel some of them say something else than "this request
 * failed": that the mount has no such operation at all, that the call is to be
 * made again, that the answer is malformed. None of these leaves. */
#ifndef LEAFDISK_FUSE_REPLY_H
#define LEAFDISK_FUSE_REPLY_H

#include <limits.h>
#include <stdint.h>

#include "session.h"

/* What a message is about, as far as its answer depends on it. */
enum reply_kind {
	REPLY_OTHER, /* names, attributes, opens, and all of the control tree */
	REPLY_DATA,  /* what is done with the data of an open disk */
};

/* In place of a negative errno: the caller was interrupted by a signal, and
 * EINTR says so. From a store EINTR says something else. */
#define REPLY_INTERRUPTED INT_MIN

/* Of the message with OPCODE (enum fuse_opcode) that is about INO. */
enum reply_kind reply_kind_of(uint32_t opcode, uint64_t ino);

/* What to answer for ERROR, which is 0, a negative errno or REPLY_INTERRUPTED:
 * 0, or an errno without a sign that the kernel passes on to the caller and
 * nothing else. Anything that is no errno is EIO. */
int reply_errno(enum reply_kind kind, int error);

/* Replies; FUSE is gone then. From its channel's loop. */
void reply_error(fuse_req_t fuse, enum reply_kind kind, int error);

#endif
