/* Dirty blocks: what is counted, where epochs end, and what the log owes. */
#ifndef LEAFDISK_CACHE_CONTENT_DIRTY_H
#define LEAFDISK_CACHE_CONTENT_DIRTY_H

#include "cache/internal.h"

/* BLOCKS of LAYER from SLOT on will be dirty, or will not after all. */
void cache_dirty_reserve_locked(struct cache_layer *layer, uint32_t slot, unsigned blocks);
void cache_dirty_cancel_locked(struct cache_layer *layer, uint32_t slot, unsigned blocks);
/* The zero range logged at PLACE is dirty. */
void cache_dirty_zero_locked(struct cache_layer *layer, struct epoch_place place, uint64_t block, uint64_t blocks);
/* A dirty slot of LAYER has its content, of ORDER, at another slot now; its flags are the
 * caller's. */
void cache_dirty_move_locked(struct cache_layer *layer, uint32_t slot, uint32_t to, uint64_t order);
/* A superseded one that no batch needs is dirty no more. */
void cache_dirty_drop_locked(struct cache_layer *layer, uint32_t slot);
/* Nothing of LAYER is dirty any more; its counts of blocks are the caller's. */
void cache_dirty_release_locked(struct cache_layer *layer);
/* An epoch that gets too large for one batch ends. */
void cache_dirty_bound_epoch_locked(struct cache_layer *layer);
/* An epoch of LAYER ends. False: no room. */
bool cache_dirty_barrier_locked(struct cache_layer *layer, enum log_purpose purpose);
/* The same, but other entries without data can follow in the record: the caller closes
 * it before the lock is let go. */
bool cache_dirty_cut_locked(struct cache_layer *layer, enum log_purpose purpose);
/* The image has all of LAYER up to END. */
void cache_dirty_migrated_locked(struct cache_layer *layer, struct epoch_place end);
/* The log gets what it owes: all that it has room for, for PURPOSE, or unless room is scarce. */
void cache_dirty_pay_locked(struct cache *cache, enum log_purpose purpose);
void cache_dirty_catch_up_locked(struct cache *cache);
/* And whether the tail may pass segments then. Not while the log does not know that an image
 * has something of which the older version was moved: it would be found without the newer one. */
bool cache_dirty_may_pass_locked(struct cache *cache);

#endif
