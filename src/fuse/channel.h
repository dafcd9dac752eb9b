/* A channel: one loop with its own descriptor of the FUSE connection and its
 * own pools. A request is answered on the channel it came in on. */
#ifndef LEAFDISK_FUSE_CHANNEL_H
#define LEAFDISK_FUSE_CHANNEL_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/loop.h"
#include "core/pool.h"
#include "core/relay.h"
#include "disk/disk.h"
#include "reply.h"
#include "session.h"

/* Largest WRITE payload and READ answer. */
#define CHANNEL_PAYLOAD_BYTES DISK_IO_BYTES_MAX

struct channel {
	struct session *session;
	void (*stop)(struct session *session); /* the connection has ended */
	struct loop *loop;
	struct disk_context *disks;
	int fd; /* of this channel; -1 before channel_attach() */

	struct pool *requests;
	struct pool *receives;
	struct pool *reads;
	struct request *spare; /* beyond REQUESTS, for the next message; NULL: none yet */
	unsigned extra;	       /* requests beyond REQUESTS */
	size_t extra_bytes;    /* of their buffers */
	void *receive;	       /* the next message goes here; NULL: to be taken from RECEIVES */
	/* Of the message that is being processed. */
	uint32_t opcode;
	enum reply_kind reply_kind;

	struct loop_source source;
	bool watched;	  /* SOURCE is on the loop */
	unsigned another; /* messages behind which another is expected */
	bool in_vain;	  /* the last time that a message was asked for there was none */
	unsigned alone;	  /* messages behind which none was expected */
	unsigned in_flight;
	uint64_t last_reply_ns;
	struct loop_timer trim;
	bool trim_set;

	struct loop_task stop_task;
	bool stopping;
	bool stopped;
	struct relay *relay; /* its thread; NULL: it has none of its own */
};

/* Loop, pools and disk context. STOP is called, on the channel's thread and perhaps
 * more than once, when the connection has ended or failed: it stops all channels.
 * NULL and ERROR when they cannot be had. */
struct channel *channel_new(struct session *session, void (*stop)(struct session *session), GError **error);
/* Gives the channel a descriptor of its own: the session's under another number, or a clone. */
bool channel_attach(struct channel *channel, bool clone, GError **error);
/* Its loop must have ended. NULL is allowed. */
void channel_free(struct channel *channel);

/* For the message that is being processed: there is one. */
struct request *channel_take_request(struct channel *channel);
void channel_put_request(struct channel *channel, struct request *request);
/* A block-aligned buffer that is no pool's; NULL: there is no memory. */
void *channel_extra_buffer(struct channel *channel, size_t bytes, size_t *extra_bytes);
/* BUFFER is POOL's, or else one of EXTRA_BYTES. */
void channel_put_buffer(struct channel *channel, struct pool *pool, void *buffer, size_t extra_bytes);

/* Serves requests, on a thread of its own, until channel_stop() was called and every
 * request has been answered. */
bool channel_start(struct channel *channel, GError **error);
/* Waits until it has ended. */
void channel_join(struct channel *channel);
/* Both; without a thread on this one. */
void channel_run(struct channel *channel);
/* Any thread, once. */
void channel_stop(struct channel *channel);

/* The channel whose loop runs on this thread. */
struct channel *channel_self(void);

/* For request.c: a request has been answered and given back. */
void channel_request_done(struct channel *channel);

/* libfuse's reads and writes, on the descriptor of this thread's channel. */
extern const struct fuse_custom_io channel_io;

#endif
