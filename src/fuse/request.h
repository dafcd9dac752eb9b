/* A request of the kernel, from its arrival to its one reply.
 *
 * Requests come from their channel's pool and live on that channel's loop. A
 * request works in one of these ways, or in one after the other: as a disk_io
 * (data), or on a thread that may wait: a background thread (names), or one of its
 * own (commands of the control tree). Each ends in a callback on the loop, which
 * goes on or replies. */
#ifndef LEAFDISK_FUSE_REQUEST_H
#define LEAFDISK_FUSE_REQUEST_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "channel.h"
#include "handle.h"
#include "core/workers.h"

struct request {
	struct channel *channel;
	struct session *session;
	fuse_req_t fuse;
	uint32_t opcode;
	enum reply_kind reply_kind;

	struct disk_io io;
	void *receive_buffer; /* given back with the request; NULL: none */
	void *read_buffer;
	size_t extra_bytes; /* of the one that is no pool's */

	struct loop_work work;
	struct loop_timer patience; /* getattr */
	bool answered;		    /* already, while its work goes on */
	void (*run)(struct request *request);
	void (*finish)(struct request *request);

	/* What a name operation works on and with. */
	uint64_t ino;
	struct node *node; /* pinned; unpinned with the request */
	struct handle *handle;
	struct fuse_file_info file;
	bool has_file;
	bool opened; /* HANDLE is the request's own */
	bool keep_cache;
	bool durable;	     /* flushed before it is answered */
	bool given_up;	     /* the caller, or the end of the mount, wants no more of it */
	uint64_t last_close; /* handle_closes_begun() when the request came */
	int to_set;
	unsigned flags;
	int64_t position; /* of a seek or a write, size to be set, bytes written */
	size_t size;	  /* of the write */
	int error;	  /* what reply_error() takes */
	union {
		struct stat attributes;
		struct statvfs file_system;
	};
	struct directory *directory;
	struct control_file *control;
	uint64_t control_next; /* what it has been read up to */
	char name[NAME_MAX + 1];
	char new_name[NAME_MAX + 1];
};

/* For the message that is being processed on this thread. Never NULL: nothing
 * is received while the pool is empty. */
struct request *request_new(fuse_req_t fuse);
/* After the reply. */
void request_free(struct request *request);

/* Copies NAME; false when it is too long. */
bool request_set_name(char (*field)[NAME_MAX + 1], const char *name);

/* The PAYLOAD of the message that is being processed stays for as long as the
 * request does: where it was, or as an aligned copy. NULL: there is no memory. */
void *request_keep_payload(struct request *request, const void *payload, size_t bytes);
/* A block-aligned buffer of BYTES, up to DISK_READ_BUFFER_BYTES. NULL: there is no
 * memory. */
void *request_take_read_buffer(struct request *request, size_t bytes);

/* RUN on a background thread that may wait (THREAD_WAITER), then FINISH on the
 * loop. */
void request_offload(struct request *request, void (*run)(struct request *), void (*finish)(struct request *));
/* The same, with a thread of its own or not at all, for what may take as long as
 * a drain: where the kernel gives few threads the mount has others to serve. */
void request_start_thread(struct request *request, void (*run)(struct request *), void (*finish)(struct request *));
/* OP on DISK; DONE on the loop. The buffer, if any, is set before in IO. */
void request_submit(struct request *request, struct disk *disk, enum disk_op op, uint64_t offset, uint64_t length,
		    void (*done)(struct disk_io *io, int64_t result));

/* False: whoever made the request was interrupted, or the mount ends, so that what
 * takes long is to be given up: the answer is REPLY_INTERRUPTED. Any thread. */
bool request_goes_on(struct request *request);

/* Replies with ERROR, as reply_error() does, and frees the request. */
void request_reply(struct request *request, int error);
/* The same as a `finish`: with request->error. */
void request_reply_result(struct request *request);

/* Replies to the message that is being processed, which needs no request. */
void reply_now(fuse_req_t fuse, int error);

/* Answers an open for direct I/O. 0, or -ENOENT: the caller is gone. */
int reply_open_direct(fuse_req_t fuse, const void *handle);

static inline struct session *session_of(fuse_req_t fuse)
{
	return fuse_req_userdata(fuse);
}

#endif
