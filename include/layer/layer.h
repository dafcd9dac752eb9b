/* A layer: one share of a disk's content. Its image, what the cache has of it, our
 * claim of it, and what of it is dirty.
 *
 * Layers below a leaf are opened once in a process and shared by every stack on them
 * (layer_get); they are not written. A leaf is its disk's own, and the only layer
 * that is, until it is sealed: then it is below others, and what of it is dirty still
 * goes to its image (disk/keeper.h). That of an ephemeral disk is a log layer: it has no image, the cache has
 * all there is of it, and what the cache does not take is in its overflow layer. One that is sealed is below others
 * too (logs.h), with all of that, until nobody stands on it.
 *
 * What holds, and is checked in the tests' build (layer_check):
 *   1. What the cache has is as the share says: a layer there, unless NONE.
 *   2. A share is PINNED exactly where there is no image: of a log layer, once it is
 *      open.
 *   3. A claim, and dirty blocks, are of an image.
 *   4. On the pool's list is what is DIRTY, RETRYING or AWAY, and what is LOST or FAILED
 *      until it is closed.
 *   5. DIRTY and RETRYING have a DIRTY share, CLEAN and AWAY have none such.
 *   6. RETRYING has failures, DIRTY has none.
 *   7. LOST and FAILED have a reason.
 *   8. A batch is under way only of what is DIRTY or RETRYING. */
#ifndef LEAFDISK_LAYER_LAYER_H
#define LEAFDISK_LAYER_LAYER_H

#include "cache/layer.h"
#include "core/lock.h"
#include "image/image.h"
#include "layer/backlog.h"
#include "layer/chain.h"
#include "owner/owner.h"

struct disk;
struct pool_cache;

/* Of a leaf whose claim is not in the owner record yet: see seal.h. */
struct layer_succession {
	uint64_t before;	       /* the generation of the record there; 0: there is none */
	char *mark;		       /* a file that is removed then; NULL: none */
	char *former;		       /* the path that the image had to which it succeeds; NULL: its own */
	uint8_t nonce[OWNER_ID_BYTES]; /* of the claim that is recorded there */
};

/* What the cache has of a layer; see share.h. */
enum layer_share {
	SHARE_NONE,
	SHARE_CLEAN,	/* what was read; the layer is not written */
	SHARE_MIRRORED, /* what the image has, as it is written */
	SHARE_DIRTY,	/* what is newer than the image */
	SHARE_PINNED,	/* all there is */
};

/* Of one below a leaf, in layer.c's table. */
enum layer_use { USE_OPENING, USE_OPEN, USE_CLOSING };

struct layer {
	_Atomic unsigned references; /* to the object */

	/* Constant. */
	char *name;		       /* of the disk, or of the image: for messages */
	struct pool_cache *pool_cache; /* NULL: there is no cache */
	struct chain_roots *roots;
	const struct owner_self *owner; /* NULL: opens claim nothing; the pool's */
	/* Whose leaf it is, or whose it was made when it was sealed; NULL: nobody's. For those who
	 * stand above both; changed under the backlogs' lock. */
	struct disk *_Atomic disk;

	/* A link that was replaced is there as long as the layer: who moves what is dirty has it. */
	struct chain_link *_Atomic link;
	struct chain_link *former_link; /* NULL: none */

	/* It takes no writes any more but what is dirty already. Constant once others can find it. */
	bool sealed;
	/* A log layer below others, and where it ends, in bytes. Constant then. */
	bool log;
	uint64_t log_bytes;
	GArray *children; /* struct image_child, of one that is sealed: those that its image is yet to remember; under
			   * the lock; NULL: it remembers them, or none is known */

	/* Of one that is sealed, under the backlogs' lock: see disk/standing.h. */
	GPtrArray *standing; /* struct disk; NULL: none ever was */
	bool exchanging;

	/* Changed by who opens and closes it: under open_lock of a leaf, and while no
	 * request is in work. */
	struct image *image; /* NULL: not open, or a log layer */
	struct cache_layer *cached;
	enum layer_share share;
	struct owner_claim claim;	     /* ours; generation 0: none that is recorded */
	struct layer_succession *succession; /* NULL: its claim is recorded */

	/* A log layer's, from its first use on. */
	_Atomic(struct image *) overflow;
	struct list overflow_waiters; /* struct overflow_wait; under the lock */
	struct lock lock;

	struct backlog backlog;

	/* Under the lock of the table. */
	enum layer_use use;
	bool wants_share;
	unsigned users;
};

/* ---- Below a leaf (layer.c) -------------------------------------------- */

/* The layer of LINK, opened for reading or shared; CACHED: with a share in POOL_CACHE.
 * NULL and ERROR. Blocks; any thread. */
struct layer *layer_get(const struct chain_link *link, struct pool_cache *pool_cache, bool cached, GError **error);
/* Another use of one that is used. */
struct layer *layer_use(struct layer *layer);
/* With the last use it is closed. Blocks. */
void layer_put(struct layer *layer);
/* LAYER, a leaf that is sealed, is found from now on by who opens its image, if it has one. It is used once, by the
 * caller. */
void layer_publish(struct layer *layer);

/* ---- A leaf ------------------------------------------------------------- */

/* Closed. NAME is the disk's. */
struct layer *layer_new(const char *name, struct pool_cache *pool_cache, const struct chain_roots *roots);
static inline struct layer *layer_ref(struct layer *layer)
{
	layer->references++;
	return layer;
}
/* With the last reference what is left of it is closed. Blocks. */
void layer_unref(struct layer *layer);
typedef struct layer layer_held;
G_DEFINE_AUTOPTR_CLEANUP_FUNC(layer_held, layer_unref)
/* Where its image is from now on; it is not open. */
void layer_set_link(struct layer *layer, const struct chain_link *link);
/* As chain_link_open(). False and ERROR. Blocks. */
bool layer_open_image(struct layer *layer, unsigned flags, GError **error);
/* As image_close(); its share is closed already. Blocks. */
int layer_close_image(struct layer *layer);
/* What of LAYER is dirty goes to its image after all that is of SEALED, which is below it; NULL: at once. */
void layer_go_after(struct layer *layer, struct layer *sealed);
/* What was written becomes durable on the image. False and ERROR. Blocks. */
bool layer_flush_image(struct layer *layer, GError **error);

/* ---- What holds (invariants.c) ------------------------------------------- */

#ifdef LEAFDISK_FAULTS
/* The one of the list above that does not, or NULL. */
const char *layer_find_breach(struct layer *layer);
/* Aborts where one does not; by who may change LAYER, when it has changed it. */
void layer_check(struct layer *layer);
#else
static inline void layer_check(struct layer *layer)
{
	(void)layer;
}
#endif

#endif
