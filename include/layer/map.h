/* Stacks of read-only layers, shared by all disks on them, each with one
 * merged map. */
#ifndef LEAFDISK_LAYER_MAP_H
#define LEAFDISK_LAYER_MAP_H

#include "layer/layer.h"

#define STACK_NO_LAYER 255

struct stack;

/* The stack of LINKS from FIRST on (top first), opened or shared. NULL with
 * ERROR. FIRST must be below links->len. CACHED: with shares in POOL_CACHE. Blocks; any thread. */
struct stack *stack_get(const GPtrArray *links, guint first, struct pool_cache *pool_cache, bool cached,
			GError **error);
/* The stack of TOP on BELOW (NULL: nothing); the caller's use of each becomes the stack's. */
struct stack *stack_on(struct layer *top, struct stack *below);
/* Another use; NULL is allowed. */
struct stack *stack_use(struct stack *stack);
/* Layers are closed with their last use. Blocks. NULL is allowed. */
void stack_put(struct stack *stack);

/* Of one in a stack. */
static inline uint64_t layer_size_bytes(const struct layer *layer)
{
	return layer->log ? layer->log_bytes : layer->image->size_bytes;
}
unsigned stack_depth(const struct stack *stack);
struct layer *stack_layer(const struct stack *stack, unsigned layer); /* 0: top */
/* What is below so many layers of it: STACK's, without a use of its own. */
struct stack *stack_under(struct stack *stack, unsigned layers);
uint64_t stack_size_bytes(const struct stack *stack); /* of the top layer */
/* Where the shortest of the layers above LAYER ends, in bytes: past that nothing of
 * LAYER shows. UINT64_MAX: none is above it. */
uint64_t stack_end_bytes(const struct stack *stack, unsigned layer);

/* The layer whose data BLOCK shows, or STACK_NO_LAYER for zeros; *RUN is how
 * many blocks, up to LIMIT, share the answer. Any thread; does not block. */
unsigned stack_lookup(struct stack *stack, uint64_t block, uint64_t limit, uint64_t *run);

#endif
