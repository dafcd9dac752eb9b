/* Which requests become one call, and how its result is shared out.
 *
 * Pure functions on lists of requests: nothing here submits or blocks. */
#ifndef LEAFDISK_AIO_MERGE_H
#define LEAFDISK_AIO_MERGE_H

#include <sys/uio.h>

#include "aio/request.h"

/* The kernel copies up to 8 vectors without allocating and refuses 1024; the
 * members of one FUSE batch are rarely more than 64. A member longer than
 * MERGE_BYTES is a call of its own. */
#define MERGE_VECTORS 64
#define MERGE_BYTES ((uint64_t)1 << 20)

/* One preadv, pwritev or fdatasync in the making. The bytes [START, END) of
 * FILE are what its MEMBERS, in file order, still need. */
struct merge_call {
	struct list members;
	struct aio_file *file;
	enum aio_op op;
	bool direct; /* on direct_fd */
	bool closed; /* takes no more members */
	unsigned count;
	uint64_t start;
	uint64_t end;
};

/* What a call's result means for one member. */
enum merge_outcome {
	MERGE_DONE,	 /* all of it is transferred */
	MERGE_CONTINUE,	 /* more than before, not all: go on from there */
	MERGE_STUCK,	 /* the call stopped in this member and moved nothing */
	MERGE_UNREACHED, /* the call stopped before this member */
};

/* True when offset, length and memory allow direct_fd. Not for AIO_DATASYNC. */
bool merge_is_direct(const struct aio_request *request);

/* How many bytes of REQUEST need not be transferred again: on direct_fd, what
 * is transferred rounded down to the alignment. */
uint32_t merge_restart(const struct aio_request *request, bool direct);

/* FAULT_SHORT's half of LENGTH: whole units, at least one, so that repeated
 * halves come to an end. */
uint32_t merge_half(const struct aio_request *request, bool direct, uint32_t length);

/* Makes CALL hold REQUEST alone, and at most LIMIT bytes of it (0: all; a
 * limited call is closed). REQUEST must be on no list. */
void merge_open(struct merge_call *call, struct aio_request *request, bool direct, uint32_t limit);

/* Adds REQUEST in front of or behind the members of CALL. False, and nothing
 * changes, when they are not neighbours or the call is full. */
bool merge_add(struct merge_call *call, struct aio_request *request, bool direct);

/* Fills VECTOR (MERGE_VECTORS entries); returns how many. */
unsigned merge_vector(const struct merge_call *call, struct iovec *vector);

/* REQUEST's share of the *LEFT bytes of a result, taken from *LEFT. Called on
 * each member in turn. */
uint32_t merge_take(const struct aio_request *request, bool direct, uint64_t *left);

/* Books GOT bytes. FIRST: this is the first member of its call. A call that
 * stops exactly between two members says nothing about the second one, unless
 * it moved nothing at all. Each outcome but the last two raises
 * request->transferred, so that no request goes on for ever. */
enum merge_outcome merge_advance(struct aio_request *request, bool direct, bool first, uint32_t got);

/* The result of a request that is STUCK: for a read this is the end of the
 * file, which is success with zeroes once NEEDED bytes are there. */
int merge_result_at_end(struct aio_request *request);

#endif
