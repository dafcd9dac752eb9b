/* Stacks of read-only layers and their merged maps.
 *
 * A stack is a node: its top layer, and the stack below. Nodes are interned by both,
 * so disks on the same layers share the map. The map keeps, per region of 256 blocks,
 * either "all from layer k" or 256 layer numbers; a region is computed at its first
 * touch by asking the layers top down. Layers are read-only, so a region never changes: what
 * is dirty of a sealed one only goes from the cache to its image.
 *
 * The intern table and the counts of users have one lock, each map its own; neither is
 * held while a layer is opened or closed. */
#include "layer/map.h"

#include "core/counters.h"
#include "core/lock.h"
#include "layer/read.h"

#define REGION_BLOCKS 256
/* Regions in a directory, which is allocated whole: 4 GiB of disk. */
#define DIRECTORY_REGIONS 4096

/* A region: 0: not computed; odd: all from layer (value >> 1); else a pointer
 * to REGION_BLOCKS layer numbers. */
typedef uintptr_t region;

struct directory {
	uint64_t index;
	region regions[DIRECTORY_REGIONS];
};

struct stack {
	struct layer *top;
	struct stack *below;
	unsigned users;
	unsigned depth;
	struct layer **layers; /* top first */
	uint64_t *ends;	       /* of each: see stack_end_bytes() */

	struct lock lock;
	GHashTable *directories; /* uint64_t index -> struct directory */
};

static struct lock stacks_lock = LOCK_INIT(LOCK_RANK_STACKS);
static GPtrArray *stacks;

static void directory_free(void *data)
{
	struct directory *directory = data;

	for (unsigned i = 0; i < DIRECTORY_REGIONS; i++)
		if (!(directory->regions[i] & 1))
			g_free((void *)directory->regions[i]);
	g_free(directory);
}

static struct stack *find_locked(const struct layer *top, const struct stack *below)
{
	lock_assert_mine(&stacks_lock);
	for (guint i = 0; stacks && i < stacks->len; i++) {
		struct stack *stack = stacks->pdata[i];

		if (stack->top == top && stack->below == below)
			return stack;
	}
	return NULL;
}

static struct stack *add_locked(struct layer *top, struct stack *below)
{
	struct stack *stack = g_new0(struct stack, 1);

	lock_assert_mine(&stacks_lock);
	stack->top = top;
	stack->below = below;
	stack->users = 1;
	stack->depth = below ? below->depth + 1 : 1;
	stack->layers = g_new0(struct layer *, stack->depth);
	stack->layers[0] = top;
	stack->ends = g_new(uint64_t, stack->depth);
	stack->ends[0] = UINT64_MAX;
	for (unsigned i = 1; i < stack->depth; i++) {
		stack->layers[i] = below->layers[i - 1];
		stack->ends[i] = MIN(stack->ends[i - 1], layer_size_bytes(stack->layers[i - 1]));
	}
	lock_init(&stack->lock, LOCK_RANK_MAP);
	stack->directories = g_hash_table_new_full(g_int64_hash, g_int64_equal, NULL, directory_free);
	if (!stacks)
		stacks = g_ptr_array_new();
	g_ptr_array_add(stacks, stack);
	return stack;
}

static void stack_free(struct stack *stack)
{
	g_hash_table_destroy(stack->directories);
	lock_destroy(&stack->lock);
	g_free(stack->layers);
	g_free(stack->ends);
	g_free(stack);
}

/* The node of TOP on BELOW. The caller's uses of both become the node's, or are given
 * back where it has its own. */
static struct stack *get(struct layer *top, struct stack *below)
{
	struct stack *stack;

	lock_take(&stacks_lock);
	stack = find_locked(top, below);
	if (stack) {
		stack->users++;
		lock_let_go(&stacks_lock);
		layer_put(top);
		stack_put(below);
		return stack;
	}
	stack = add_locked(top, below);
	lock_let_go(&stacks_lock);
	return stack;
}

struct stack *stack_get(const GPtrArray *links, guint first, struct pool_cache *pool_cache, bool cached, GError **error)
{
	struct stack *stack = NULL;

	for (guint i = links->len; i-- > first;) {
		struct layer *top = layer_get(links->pdata[i], pool_cache, cached, error);

		if (!top) {
			stack_put(stack);
			return NULL;
		}
		stack = get(top, stack);
	}
	return stack;
}

struct stack *stack_on(struct layer *top, struct stack *below)
{
	return get(top, below);
}

struct stack *stack_use(struct stack *stack)
{
	LOCK_GUARD(&stacks_lock);
	if (stack)
		stack->users++;
	return stack;
}

static bool is_last_use(struct stack *stack)
{
	bool last;

	LOCK_GUARD(&stacks_lock);
	last = --stack->users == 0;
	if (last)
		g_ptr_array_remove_fast(stacks, stack);
	return last;
}

void stack_put(struct stack *stack)
{
	while (stack && is_last_use(stack)) {
		struct stack *below = stack->below;

		layer_put(stack->top);
		stack_free(stack);
		stack = below;
	}
}

unsigned stack_depth(const struct stack *stack)
{
	return stack ? stack->depth : 0;
}

struct layer *stack_layer(const struct stack *stack, unsigned layer)
{
	return stack->layers[layer];
}

struct stack *stack_under(struct stack *stack, unsigned layers)
{
	while (layers-- > 0)
		stack = stack->below;
	return stack;
}

uint64_t stack_size_bytes(const struct stack *stack)
{
	return stack ? layer_size_bytes(stack->top) : 0;
}

uint64_t stack_end_bytes(const struct stack *stack, unsigned layer)
{
	return stack->ends[layer];
}

/* Fills what is open in OWNERS with LAYER where it has data or zeros; returns
 * how many blocks are open after it. Past its end a layer is zero: what is
 * longer below it does not show through. */
static unsigned ask_layer(struct stack *stack, unsigned layer, uint64_t first, uint8_t *owners, uint8_t *open)
{
	uint64_t blocks = blocks_of(layer_size_bytes(stack->layers[layer]));
	unsigned end_of_layer = first < blocks ? (unsigned)MIN(blocks - first, REGION_BLOCKS) : 0;
	unsigned left = 0;

	for (unsigned block = end_of_layer; block < REGION_BLOCKS; block++)
		open[block] = 0;
	for (unsigned block = 0; block < end_of_layer;) {
		struct image_extent extent;

		if (!open[block]) {
			block++;
			continue;
		}
		extent = layer_extent(stack->layers[layer], first + block, end_of_layer - block);
		for (uint64_t end = block + extent.blocks; block < end; block++) {
			if (extent.state != EXTENT_ABSENT && open[block]) {
				owners[block] = extent.state == EXTENT_DATA ? (uint8_t)layer : STACK_NO_LAYER;
				open[block] = 0;
			}
			left += open[block];
		}
	}
	return left;
}

static region compute_region(struct stack *stack, uint64_t first)
{
	uint8_t owners[REGION_BLOCKS], open[REGION_BLOCKS];
	unsigned same = 1;

	for (unsigned i = 0; i < REGION_BLOCKS; i++) {
		owners[i] = STACK_NO_LAYER;
		open[i] = 1;
	}
	for (unsigned layer = 0; layer < stack->depth; layer++)
		if (ask_layer(stack, layer, first, owners, open) == 0)
			break;
	counter_add(map_regions, 1);
	while (same < REGION_BLOCKS && owners[same] == owners[0])
		same++;
	if (same == REGION_BLOCKS)
		return (region)owners[0] << 1 | 1;
	return (region)g_memdup2(owners, sizeof(owners));
}

static region *find_region_locked(struct stack *stack, uint64_t number)
{
	uint64_t index = number / DIRECTORY_REGIONS;
	struct directory *directory = g_hash_table_lookup(stack->directories, &index);

	lock_assert_mine(&stack->lock);
	if (!directory) {
		directory = g_new0(struct directory, 1);
		directory->index = index;
		g_hash_table_insert(stack->directories, &directory->index, directory);
	}
	return &directory->regions[number % DIRECTORY_REGIONS];
}

unsigned stack_lookup(struct stack *stack, uint64_t block, uint64_t limit, uint64_t *run)
{
	unsigned in_region = (unsigned)(block % REGION_BLOCKS);
	uint64_t length = 1;
	unsigned layer;
	region *slot;

	limit = MIN(limit, REGION_BLOCKS - in_region);
	lock_take(&stack->lock);
	slot = find_region_locked(stack, block / REGION_BLOCKS);
	if (!*slot)
		*slot = compute_region(stack, round_down(block, REGION_BLOCKS));
	if (*slot & 1) {
		layer = (unsigned)(*slot >> 1);
		length = limit;
	} else {
		const uint8_t *owners = (const uint8_t *)*slot;

		layer = owners[in_region];
		while (length < limit && owners[in_region + length] == layer)
			length++;
	}
	lock_let_go(&stack->lock);
	*run = length;
	return layer;
}
