/* A layer's share in the cache: what of it is kept there, and how it is opened and
 * closed. All of it blocks, and is called by who may change the layer, but for what
 * says otherwise. */
#ifndef LEAFDISK_LAYER_SHARE_H
#define LEAFDISK_LAYER_SHARE_H

#include "layer/layer.h"
#include "owner/owner.h"

/* What is read is kept, MIRRORED with WRITABLE what is written too, otherwise CLEAN;
 * NONE where the cache does not take it. */
void share_open(struct layer *layer, bool writable);
/* Whether LAYER's image may be claimed as far as the cache knows, after LAST: nothing is
 * dirty in it of a claim that the image at this name does not have. False and ERROR. */
bool share_allows(struct layer *layer, const struct owner_last *last, GError **error);
/* Before an open: what is dirty of LAYER and proven not to be its image's is set aside, or
 * forgotten where the image has had all of it. See claim_look(). False and ERROR: nobody
 * can tell. */
bool share_disown(void *layer, const struct owner_last *last, GError **error);
/* DIRTY, under *CLAIM, or that which goes on: see struct owner_want and
 * cache_layer_open_dirty(). False and ERROR: nothing is changed, where nobody can tell
 * whose the dirty blocks are. */
bool share_open_dirty(struct layer *layer, const struct owner_last *last, struct owner_claim *claim, GError **error);
/* DIRTY, of a new image under LAYER's claim, of which nobody knows anything. False and ERROR. */
bool share_open_new(struct layer *layer, GError **error);
/* PINNED, of a log layer. False and ERROR. */
bool share_open_pinned(struct layer *layer, GError **error);
/* GOOD: the image has all that was acknowledged. What is cached is good at the next
 * open then, where the image can show that nobody has changed it. */
void share_close(struct layer *layer, bool good);
/* Before others are told that the image has all: the log knows that too, durably. False:
 * it does not. */
bool share_settle(struct layer *layer);
/* The cache gives up all that it has of LAYER, for REASON. */
void share_abandon(struct layer *layer, const char *reason);
/* The cache forgets all that it has of LAYER, whose image is to be removed; see cache_layer_discard(). */
void share_discard(struct layer *layer);
/* What is dirty is nobody's to write back, and stays in the log. */
void share_orphan(struct layer *layer);

/* Something is dirty, whoever may write it back. */
bool share_is_dirty(struct layer *layer);
/* Of an open image that nobody has claimed yet, and of which the cache has nothing dirty.
 * False, with ERROR: the cache has lost all that it had of layers that it does not know any
 * more, and had our claim of this one; or what is dirty of that claim is of another image. */
bool share_is_there(const struct layer *layer, GError **error);
/* What the cache has lost of what LINK was when it was found, the rest of a sentence; NULL:
 * nothing. g_free. Does not block; any thread. */
char *share_loss_as_found(const struct chain_link *link, struct pool_cache *pool_cache);
/* Blocks and zero ranges of an open image that nobody has claimed yet. */
uint64_t share_left(const struct layer *layer);
/* The same of an image that is not open. POOL_CACHE may be NULL. */
uint64_t share_left_of_link(const struct chain_link *link, struct pool_cache *pool_cache);
/* And of what LINK was when it was found: nothing is read. Does not block; any thread. */
uint64_t share_left_as_found(const struct chain_link *link, struct pool_cache *pool_cache);

#endif
