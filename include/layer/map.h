/* Stacks of read-only layers, shared by all disks on them, each with one
 * merged map. */
#ifndef LEAFDISK_LAYER_MAP_H
#define LEAFDISK_LAYER_MAP_H

#include "cache/layer.h"
#include "layer/chain.h"
#include "image/image.h"

#define STACK_NO_LAYER 255

struct stack;

/* The stack of LINKS from FIRST on (top first), opened or shared. NULL with
 * ERROR. FIRST must be below links->len. Layers that are opened are looked for
 * in CACHE, unless NULL. Blocks; any thread. */
struct stack *stack_get(const GPtrArray *links, guint first, struct cache *cache, GError **error);
/* Closes the layers with the last use. Blocks. NULL is allowed. */
void stack_put(struct stack *stack);

unsigned stack_depth(const struct stack *stack);
struct image *stack_layer(const struct stack *stack, unsigned layer); /* 0: top */
/* The same layer in the cache, or NULL. */
struct cache_layer *stack_cached(const struct stack *stack, unsigned layer);
uint64_t stack_size_bytes(const struct stack *stack); /* of the top layer */

/* The layer whose data BLOCK shows, or STACK_NO_LAYER for zeros; *RUN is how
 * many blocks, up to LIMIT, share the answer. Any thread; does not block. */
unsigned stack_lookup(struct stack *stack, uint64_t block, uint64_t limit, uint64_t *run);

#endif
