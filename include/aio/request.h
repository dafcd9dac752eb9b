/* Requests to the I/O queue, and the files that they are about.
 *
 * A request is private memory of its submitter, on exactly one list of the
 * queue from aio_submit() until its callback, which comes exactly once, from
 * the loop, never from inside aio_submit(). After the callback the queue holds
 * no pointer to it. */
#ifndef LEAFDISK_AIO_REQUEST_H
#define LEAFDISK_AIO_REQUEST_H

#include <stdbool.h>
#include <stdint.h>

#include "core/list.h"
#include "core/verdict.h"
#include "core/workers.h"

enum aio_op {
	AIO_READ,
	AIO_WRITE,
	AIO_WRITE_DURABLE, /* what it wrote is durable when it is done, what others wrote need not be */
	AIO_DATASYNC,
};
static inline bool aio_is_write(enum aio_op op)
{
	return op == AIO_WRITE || op == AIO_WRITE_DURABLE;
}

/* How reads from the page cache have gone of late; all zero is a good start. */
struct cache_estimate {
	_Atomic int credit;
	_Atomic unsigned pause; /* reads that go by before the next try */
};

/* How the last operations of a kind went. */
struct aio_failure {
	_Atomic int error;	   /* of the last one; 0 */
	_Atomic uint64_t since_ns; /* loop_now_ns() of the first error since one succeeded */
};

/* An open file as the queue sees it. Either descriptor may be -1: without
 * DIRECT every request goes through the page cache; without BUFFERED every
 * request must be aligned. Descriptors belong to the caller and stay open
 * until every request on them has called back. Requests on a file may finish
 * in any order; those in flight at once must not overlap, and where one of them
 * is a write and only one is aligned, not even share a page: the kernel does
 * not keep O_DIRECT and the page cache coherent within it (open(2)). */
struct aio_file {
	int direct_fd; /* O_DIRECT */
	int buffered_fd;
	uint32_t alignment;	     /* of offset, length and memory for direct_fd; power of two */
	bool try_cache;		     /* reads ask the page cache first (RWF_NOWAIT on buffered_fd), while it has most */
	struct cache_estimate cache; /* the queue's */
	const char *name;	     /* for messages and fault points; outlives the file */
	enum store store;
	uint64_t device; /* that it is on, or is: st_dev, or st_rdev of a block device; 0: not known */
	struct loop_file steps;
	/* The queues': requests older than 10 s, those of this time of waiting,
	 * and loop_now_ns() when the first of them was submitted. */
	_Atomic unsigned overdue;
	_Atomic unsigned overdue_total;
	_Atomic uint64_t overdue_since_ns;
	struct aio_failure reading;
	struct aio_failure writing; /* or flushing */
};

/* How an operation on FILE went that no queue has done. Any thread. */
void aio_note(struct aio_file *file, enum aio_op op, int result);

struct aio_request {
	/* Set by the submitter, not changed by the queue. */
	enum aio_op op;
	struct aio_file *file;
	void *buffer;
	uint64_t offset; /* bytes */
	uint32_t length; /* bytes; 0 for AIO_DATASYNC */
	/* A read that meets the end of the file after at least NEEDED bytes
	 * succeeds and the rest of the buffer is zeroed; before that it is
	 * -EIO. Usually equal to length. Not used by writes. */
	uint32_t needed;
	/* RESULT: 0 or a negative errno. All or nothing: a partial transfer is
	 * an error. */
	void (*done)(struct aio_request *request, int result);

	/* The queue's. */
	struct list link;
	uint64_t start_ns;
	uint64_t retry_at_ns;
	uint32_t transferred;
	uint16_t tries;
	bool reported;
	bool alone; /* not to be merged again */
	int result;
};

#endif
