/* The disk object, for the files of disk/ and for what stands on them; the context
 * and its pools. */
#ifndef LEAFDISK_DISK_OBJECT_H
#define LEAFDISK_DISK_OBJECT_H

#include <glib.h>

#include "aio/queue.h"
#include "cache/block.h"
#include "cache/writeback.h"
#include "core/lock.h"
#include "core/pool.h"
#include "disk/disk.h"
#include "disk/gate.h"
#include "disk/lane.h"
#include "disk/range_lock.h"
#include "disk/streams.h"
#include "layer/layer.h"
#include "layer/map.h"
#include "layer/overflow.h"
#include "layer/pool_cache.h"
#include "layer/read.h"

struct route;
struct disk_count;
struct logs;

/* What becomes of an opening that would show old content, as newer is elsewhere (disk/elsewhere.c). */
enum disk_old { OLD_REFUSED, OLD_ALLOWED, OLD_SHOWN };

struct disk {
	/* Constant. */
	char *name;
	bool writable;
	uint64_t id;
	enum disk_mode configured_mode;
	struct pool_cache *pool_cache; /* NULL: no cache; the pool's */
	_Atomic unsigned references;
	_Atomic bool parent;	   /* of another image, as the pool's last look found */
	_Atomic bool unsettled;	   /* what was made for a snapshot of it that failed is not all taken back: another file
				    * may have its image's name, and a chain that is closed stays so */
	struct loop_work disposal; /* once there is none */

	/* Of the leaf's image; changes once at most, as a new leaf on a raw image has another. */
	char *_Atomic path;
	char *former_path; /* others may use it; NULL: it has not changed */

	/* Opening, closing and changing; held while that blocks, and while it
	 * waits for requests: so only who may wait takes it, and no request
	 * ever needs it. Order: open_lock, the migrator's lock, `lock`. */
	struct lock open_lock;
	_Atomic enum disk_mode mode; /* written under open_lock */
	GPtrArray *links;	     /* struct chain_link, leaf first; an open replaces it whole, under `lock` */
	struct chain_roots *roots;
	char *spelled;	     /* the configured stack, NULL: by the headers */
	bool unlocked;	     /* only looked at: no lock on the leaf */
	_Atomic bool forked; /* from an ephemeral one, with its image: nothing in the pool is this disk's own */
	bool kept;	     /* and no look at the pool has told which mode its image is found with; under the pool's */
	bool ended;	     /* a fork that was removed: it has nothing, and is not opened any more */
	bool stale_reads;    /* it is read although its newest changes are elsewhere; constant */
	enum disk_old old;   /* as it was opened last; under open_lock */
	bool keeper;	     /* its leaf is sealed, and it is shown nowhere (disk/keeper.h) */
	struct list keepers; /* the cache's */
	_Atomic unsigned opens;
	_Atomic unsigned changers; /* of these, who change what the disk is made of */
	_Atomic bool was_opened;   /* ever */
	_Atomic bool open;	   /* the chain: also without opens, while something is dirty */

	/* It has failed, and its route is to follow: requests that begin are refused. */
	_Atomic bool refusing;

	/* Constant while open, but for what happens behind the gate. */
	const struct route *route;
	struct layer *leaf;  /* there as long as the disk, or until another is put on it, under `lock` too; what is in
			      * it as long as it is open, an ephemeral one's from the first open on */
	struct stack *stack; /* what is below the leaf, or NULL */
	bool given;	     /* an ephemeral one: changes, or it may have been; */
	uint64_t made_on;    /* and the stamp of the chain that they are of */
	struct logs *logs;   /* between leaf and images, as long as the disk; under `lock` too; NULL: none */
	GPtrArray *saved;    /* struct disk_saved (saved.h), the last one last; under `lock` too; NULL: none */
	_Atomic uint64_t size_bytes;
	_Atomic bool stays; /* an ephemeral one was opened: leaf and size are there until the unmount */

	/* The data path. The lock is never held across I/O. */
	struct lock lock;
	struct disk_attributes seen; /* under `lock`; all but the size */
	bool has_seen;
	_Atomic int64_t changed_ns; /* CLOCK_REALTIME of the last change by this mount; 0: none */
	bool resizing;		    /* under `lock`: the size, or the room of the image, is being changed */
	char *left;		    /* under `lock`: why what the cache has of it stays there; or NULL */
	struct timespec left_since;
	char *elsewhere;	   /* under `lock`: why its image lacks changes that another cache has; or NULL */
	char *owner;		   /* under `lock`: whose its image was found to be, in one word; or NULL */
	_Atomic time_t full_since; /* its last change found no room in the pool; 0: it did */
	bool tried;		   /* under the pool's lock: see pool_try() */
	struct disk_status *told;  /* under `lock`: what was last found out; NULL: nobody has asked */
	_Atomic unsigned lookers;  /* at the image's attributes, now */
	struct loop_work look;	   /* at these in the background, and */
	struct condition looked;   /* its end */
	bool looking;		   /* under `lock`: it goes on */
	struct lane *lanes;	   /* by a context's index; NULL: it was never open */
	const char *watched_state; /* that was told last; NULL: none so far. The watch's alone (pool/watch.h) */
	uint64_t well_since_ns;	   /* the watch's: when it was not well last */
	_Atomic(struct disk_count *) count; /* as the lanes */
	struct list requests;		    /* disk_io by `all`, in order of arrival; under `lock` */
	struct gate gate;
	struct list pauses; /* struct disk_pause, under `lock`; pause.c's */
	struct range_lock ranges;
	struct streams streams;
};

/* Blocks until no disk is being freed, and nothing goes on with one, in the background. */
void disk_await_disposals(void);

/* open_lock is held, nothing is open any more. 0 or -errno of committing. */
int disk_close_chain(struct disk *disk);
/* open_lock is held: closes the chain if nobody uses it and nothing is dirty any
 * more. An error is logged. Blocks. */
void disk_close_unused(struct disk *disk);

/* As disk_drain(), of what is dirty of a disk that is open: that of one which is closed is not
 * looked at. */
int disk_drain_open(struct disk *disk, bool (*go_on)(void *opaque, uint64_t dirty_bytes), void *opaque, GError **error);
/* KEEPER, which is new, brings what is dirty of its layer to the image, unless another does already. False and ERROR.
 * Blocks. */
bool disk_keep(struct disk *keeper, GError **error);

/* Of LINKS, as they would be below DISK's leaf, with what is dirty of them kept. open_lock is held. NULL and ERROR.
 * Blocks. */
struct stack *disk_open_stack(struct disk *disk, const GPtrArray *links, GError **error);
/* What is dirty of DISK goes to its image after what is below it. */
void disk_go_after_sealed(struct disk *disk);
/* KEEPER's layer is given up with all that the cache has of it: its image is to be removed. Nobody stands on it. GO_ON
 * is asked while a batch is under way, for which it waits. False: it is as it was. Blocks. */
bool disk_discard(struct disk *keeper, bool (*go_on)(void *opaque), void *opaque);

/* What an earlier mount left of it in the cache stays there, for REASON; NULL: no more.
 * True: that is another reason than before. */
bool disk_note_left(struct disk *disk, const char *reason);
/* That reason, or NULL. g_free. */
char *disk_get_left(struct disk *disk);

/* LINKS is taken over. LOCAL may be NULL. */
struct disk *disk_new(const char *name, bool writable, uint64_t id, GPtrArray *links, const struct chain_roots *roots,
		      const char *spelled, enum disk_mode mode, struct pool_cache *pool_cache);

/* A leaf that DISK is to get, with its owner, in place of the one that it has; not open. */
struct layer *disk_new_leaf(struct disk *disk, const struct chain_link *link);

/* The chain as the headers say now; NULL with ERROR. Blocks. */
GPtrArray *disk_resolve(struct disk *disk, GError **error);
/* All that an open disk shows comes from below its leaf. Whoever holds open_lock; blocks. */
bool disk_leaf_is_empty(struct disk *disk);
/* The leaf as it is now, with a reference: for who has neither its lock nor a request in work. */
struct layer *disk_hold_leaf(struct disk *disk);
/* The chain as it is now, with a reference; whoever opens the disk meanwhile
 * does not change what is returned. Any thread. */
GPtrArray *disk_get_links(struct disk *disk);
/* What the cache has of the leaf that the pool has not, of a disk that is not
 * open: blocks and zero ranges. Blocks. */
uint64_t disk_left_in_cache(struct disk *disk);

/* One thing that a disk_io waits for, out of the context's pool. */
struct run {
	union {
		struct layer_io read;
		struct image_io io;
		struct image_op op;
		struct cache_waiter room;
		struct cache_flush flush;
		struct drain drain;
		struct overflow_wait overflow;
	};
	struct disk_io *owner;
	/* Of what is read, to be zeroed when it is there. */
	uint8_t *cut;
	uint32_t cut_bytes;
	/* What was written, and is to be forgotten. */
	uint64_t block;
	uint64_t blocks;
};

/* Layers below the leaf are read through the cache. */
static inline bool disk_uses_cache(const struct disk *disk)
{
	return disk->pool_cache && disk->mode != DISK_MODE_DIRECT;
}

struct disk_context {
	struct loop *loop;
	unsigned index; /* of a disk's lanes */
	unsigned depth; /* requests of one disk that are worked on at once */
	struct aio_queue *queue;
	struct pool *runs;
	struct pool *bounces;
	struct list starved; /* disk_io by link: wait for a run */
};

/* NULL: OWNER has enough of them for now, or the pool is empty; it will be stepped
 * again. */
struct run *context_get_run(struct disk_context *context, struct disk_io *owner);
void context_put_run(struct disk_context *context, struct run *run);
/* Room for BLOCKS and those at their edges. NULL: there is no memory. */
uint8_t *context_get_bounce(struct disk_context *context, uint64_t blocks);
void context_put_bounce(struct disk_context *context, uint8_t *bounce);
/* Steps those that can go on now. At the end of a callback. */
void context_resume(struct disk_context *context);

/* For a gate: the disk_io of NODE, which is in work, begins anew on its loop. */
void disk_io_restart(struct list *node);

#endif
