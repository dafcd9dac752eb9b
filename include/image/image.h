/* An image: one file or block device that holds one layer.
 *
 * The functions here are the checking wrapper round the drivers (raw, leaf):
 * they refuse what is out of bounds or not allowed before a driver sees it. An
 * image answers for itself only: a block is data, zero, or absent ("not
 * mine"); what absent means is the chain's business.
 *
 * I/O is in whole blocks of 4 KiB, memory aligned to a block. The last block
 * of an image whose size is no multiple of 4 KiB is whole too: what lies past
 * the size reads as zeros and is written as zeros.
 *
 * Threads: what blocks says so, and runs on any thread but a loop's data path. The
 * others are called on the thread
 * of the given queue's loop, from any number of loops at once; overlapping
 * writes and zeroes in flight are the caller's to exclude (range lock).
 *
 * After a failed flush memory and disk may disagree: the image is FAILED,
 * writes and flushes return -EIO until it is opened anew; reads go on. */
#ifndef LEAFDISK_IMAGE_IMAGE_H
#define LEAFDISK_IMAGE_IMAGE_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "aio/queue.h"
#include "core/answer.h"
#include "core/bytes.h"

#include "image/op.h"

#define IMAGE_UUID_BYTES 16
#define IMAGE_CLAIM_BYTES 16
/* The smallest disk, in bytes. */
#define IMAGE_SIZE_MIN 512

enum image_format { IMAGE_FORMAT_NONE, IMAGE_FORMAT_RAW, IMAGE_FORMAT_LEAF };

/* What an image says of its parent. PATH is as stored: relative to the
 * directory of the image, or absolute. */
struct image_parent {
	enum image_format format; /* NONE: there is no parent */
	char *path;
	uint64_t size_bytes;
	uint8_t uuid[IMAGE_UUID_BYTES]; /* zeros where the format has none */
	uint64_t generation;
	uint64_t stamp; /* of one without generations: see struct image_info; 0: not known */
};

static inline void image_parent_clear(struct image_parent *parent)
{
	g_clear_pointer(&parent->path, g_free);
	*parent = (struct image_parent){0};
}

enum extent_state { EXTENT_ABSENT, EXTENT_ZERO, EXTENT_DATA };

struct image_extent {
	enum extent_state state;
	uint64_t blocks;
};

enum image_flags {
	IMAGE_WRITABLE = 1 << 0,
	IMAGE_NO_LOCK = 1 << 1,	    /* for info, map and check, which only look */
	IMAGE_NO_DIRECT = 1 << 2,   /* page cache only */
	IMAGE_BEGIN_LATER = 1 << 3, /* nothing is written before image_begin_writing() */
	IMAGE_LOCK_ONLY = 1 << 4,   /* with WRITABLE: nothing is written at all; a parent may be opened so */
	/* With WRITABLE: it became a parent while the cache had changes of it, and gets those. Its
	 * children find it as it was made: its generation stays. */
	IMAGE_SEALED = 1 << 5,
	IMAGE_SCRATCH = 1 << 6, /* with WRITABLE: nobody opens it again, and a flush promises nothing */
};

struct image_ops;

struct image {
	/* Constant while open. */
	const struct image_ops *ops;
	enum image_format format;
	char *path;   /* as given to image_open */
	dev_t device; /* identity of the file */
	ino_t inode;
	uint64_t born_ns; /* when its file was made, realtime: inodes are used again; 0: not known */
	bool marked;	  /* its file bears an identity or a claim */
	bool writable;
	bool scratch;
	bool locked; /* against others, of other hosts too; false where that is not known */
	uint8_t uuid[IMAGE_UUID_BYTES];
	/* By which it is known under any name: the UUID, or that of a raw image's file;
	 * zeros: it has none. */
	uint8_t identity[IMAGE_UUID_BYTES];
	uint64_t generation;
	struct image_parent parent;
	uint32_t chunk_bytes; /* 0: the format has no chunks */
	unsigned apply_extents_max;

	/* Under which claim it was written last, as it says itself. YES: CLAIM, zeros
	 * where it says nothing; NO: it has no place for it; UNKNOWN: it did not tell. */
	enum answer has_claim;
	uint8_t claim[IMAGE_CLAIM_BYTES];
	/* Under that claim: the order up to which it may have the changes of its cache; 0: none,
	 * or it does not say. Changed by batches; as it was found until the first. */
	_Atomic uint64_t progress;

	bool sealed;	/* opened as IMAGE_SEALED */
	bool begun;	/* image_begin_writing() has succeeded */
	bool unstamped; /* and the times of its file do not tell */
	_Atomic uint64_t size_bytes;
	_Atomic bool failed;
	_Atomic bool quiet; /* who uses it tells of failures; set by who opened it */
};

/* One transfer. The submitter owns it and keeps it and the buffer until DONE. */
struct image_io {
	struct aio_queue *queue;
	uint64_t offset; /* bytes, block-aligned */
	uint32_t length; /* bytes, whole blocks; up to round_up(size, 4 KiB) */
	bool soft;	 /* a copy of what is below: not worth a journal record */
	void *buffer;
	void (*done)(struct image_io *io, int result); /* 0 or -errno */

	/* The driver's. */
	struct image *image;
	struct aio_request aio;
	void *pin;
	struct list link;
};
/* Marks a writable image as written from now on, under CLAIM (NULL: one that is nobody
 * else's): its generation, or its time stamp, is another one, durably, and it has CLAIM
 * where it has a place for it. A part of image_open() without
 * IMAGE_BEGIN_LATER; so an image that is only read stays as it is. Before the
 * first write, once it has returned 0 without effect; not while another thread
 * calls it. Blocks. 0 or -errno. */
int image_begin_writing(struct image *image, const uint8_t *claim);
/* Nothing of IMAGE, which is begun and flushed, is written any more: it remembers its
 * CHILDREN, durably, and others may open it for reading. Reads may be under way. Blocks. 0 or
 * -errno: that it is a parent could not be noted; all else holds. */
struct image_child;
int image_seal(struct image *image, const struct image_child *children, unsigned count);
/* A new one (RFC 9562, version 4). */
void image_make_uuid(uint8_t uuid[IMAGE_UUID_BYTES]);
/* Before that: the image gets a new identity, which is durable when it was begun. False:
 * its format gives it one, it has no place for it, or the store does not take it. Blocks. */
bool image_identify(struct image *image);
/* Its format does not give it one. */
bool image_can_be_identified(const struct image *image);
/* Commits what is not yet committed. Returns 0 or the -errno of doing so; the
 * image is closed in either case. No request may be in flight. NULL allowed. */
int image_close(struct image *image);

/* Extent at BLOCK, at most BLOCKS long (both in blocks, inside the image).
 * Does not block. A raw file's holes count as data here. */
struct image_extent image_extent(struct image *image, uint64_t block, uint64_t blocks);
/* The same, but a hole of a raw file counts as zero; may block. */
struct image_extent image_extent_blocking(struct image *image, uint64_t block, uint64_t blocks);

/* Looks up IO's first block and returns the extent there, cut to IO's length.
 * When it is DATA the read of just that extent (extent.blocks) is under way
 * and DONE will come; otherwise nothing happens. */
struct image_extent image_read(struct image_io *io);
/* Returns the number of blocks, from the first on, that are being written, and
 * DONE will come for these; or a negative errno, and it won't.
 * -EAGAIN: the image is growing; try again when image_wait_room() calls. */
int64_t image_write(struct image_io *io);
/* Calls OP's done once a write that got -EAGAIN may succeed or fail for good. */
void image_wait_room(struct image *image, struct image_op *op);

/* Reads as zeros from now on. Durable with the next flush. */
void image_zero(struct image *image, struct image_op *op);
/* All that was done before is durable when DONE says 0. */
void image_flush(struct image *image, struct image_op *op);
/* All extents or none, also across a crash, and durable when DONE says 0.
 * The extents are sorted by offset and do not overlap, else -EINVAL; zeros may
 * be as long as the disk, at the cost of what is allocated there. While it is
 * under way its blocks read as before or after, in any mixture.
 * -EOPNOTSUPP where the format cannot promise all or nothing. -EFBIG: the
 * batch is too large for that; -ENOSPC, -EDQUOT: no room. After these the
 * image is as before, and usable. One batch at a time. OP's progress is the image's from
 * then on, in the same step. */
void image_apply(struct image *image, struct image_op *op);
/* For formats that cannot apply: OP's progress is the image's from now on. Durable with
 * a later flush, or not at all where the image has no place for it. Before the first
 * write of a batch. */
void image_note_progress(struct image *image, struct image_op *op);
/* What one batch may hold: that many extents of a block each, wherever they
 * are. Longer ones count once for each chunk they touch, and again wherever
 * what is there changes between data and none; zeros up to three times. 0 where
 * image_apply is not supported. */
unsigned image_apply_extents_max(const struct image *image);
/* A store without any room left takes batches all the same, from the first one
 * on that a format with chunks has taken: a batch that takes no new chunk and
 * has data for no more than so many blocks that hold data finds its room. So
 * whoever meets -ENOSPC makes its batches smaller, down to these. */
#define IMAGE_APPLY_RESERVE_BLOCKS 16
/* Durable when DONE says 0. Growth reads as zeros. No other but reads and flushes
 * in flight. -EFBIG, -ENOSPC, -EDQUOT: the size, and what is in the image, is as
 * before, and it goes on. */
void image_resize(struct image *image, struct image_op *op);

/* How its storage is doing: requests that have waited for longer than 10 s, or
 * the error of the last write or flush, or else of the last read (-errno), and since
 * when (loop_now_ns()); false: well. Any thread; does not block. */
struct image_trouble {
	unsigned waiting;
	int error;
	uint64_t since_ns;
};
bool image_get_trouble(struct image *image, struct image_trouble *trouble);

/* Bytes that the image takes on its storage. Blocks. */
uint64_t image_allocated_bytes(struct image *image);
/* Of the open file, whatever its name is now. Blocks. 0 or -errno. */
int image_stat(struct image *image, struct stat *st);

#endif
