/* What the files of disk/ share: the disk object, the context, its pools. */
#ifndef LEAFDISK_DISK_INTERNAL_H
#define LEAFDISK_DISK_INTERNAL_H

#include <glib.h>

#include "aio/queue.h"
#include "chain.h"
#include "core/pool.h"
#include "disk/disk.h"
#include "image/image.h"
#include "range_lock.h"
#include "stack.h"

struct disk {
	/* Constant. */
	char *name;
	bool writable;
	uint64_t id;
	_Atomic unsigned references;

	/* Opening and closing; held while that blocks. */
	GMutex open_lock;
	GPtrArray *links; /* struct chain_link, leaf first; an open replaces it whole, under `lock` */
	struct chain_roots roots;
	char *spelled; /* the configured stack, NULL: by the headers */
	bool unlocked; /* only looked at: no lock on the leaf */
	_Atomic unsigned opens;

	/* Constant while open. */
	struct image *leaf;
	struct stack *stack; /* what is below the leaf, or NULL */
	_Atomic uint64_t size_bytes;

	/* The data path. */
	GMutex lock;
	struct range_lock ranges;
};

/* LINKS is taken over. */
struct disk *disk_new(const char *name, bool writable, uint64_t id, GPtrArray *links, const struct chain_roots *roots,
		      const char *spelled);

/* The chain as it is now, with a reference; whoever opens the disk meanwhile
 * does not change what is returned. Any thread. */
GPtrArray *disk_get_links(struct disk *disk);

/* One transfer or operation on an image, out of the context's pool. */
struct run {
	union {
		struct image_io io;
		struct image_op op;
	};
	struct disk_io *owner;
};

struct disk_context {
	struct loop *loop;
	struct aio_queue *queue;
	struct pool *runs;
	struct pool *bounces;
	struct list starved; /* disk_io by link: wait for a run or a bounce buffer */
};

/* NULL: the pool is empty; OWNER is on the starved list and will be stepped
 * again. */
struct run *context_get_run(struct disk_context *context, struct disk_io *owner);
void context_put_run(struct disk_context *context, struct run *run);
uint8_t *context_get_bounce(struct disk_context *context, struct disk_io *owner);
void context_put_bounce(struct disk_context *context, uint8_t *bounce);
/* Steps those that can go on now. At the end of a callback. */
void context_resume(struct disk_context *context);

/* io.c: goes on with IO where it stopped. */
void disk_io_step(struct disk_io *io);

#endif
