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
 * Threads: image_open, image_close and the *_blocking functions block and run
 * on any thread but a loop's data path. The others are called on the thread
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
#include "core/bytes.h"
#include "core/loop.h"

#define IMAGE_UUID_BYTES 16
/* The smallest disk, in bytes. */
#define IMAGE_SIZE_MIN 512

enum image_format { IMAGE_FORMAT_NONE, IMAGE_FORMAT_RAW, IMAGE_FORMAT_LEAF };

/* "raw", "leaf"; NULL for NONE. */
const char *image_format_name(enum image_format format);
/* NONE when the name is unknown. */
enum image_format image_format_from_name(const char *name);

/* What an image says of its parent. PATH is as stored: relative to the
 * directory of the image, or absolute. */
struct image_parent {
	enum image_format format; /* NONE: there is no parent */
	char *path;
	uint64_t size_bytes;
	uint8_t uuid[IMAGE_UUID_BYTES]; /* zeros where the format has none */
	uint64_t generation;
};
void image_parent_clear(struct image_parent *parent);

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
};

struct image_ops;

struct image {
	/* Constant while open. */
	const struct image_ops *ops;
	enum image_format format;
	char *path;   /* as given to image_open */
	dev_t device; /* identity of the file */
	ino_t inode;
	bool writable;
	bool locked; /* against others; false where the file system has no locks */
	uint8_t uuid[IMAGE_UUID_BYTES];
	uint64_t generation;
	struct image_parent parent;
	uint32_t chunk_bytes; /* 0: the format has no chunks */
	unsigned apply_extents_max;

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

/* One extent of an all-or-nothing batch. */
struct image_apply_extent {
	uint64_t offset; /* bytes, block-aligned */
	uint64_t length; /* bytes, whole blocks */
	void *data;	 /* block-aligned memory; NULL: zeros */
};

/* Anything that is not a transfer. The submitter owns it until DONE. */
struct image_op {
	struct aio_queue *queue;
	uint64_t offset;			  /* zero: bytes, block-aligned */
	uint64_t length;			  /* zero: bytes, whole blocks; resize: the new size */
	bool keep_allocated;			  /* zero: leave the space allocated where the format can */
	bool bottom;				  /* zero, apply, resize: nothing is below, absent is as good as zero */
	const struct image_apply_extent *extents; /* apply */
	unsigned extent_count;
	void (*done)(struct image_op *op, int result);

	/* The driver's. */
	struct image *image;
	void *driver;
	int result;
	struct list link;
	struct loop_task task;
	struct loop_work work;
};

/* FORMAT is what the caller knows the image to be: nothing is probed here.
 * Writable images are locked against other processes (an OFD lock on the
 * file), read-only ones against writers. Blocks. NULL and ERROR: a sentence
 * that names the file, what was expected and what was found.
 * BASE_OFFSET is for raw only: bytes of the file before the layer. */
struct image *image_open(const char *path, enum image_format format, unsigned flags, uint64_t base_offset,
			 GError **error);
/* The file that FD is open on (any way, O_PATH too; borrowed for the call):
 * PATH only names it in messages. So what was checked is what is opened. */
struct image *image_open_fd(int fd, const char *path, enum image_format format, unsigned flags, uint64_t base_offset,
			    GError **error);
/* Marks a writable image as written from now on: its generation, or its time
 * stamp, is another one, durably. A part of image_open() without
 * IMAGE_BEGIN_LATER; so an image that is only read stays as it is. Before the
 * first write, once it has returned 0 without effect; not while another thread
 * calls it. Blocks. 0 or -errno. */
int image_begin_writing(struct image *image);
/* Another open of IMAGE's file, which FD is open on, for writing, begun, with the
 * lock that IMAGE has: IMAGE has failed and is to be closed when the new one has taken its place, and until
 * then may be read. NULL and ERROR: IMAGE is as it was, lock and all. Blocks. */
struct image *image_reopen(struct image *image, int fd, uint64_t base_offset, GError **error);
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
 * image is as before, and usable. One batch at a time. */
void image_apply(struct image *image, struct image_op *op);
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

/* ARGV (NULL-terminated, copied; NULL: none) is run when a block device has no
 * room left, with the device's path appended. Every leaf image opened later
 * uses it. Comes from the local configuration only. */
void image_set_grow_command(const char *const *argv);

/* How long what blocks on an image's file tries again after transient errors; 0:
 * 120 s. The process's. */
void image_set_io_timeout(uint64_t timeout_ns);

/* Runs SUBMIT(image, op) on a queue of its own and waits. Not on a loop's thread. */
int image_run_blocking(struct image *image, struct image_op *op, void (*submit)(struct image *, struct image_op *));

/* Format by magic (leaf) for a file whose name does not decide it; NONE for
 * anything unknown. NULL on error. A name that ends in .raw or .img is raw
 * whatever its bytes say, and is not read. */
enum image_format image_probe(const char *path, GError **error);
/* FD and PATH as for image_open_fd(); PATH's ending counts. */
enum image_format image_probe_fd(int fd, const char *path, GError **error);

/* What the headers say, without opening the layer. Blocks. Parent path etc.
 * are copied into *INFO; clear with image_info_clear. */
struct image_info {
	enum image_format format;
	uint64_t size_bytes;
	uint32_t chunk_bytes;
	uint64_t generation;
	uint8_t uuid[IMAGE_UUID_BYTES];
	struct image_parent parent;
};
bool image_read_info(const char *path, enum image_format format, struct image_info *info, GError **error);
bool image_read_info_fd(int fd, const char *path, enum image_format format, struct image_info *info, GError **error);
void image_info_clear(struct image_info *info);

/* Creates a new file; never replaces one (EEXIST). For a block device,
 * overwrites what is there only when FORCE. PARENT NULL: none. On failure no
 * file is left behind. */
struct image_create_options {
	uint64_t size_bytes;
	uint32_t chunk_bytes; /* 0: 1 MiB; raw: ignored */
	const struct image_parent *parent;
	bool force;
};
bool image_create(const char *path, enum image_format format, const struct image_create_options *options,
		  GError **error);
/* In the directory that DIRECTORY is open on: PATH's last part is the file's
 * name there, the whole only names it in messages. */
bool image_create_in(int directory, const char *path, enum image_format format,
		     const struct image_create_options *options, GError **error);

/* Names another parent in the header; nothing else changes. */
bool image_set_parent(const char *path, const struct image_parent *parent, GError **error);

/* Every rule of the format is checked. FINDING is called once per damage
 * (REPAIRED says whether it was mended), with a sentence. Survives any bytes.
 * False and ERROR when the file cannot be read or locked at all. */
struct image_check_result {
	uint64_t damages;
	uint64_t repaired;
	uint64_t chunks;	  /* allocated */
	uint64_t leaked_chunks;	  /* allocated space that no block uses; reused, no damage */
	uint64_t journal_records; /* not yet in the table */
	uint64_t owed_extents;	  /* of a batch that a crash interrupted: read from where they are; the next
				   * writable open puts them in place, no damage */
	/* A crash can leave one of the two; the next writable open mends it,
	 * no damage. */
	unsigned bad_header_copies;
};
bool image_check(const char *path, enum image_format format, bool repair,
		 void (*finding)(void *opaque, bool repaired, const char *sentence), void *opaque,
		 struct image_check_result *result, GError **error);

#endif
