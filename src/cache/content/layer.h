/* Layers: what the rest of the cache does with them. */
#ifndef LEAFDISK_CACHE_CONTENT_LAYER_H
#define LEAFDISK_CACHE_CONTENT_LAYER_H

#include "cache/internal.h"

void cache_layer_degrade_locked(struct cache_layer *layer, const char *reason);
/* Degraded layers begin anew, as far as there is room to say so in the log. */
void cache_layers_heal_locked(struct cache *cache);
/* Where the cache counts LAYER's PINNED blocks: they are dirty where it is written back. */
uint64_t *cache_layer_pinned_count(struct cache_layer *layer);
/* FLAGS of a slot that becomes LIVE (+1) or is LIVE no more (-1). */
void cache_layer_account_locked(struct cache_layer *layer, unsigned flags, int change);

#endif
