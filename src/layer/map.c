/* Stacks of read-only layers and their merged maps.
 *
 * A stack is a node: its top layer, and the stack below. Nodes are interned by
 * (file, offset, below), so disks on the same layers share the open images and
 * the map. The map keeps, per region of 256 blocks, either "all from layer k"
 * or 256 layer numbers; a region is computed at its first touch by asking the
 * layers top down. Layers are read-only, so a region never changes.
 *
 * The intern table, the states and the reference counts have one lock, each map its
 * own; neither is held while an image is opened or closed. A node that is being
 * opened or closed stands in the table, and who wants the same one waits for it:
 *
 *     OPENING -> OPEN            with the one who opened it as its first user
 *     OPENING -> gone            it could not be opened; who waits tries himself
 *     OPEN -> CLOSING -> gone    with the last user */
#include "layer/map.h"

#include "core/counters.h"
#include "core/error.h"
#include "core/thread.h"
#include "layer/key.h"

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

/* A layer as reads use it. */
struct layer {
	struct image *image;
	struct cache_layer *cached; /* NULL: not cached */
};

enum stack_state { STACK_OPENING, STACK_OPEN, STACK_CLOSING };

struct stack {
	enum stack_state state;
	struct layer top;
	struct stack *below;
	dev_t device;
	ino_t inode;
	uint64_t base_offset;
	unsigned users;
	unsigned depth;
	struct layer *layers; /* top first */

	GMutex lock;
	GHashTable *directories; /* uint64_t index -> struct directory */
};

static GMutex stacks_lock;
static GCond stacks_changed; /* a state, or a node is gone */
static GPtrArray *stacks;

static void directory_free(void *data)
{
	struct directory *directory = data;

	for (unsigned i = 0; i < DIRECTORY_REGIONS; i++)
		if (!(directory->regions[i] & 1))
			g_free((void *)directory->regions[i]);
	g_free(directory);
}

static struct stack *find_locked(const struct chain_link *link, const struct stack *below)
{
	for (guint i = 0; stacks && i < stacks->len; i++) {
		struct stack *stack = stacks->pdata[i];

		if (stack->device == link->device && stack->inode == link->inode &&
		    stack->base_offset == link->base_offset && stack->below == below)
			return stack;
	}
	return NULL;
}

static bool open_layer(struct layer *layer, const struct chain_link *link, struct cache *cache, GError **error)
{
	struct cache_layer_key key;

	layer->image = chain_link_open(link, 0, error);
	layer->cached = NULL;
	if (layer->image && cache && layer_key_of(link, layer->image, &key))
		layer->cached = cache_layer_open(cache, &key, false);
	return layer->image;
}

static struct stack *stack_new_locked(const struct chain_link *link, struct stack *below)
{
	struct stack *stack = g_new0(struct stack, 1);

	*stack = (struct stack){
		.state = STACK_OPENING,
		.below = below,
		.device = link->device,
		.inode = link->inode,
		.base_offset = link->base_offset,
		.depth = below ? below->depth + 1 : 1,
	};
	stack->layers = g_new0(struct layer, stack->depth);
	for (unsigned i = 1; i < stack->depth; i++)
		stack->layers[i] = below->layers[i - 1];
	g_mutex_init(&stack->lock);
	stack->directories = g_hash_table_new_full(g_int64_hash, g_int64_equal, NULL, directory_free);
	if (!stacks)
		stacks = g_ptr_array_new();
	g_ptr_array_add(stacks, stack);
	return stack;
}

static void stack_free_locked(struct stack *stack)
{
	g_ptr_array_remove_fast(stacks, stack);
	g_cond_broadcast(&stacks_changed);
	g_hash_table_destroy(stack->directories);
	g_mutex_clear(&stack->lock);
	g_free(stack->layers);
	g_free(stack);
}

static void put_relock(struct stack *stack)
{
	while (stack && --stack->users == 0) {
		struct stack *below = stack->below;

		stack->state = STACK_CLOSING;
		g_mutex_unlock(&stacks_lock);
		cache_layer_close(stack->top.cached, 0);
		image_close(stack->top.image);
		g_mutex_lock(&stacks_lock);
		stack_free_locked(stack);
		stack = below;
	}
}

/* Opens the node of LINK on BELOW, whose user it becomes. */
static struct stack *open_relock(const struct chain_link *link, struct stack *below, struct cache *cache,
				 GError **error)
{
	struct stack *stack = stack_new_locked(link, below);
	struct layer top;
	bool good;

	g_mutex_unlock(&stacks_lock);
	good = open_layer(&top, link, cache, error);
	g_mutex_lock(&stacks_lock);
	if (!good) {
		stack_free_locked(stack);
		return NULL;
	}
	stack->top = stack->layers[0] = top;
	stack->users = 1;
	stack->state = STACK_OPEN;
	g_cond_broadcast(&stacks_changed);
	return stack;
}

/* The caller's use of BELOW becomes the node's, or is given back. */
static struct stack *get_relock(const struct chain_link *link, struct stack *below, struct cache *cache, GError **error)
{
	struct stack *stack;

	while ((stack = find_locked(link, below)) && stack->state != STACK_OPEN)
		g_cond_wait(&stacks_changed, &stacks_lock);
	if (stack) {
		stack->users++;
		put_relock(below); /* it has its own */
		return stack;
	}
	stack = open_relock(link, below, cache, error);
	if (!stack)
		put_relock(below);
	return stack;
}

struct stack *stack_get(const GPtrArray *links, guint first, struct cache *cache, GError **error)
{
	struct stack *stack = NULL;
	bool good = true;

	thread_assert_may_wait();
	g_mutex_lock(&stacks_lock);
	for (guint i = links->len; good && i-- > first;) {
		stack = get_relock(links->pdata[i], stack, cache, error);
		good = stack;
	}
	g_mutex_unlock(&stacks_lock);
	return stack;
}

void stack_put(struct stack *stack)
{
	thread_assert_may_wait();
	g_mutex_lock(&stacks_lock);
	put_relock(stack);
	g_mutex_unlock(&stacks_lock);
}

unsigned stack_depth(const struct stack *stack)
{
	return stack ? stack->depth : 0;
}

struct image *stack_layer(const struct stack *stack, unsigned layer)
{
	return stack->layers[layer].image;
}

struct cache_layer *stack_cached(const struct stack *stack, unsigned layer)
{
	return stack->layers[layer].cached;
}

uint64_t stack_size_bytes(const struct stack *stack)
{
	return stack ? stack->top.image->size_bytes : 0;
}

/* Fills what is open in OWNERS with LAYER where it has data or zeros; returns
 * how many blocks are open after it. Past its end a layer is zero: what is
 * longer below it does not show through. */
static unsigned ask_layer(struct stack *stack, unsigned layer, uint64_t first, uint8_t *owners, uint8_t *open)
{
	uint64_t blocks = blocks_of(stack->layers[layer].image->size_bytes);
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
		extent = image_extent(stack->layers[layer].image, first + block, end_of_layer - block);
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
	g_mutex_lock(&stack->lock);
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
	g_mutex_unlock(&stack->lock);
	*run = length;
	return layer;
}
