/* A virtual disk: a chain of layers behind one flat range of bytes.
 *
 * Front ends translate a request into a struct disk_io, submit it, and reply
 * once in its callback; any offset and length is allowed. */
#ifndef LEAFDISK_DISK_DISK_H
#define LEAFDISK_DISK_DISK_H

#include <glib.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#include "core/answer.h"
#include "core/bytes.h"
#include "core/list.h"
#include "core/loop.h"
#include "disk/range_lock.h"

/* Longest read or write in one disk_io, in bytes. */
#define DISK_IO_BYTES_MAX (1u << 20)
/* A read's buffer: room for the longest read and the blocks at its edges. */
#define DISK_READ_BUFFER_BYTES (DISK_IO_BYTES_MAX + 2 * (uint32_t)BLOCK_SIZE)

struct disk;

/* Where a disk's writes go; see leafdisk(8). */
enum disk_mode {
	DISK_MODE_DIRECT,     /* to the shared leaf */
	DISK_MODE_PERSISTENT, /* to the shared leaf and the cache */
	DISK_MODE_EPHEMERAL,  /* to the cache, and what does not fit to an overflow layer; gone with the mount */
	DISK_MODE_WRITEBACK,  /* to the cache, and from there in the background to the shared leaf */
};
/* "direct|persistent|ephemeral|writeback" */
extern const char disk_mode_names[];
const char *disk_mode_name(enum disk_mode mode);
/* False when TEXT is none of the names. */
bool disk_mode_from_name(const char *text, enum disk_mode *mode);

/* What one loop needs to serve disks: its I/O queue and its pools. Created
 * for a loop before it runs, used on its thread, freed when it has stopped. */
struct disk_context;
struct disk_limits {
	unsigned queue_depth;	/* requests of one disk that are worked on at once; others wait */
	uint64_t io_timeout_ns; /* how long transient errors are retried */
};
struct disk_context *disk_context_new(struct loop *loop, const struct disk_limits *limits, GError **error);
/* No disk_io may be in flight. NULL is allowed. */
void disk_context_free(struct disk_context *context);
/* Waits until nothing of it is on its way to a store: on the thread that runs the loop, or
 * when none does any more. */
void disk_context_drain(struct disk_context *context);

enum disk_op {
	DISK_READ,
	DISK_WRITE,
	DISK_DISCARD, /* reads as zeros, space is given back */
	DISK_ZERO,    /* reads as zeros, space may stay */
	DISK_FLUSH,
	DISK_RESIZE, /* LENGTH is the new size; waits for all others, and they for it */
	/* LENGTH is the least new size; the image gets more room than that, and with 0 only
	 * what the disk needs. As DISK_RESIZE. */
	DISK_GROW,
};

/* What a request waits for. */
enum disk_wait {
	DISK_WAIT_NONE,	     /* it is being worked on */
	DISK_WAIT_TURN,	     /* as many of the disk are in work as may be */
	DISK_WAIT_GATE,	     /* the disk is being changed */
	DISK_WAIT_RANGE,     /* another one on the same blocks */
	DISK_WAIT_STORE,     /* what an image or the cache's file answers */
	DISK_WAIT_FETCH,     /* another one that fetches the same block */
	DISK_WAIT_TRANSFER,  /* all transfers are in use */
	DISK_WAIT_ROOM,	     /* the cache, or the image, has no room now */
	DISK_WAIT_MIGRATION, /* what is dirty has to be written back */
	DISK_WAITS
};

struct disk_io {
	/* The submitter's, unchanged until DONE. The disk must be open. */
	struct disk_context *context;
	struct disk *disk;
	enum disk_op op;
	uint64_t offset; /* bytes */
	uint64_t length; /* bytes; read and write: up to DISK_IO_BYTES_MAX */
	/* Read: block-aligned, DISK_READ_BUFFER_BYTES long (or at least what
	 * the blocks touched take); the byte at OFFSET arrives at
	 * buffer + OFFSET % BLOCK_SIZE, and the rest of the buffer is scratch.
	 * Write: the payload; when it, OFFSET and LENGTH are block-aligned
	 * nothing is copied. */
	void *buffer;
	/* RESULT: bytes transferred (0 for the other ops), or -errno. Reads and
	 * writes are cut at the end of the disk; a write that begins there or
	 * beyond is -ENOSPC. Comes from the loop, never from disk_submit(). */
	void (*done)(struct disk_io *io, int64_t result);

	/* The disk's. */
	struct list link;
	struct range range;   /* what it holds, or waits for, against other writers */
	uint64_t first_block; /* that is touched */
	uint64_t blocks;
	uint64_t next_block;  /* where the transfer goes on */
	uint64_t inner_first; /* zeroing: the whole blocks */
	uint64_t inner_end;
	uint64_t old_size; /* resize: before it, bytes */
	uint8_t *bounce;
	int64_t result;
	unsigned pending; /* transfers in flight */
	unsigned runs;	  /* of the context's that it holds */
	uint8_t phase;
	uint8_t stage; /* within the phase */
	bool starved;  /* there was no run for it */
	bool full;     /* it had enough of them */
	bool submitting;
	bool bypass; /* part of a long sequential run: what it reads is not copied */
	/* Who asks for the disk's requests reads these. */
	struct list all; /* on disk->requests, under its lock */
	uint64_t submitted_ns;
	_Atomic(const char *) phase_name; /* NULL: it has not begun */
	_Atomic(enum disk_wait) wait;
	/* Blocks read or written, whole and in part, by enum cache_place; see count.h. */
	uint32_t found_whole[3];
	uint32_t found_part[3];
	bool first_in_part;
	bool last_in_part;
	struct loop_task task;
};

void disk_submit(struct disk_io *io);

/* The functions below take a disk from disk_pool_*() (disk/pool.h). */

/* Opens the chain at the first open. Blocks. 0, or -errno with ERROR set:
 * -EROFS for WRITE on a read-only disk. Each success is paired with
 * disk_close(), which commits and closes the chain at the last one and returns
 * 0 or the -errno of that. */
int disk_open(struct disk *disk, bool write, GError **error);
int disk_close(struct disk *disk);
/* As disk_open(), for what an earlier mount left in the cache: begins to write where that
 * is to be written back, and leaves the image alone otherwise. */
int disk_open_dirty(struct disk *disk, GError **error);

struct disk *disk_ref(struct disk *disk);
/* For who finds it in a list that it is taken off while it is freed, under that
 * list's lock: NULL when its last reference has gone. */
struct disk *disk_ref_if_alive(struct disk *disk);
void disk_unref(struct disk *disk);

/* Unique while the disk is in the pool: "web1.img". */
const char *disk_name(const struct disk *disk);
/* The file of its leaf image, in the pool. */
const char *disk_image_path(const struct disk *disk);
bool disk_is_writable(const struct disk *disk);
/* Who may write the disk's image: "this mount", "host ...", "none", or why that
 * cannot be told. g_free. Blocks. */
char *disk_get_owner(struct disk *disk);
/* In one word, as it was found at the mount or when the disk was opened last: "here", the name of a host, "none" or
 * "unknown"; NULL: nobody has looked. g_free. Any thread; does not block for long. */
char *disk_recall_owner(struct disk *disk);
/* Made in this mount on what an ephemeral disk was: nothing in the pool is its own. */
bool disk_is_fork(const struct disk *disk);
/* Of its chain, as it was found last. Any thread. */
unsigned disk_count_layers(struct disk *disk);
/* Number of opens that have not been closed, without those of commands that change what the disk is made of. */
unsigned disk_open_count(struct disk *disk);
/* Anybody has opened it, ever. Any thread. */
bool disk_was_opened(struct disk *disk);

struct disk_attributes {
	uint64_t size_bytes;
	uint64_t allocated_bytes; /* of the leaf on its storage */
	struct timespec modified; /* the leaf, or by this mount, whichever is later */
	uint64_t below;		  /* another number where what is below the leaf is, or has become, another */
	bool writable;
};
/* Looks at the image. 0 or -errno; of an open disk whose image cannot be looked
 * at for the moment they are what they were. Blocks. */
int disk_get_attributes(struct disk *disk, struct disk_attributes *attributes);
/* Of an open disk, from memory: as they were when somebody looked last, with the
 * size as it is. False: nobody ever could. Any thread; does not block. */
bool disk_recall_attributes(struct disk *disk, struct disk_attributes *attributes);
/* Has somebody look, unless somebody does already, and waits for that, a moment at most: of a disk that was opened in
 * this mount, as others are what they were. */
void disk_look_for_a_while(struct disk *disk);
/* Its size, and the space that its leaf takes, as they were known last. Any thread; does not block. */
void disk_recall_size(struct disk *disk, uint64_t *size_bytes, uint64_t *allocated_bytes);
/* Somebody is looking at this moment. Any thread. */
bool disk_is_looked_at(struct disk *disk);
/* Of an open disk, in bytes. Any thread; does not block. */
uint64_t disk_size_bytes(struct disk *disk);
/* Gives an open disk a size of BYTES at least, where its image has the room; false: DISK_GROW does.
 * Any thread; does not block. */
bool disk_grow_in_room(struct disk *disk, uint64_t bytes);

/* Two paths, what is wrong, and a command with both. */
#define DISK_REASON_BYTES 2048

struct disk_status {
	const char *mode;
	const char *state; /* "active", "paused", "waiting", "failing", "degraded", "draining" or "failed" */
	char reason[DISK_REASON_BYTES]; /* not active: a sentence, with what to type at its end */
	struct timespec since;		/* of the last change of state; realtime; zeros: none so far */
	uint64_t dirty_bytes; /* acknowledged and not yet on the shared leaf; a zero range counts as a block */
	uint64_t dirty_ns;    /* age of the oldest of these */
};
/* Whether the image lacks changes that another cache may have: who reads the disk would get old
 * content, so it is opened with stale_reads only. Its status says so, and that nobody can tell. Each opening looks
 * too. *SENTENCE: what status says; NULL where it is NO. g_free. Blocks. */
enum answer disk_look_elsewhere(struct disk *disk, char **sentence);

/* A change of the disk found no room in the pool: its status says so until one has. Any thread; does not block. */
void disk_note_full(struct disk *disk);
void disk_note_room(struct disk *disk);

/* Any thread; does not block for long. */
void disk_get_status(struct disk *disk, struct disk_status *status);

/* Waits until nothing of the disk is dirty, writing back as fast as the pool
 * takes it; GO_ON (NULL: yes) is asked with the dirty bytes left several times
 * a second, and false gives up. Blocks. 0, -EINTR given up, or -errno with
 * ERROR set: why something stays behind. The disk need not be open. */
int disk_drain(struct disk *disk, bool (*go_on)(void *opaque, uint64_t dirty_bytes), void *opaque, GError **error);
/* Another mode from now on, until the pool is closed; drains first where the
 * new mode needs it, and waits for the requests in work; GO_ON as above, and the
 * mode stays where it says no. Open files stay valid. Blocks. 0 or -errno with
 * ERROR. */
int disk_set_mode(struct disk *disk, enum disk_mode mode, bool (*go_on)(void *opaque, uint64_t dirty_bytes),
		  void *opaque, GError **error);

struct disk_layer {
	char *path; /* absolute, links followed */
	const char *format;
	uint64_t size_bytes;
};
/* Leaf first, base last (GPtrArray of struct disk_layer *, free function set).
 * Of a disk that is not open the headers are read. NULL with ERROR when the
 * chain is broken. Blocks. */
GPtrArray *disk_get_layers(struct disk *disk, GError **error);

/* SEEK_DATA or SEEK_HOLE from OFFSET; blocks. The disk must be open. GO_ON (may be
 * NULL) is asked from extent to extent, and false gives up. The position; -ENXIO:
 * there is none up to the end of the disk, and nothing else; -EINTR: given up;
 * -EIO: the disk has failed. */
int64_t disk_seek(struct disk *disk, uint64_t offset, int whence, bool (*go_on)(void *opaque), void *opaque);

/* Which layer a range comes from, for maps: 0 is the leaf, counting down the
 * chain. */
struct disk_extent {
	uint64_t offset; /* bytes */
	uint64_t length; /* bytes */
	int layer;	 /* -1: no layer has it */
	bool zero;
};
/* The extent at OFFSET; blocks; the disk must be open. False past the end. */
bool disk_get_extent(struct disk *disk, uint64_t offset, struct disk_extent *extent);

#endif
