/* The index: an array with an entry for each slot, and hash chains through it.
 *
 * Both arrays are anonymous memory, so all of it begins as zeros, and an entry
 * or bucket of zeros is an empty one: links are slot numbers plus 1.
 *
 * Invariants:
 * 1. A slot is in the chain of its key's bucket if and only if it is LIVE.
 * 2. No two LIVE slots have the same key.
 * 3. Slots from `used` on are empty.
 * 4. regions[r] is the number of LIVE slots whose region hashes to r; a zero
 *    there says that none of the region's blocks is present. */
#include "index.h"

#include <errno.h>
#include <sys/mman.h>

#include "core/error.h"
#include "core/memory.h"
#include "format/cache.h"

/* A region is as many blocks as one counter stands for. */
#define REGION_SHIFT 8
#define SLOTS_PER_BUCKET 2
#define SLOTS_PER_REGION 64
/* Beyond this share of the slots a walk over all of them is shorter. */
#define WALK_SHARE 8
/* Looked at in one piece of a walk; some 100 us. */
#define WALK_SLOTS 65536

struct slot {
	uint32_t next; /* in the chain: slot + 1, 0 at its end */
	uint32_t checksum;
	uint32_t block_low;
	uint32_t order_low;
	uint32_t block_high : 19;
	uint32_t order_high : 13;
	uint32_t layer : 24;
	uint32_t flags : 8;
};
_Static_assert(sizeof(struct slot) == 24, "24 bytes for each slot");
_Static_assert(CACHE_LAYER_MAX < 1u << 24, "a layer's id has 24 bits");
_Static_assert(CACHE_BLOCK_END <= UINT64_C(1) << (32 + 19), "a block has 51 bits");
_Static_assert(CACHE_ORDER_END <= UINT64_C(1) << (32 + 13), "an order has 45 bits");

struct index {
	struct slot *slots;
	uint32_t *buckets; /* slot + 1, 0: empty */
	uint32_t *regions;
	uint64_t slot_count;
	uint64_t bucket_count;
	uint64_t region_count;
	uint64_t used;
	struct list walks;
};

/* ---- Memory -------------------------------------------------------------- */

static bool map_chains(struct index *index, uint64_t slots)
{
	index->bucket_count = (slots + SLOTS_PER_BUCKET - 1) / SLOTS_PER_BUCKET;
	index->region_count = (slots + SLOTS_PER_REGION - 1) / SLOTS_PER_REGION;
	index->buckets = memory_map(index->bucket_count * sizeof(*index->buckets));
	index->regions = memory_map(index->region_count * sizeof(*index->regions));
	return index->buckets && index->regions;
}

static void unmap_chains(struct index *index)
{
	memory_unmap(index->buckets, index->bucket_count * sizeof(*index->buckets));
	memory_unmap(index->regions, index->region_count * sizeof(*index->regions));
}

uint64_t index_memory_bytes(const struct index *index)
{
	return index->slot_count * sizeof(*index->slots) + index->bucket_count * sizeof(*index->buckets) +
	       index->region_count * sizeof(*index->regions);
}

struct index *index_new(uint64_t slots, GError **error)
{
	struct index *index = g_new0(struct index, 1);

	list_init(&index->walks);
	index->slot_count = slots;
	index->slots = memory_map(slots * sizeof(*index->slots));
	if (index->slots && map_chains(index, slots))
		return index;
	error_set_errno(error, errno, "no memory for an index of %" G_GUINT64_FORMAT " blocks", slots);
	index_free(index);
	return NULL;
}

void index_free(struct index *index)
{
	if (!index)
		return;
	unmap_chains(index);
	memory_unmap(index->slots, index->slot_count * sizeof(*index->slots));
	g_free(index);
}

/* ---- Chains -------------------------------------------------------------- */

static uint64_t block_of(const struct slot *slot)
{
	return (uint64_t)slot->block_high << 32 | slot->block_low;
}

static bool is_live(const struct slot *slot)
{
	return slot->flags & INDEX_LIVE;
}

static bool has_key(const struct slot *slot, uint32_t layer, uint64_t block)
{
	return slot->layer == layer && block_of(slot) == block;
}

/* The finaliser of MurmurHash3 by Austin Appleby. */
static uint64_t mix(uint64_t value)
{
	value ^= value >> 33;
	value *= UINT64_C(0xff51afd7ed558ccd);
	value ^= value >> 33;
	value *= UINT64_C(0xc4ceb9fe1a85ec53);
	return value ^ value >> 33;
}

/* In [0, COUNT), evenly, of the upper half of the mixed key. */
static uint64_t place_of(uint32_t layer, uint64_t number, uint64_t count)
{
	return (mix(number + ((uint64_t)layer << 40) * 3) >> 32) * count >> 32;
}

static uint32_t *bucket_of(const struct index *index, uint32_t layer, uint64_t block)
{
	return &index->buckets[place_of(layer, block, index->bucket_count)];
}

static uint32_t *region_of(const struct index *index, uint32_t layer, uint64_t block)
{
	return &index->regions[place_of(layer, block >> REGION_SHIFT, index->region_count)];
}

static void chain(struct index *index, uint32_t number)
{
	struct slot *slot = &index->slots[number];
	uint32_t *bucket = bucket_of(index, slot->layer, block_of(slot));

	slot->next = *bucket;
	*bucket = number + 1;
	++*region_of(index, slot->layer, block_of(slot));
}

/* The link that leads to the block's LIVE slot, or that is 0. */
static uint32_t *find_link(const struct index *index, uint32_t layer, uint64_t block)
{
	uint32_t *link = bucket_of(index, layer, block);

	while (*link && !has_key(&index->slots[*link - 1], layer, block))
		link = &index->slots[*link - 1].next;
	return link;
}

uint32_t index_find(const struct index *index, uint32_t layer, uint64_t block)
{
	/* The difference of 0, no slot, is INDEX_NO_SLOT. */
	return *find_link(index, layer, block) - 1;
}

uint32_t index_remove(struct index *index, uint32_t layer, uint64_t block)
{
	uint32_t *link = find_link(index, layer, block);
	uint32_t number = *link - 1;
	struct slot *slot;

	if (number == INDEX_NO_SLOT)
		return number;
	slot = &index->slots[number];
	*link = slot->next;
	slot->next = 0;
	slot->flags &= (unsigned)~INDEX_LIVE & 0xff;
	--*region_of(index, layer, block);
	return number;
}

static void note(struct index_walk *walk, const struct slot *slot)
{
	uint64_t gap = block_of(slot) - walk->block;

	if (slot->layer == walk->layer && is_live(slot) && gap < walk->gap)
		walk->gap = gap;
}

static void tell_walks(struct index *index, const struct slot *slot)
{
	list_foreach(link, &index->walks)
	{
		note(container_of(link, struct index_walk, link), slot);
	}
}

static void fill(struct index *index, uint32_t number, const struct index_entry *entry, unsigned flags)
{
	index->slots[number] = (struct slot){
		.checksum = entry->checksum,
		.block_low = (uint32_t)entry->block,
		.block_high = (uint32_t)(entry->block >> 32) & ((1u << 19) - 1),
		.order_low = (uint32_t)entry->order,
		.order_high = (uint32_t)(entry->order >> 32) & ((1u << 13) - 1),
		.layer = entry->layer & CACHE_LAYER_MAX,
		.flags = (entry->flags | flags | INDEX_DATA) & 0xff,
	};
	index->used = MAX(index->used, (uint64_t)number + 1);
}

void index_insert_superseded(struct index *index, uint32_t number, const struct index_entry *entry)
{
	fill(index, number, entry, 0);
}

uint32_t index_insert(struct index *index, uint32_t number, const struct index_entry *entry)
{
	uint32_t superseded = index_remove(index, entry->layer, entry->block);

	fill(index, number, entry, INDEX_LIVE);
	chain(index, number);
	tell_walks(index, &index->slots[number]);
	return superseded;
}

bool index_grow(struct index *index, uint64_t slots, GError **error)
{
	struct index old = *index;
	struct slot *grown = NULL;

	if (slots <= index->slot_count)
		return true;
	if (map_chains(index, slots))
		grown = mremap(old.slots, old.slot_count * sizeof(*grown), slots * sizeof(*grown), MREMAP_MAYMOVE);
	if (!grown || grown == MAP_FAILED) {
		error_set_errno(error, errno, "no memory for an index of %" G_GUINT64_FORMAT " blocks", slots);
		unmap_chains(index);
		*index = old;
		return false;
	}
	unmap_chains(&old);
	index->slots = grown;
	index->slot_count = slots;
	for (uint64_t i = 0; i < index->used; i++)
		if (is_live(&grown[i]))
			chain(index, (uint32_t)i);
	return true;
}

/* ---- Ranges -------------------------------------------------------------- */

/* Blocks from BLOCK to the end of its region, at most LIMIT. */
static uint64_t left_in_region(uint64_t block, uint64_t limit)
{
	return MIN(limit, (UINT64_C(1) << REGION_SHIFT) - (block & ((1u << REGION_SHIFT) - 1)));
}

struct visit {
	void (*each)(void *opaque, uint32_t slot); /* which may remove that one */
	void *opaque;
};

static void visit_by_walk(const struct index *index, uint32_t layer, uint64_t block, uint64_t blocks,
			  const struct visit *visit)
{
	for (uint64_t i = 0; i < index->used; i++) {
		const struct slot *slot = &index->slots[i];

		if (slot->layer == layer && is_live(slot) && block_of(slot) - block < blocks)
			visit->each(visit->opaque, (uint32_t)i);
	}
}

static void visit_by_region(const struct index *index, uint32_t layer, uint64_t block, uint64_t blocks,
			    const struct visit *visit)
{
	for (uint64_t end = block + blocks, next; block < end; block = next) {
		next = block + left_in_region(block, end - block);
		for (; block < next && *region_of(index, layer, block); block++) {
			uint32_t number = index_find(index, layer, block);

			if (number != INDEX_NO_SLOT)
				visit->each(visit->opaque, number);
		}
	}
}

static void visit_range(const struct index *index, uint32_t layer, uint64_t block, uint64_t blocks,
			const struct visit *visit)
{
	if (blocks > index->used / WALK_SHARE)
		visit_by_walk(index, layer, block, blocks, visit);
	else
		visit_by_region(index, layer, block, blocks, visit);
}

struct removal {
	struct index *index;
	void (*removed)(void *opaque, uint32_t slot, const struct index_entry *entry);
	void *opaque;
};

static void remove_and_tell(void *opaque, uint32_t number)
{
	struct removal *removal = opaque;
	struct index_entry entry;

	index_get(removal->index, number, &entry);
	index_remove(removal->index, entry.layer, entry.block);
	removal->removed(removal->opaque, number, &entry);
}

void index_remove_range(struct index *index, uint32_t layer, uint64_t block, uint64_t blocks,
			void (*removed)(void *opaque, uint32_t slot, const struct index_entry *entry), void *opaque)
{
	struct removal removal = {index, removed, opaque};
	struct visit visit = {remove_and_tell, &removal};

	visit_range(index, layer, block, blocks, &visit);
}

struct listing {
	const struct index *index;
	GArray *blocks;
};

static void list_block(void *opaque, uint32_t number)
{
	const struct listing *listing = opaque;
	uint64_t block = block_of(&listing->index->slots[number]);

	g_array_append_val(listing->blocks, block);
}

static int compare_blocks(const void *left, const void *right)
{
	uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;

	return a < b ? -1 : a > b;
}

GArray *index_list(const struct index *index, uint32_t layer, uint64_t block, uint64_t blocks)
{
	struct listing listing = {index, g_array_new(FALSE, FALSE, sizeof(uint64_t))};
	struct visit visit = {list_block, &listing};

	visit_range(index, layer, block, blocks, &visit);
	g_array_sort(listing.blocks, compare_blocks);
	return listing.blocks;
}

uint64_t index_run(const struct index *index, uint32_t number, uint32_t layer, uint64_t block, uint64_t limit)
{
	uint64_t run = 1;

	limit = MIN(limit, CACHE_SEGMENT_BLOCKS - number % CACHE_SEGMENT_BLOCKS);
	while (run < limit && is_live(&index->slots[number + run]) &&
	       has_key(&index->slots[number + run], layer, block + run))
		run++;
	return MIN(run, limit);
}

static uint64_t gap_by_walk(const struct index *index, uint32_t layer, uint64_t block, uint64_t limit)
{
	struct index_walk walk = {.layer = layer, .block = block, .gap = limit};

	while (!index_walk_on(index, &walk))
		;
	return walk.gap;
}

void index_walk_begin(struct index *index, struct index_walk *walk, uint32_t layer, uint64_t block, uint64_t limit)
{
	*walk = (struct index_walk){.layer = layer, .block = block, .gap = limit};
	list_append(&index->walks, &walk->link);
}

bool index_walk_on(const struct index *index, struct index_walk *walk)
{
	uint64_t end = MIN(index->used, walk->next + WALK_SLOTS);

	for (; walk->next < end; walk->next++)
		note(walk, &index->slots[walk->next]);
	return walk->next == index->used;
}

void index_walk_end(struct index_walk *walk)
{
	list_remove(&walk->link);
}

uint64_t index_gap(const struct index *index, uint32_t layer, uint64_t block, uint64_t limit)
{
	uint64_t gap = 0;

	if (limit > MAX(index->used / WALK_SHARE, CACHE_SEGMENT_BLOCKS))
		return gap_by_walk(index, layer, block, limit);
	while (gap < limit) {
		if (!*region_of(index, layer, block + gap))
			gap += left_in_region(block + gap, limit - gap);
		else if (index_find(index, layer, block + gap) == INDEX_NO_SLOT)
			gap++;
		else
			break;
	}
	return gap;
}

/* ---- One slot ------------------------------------------------------------ */

void index_get(const struct index *index, uint32_t number, struct index_entry *entry)
{
	const struct slot *slot = &index->slots[number];

	*entry = (struct index_entry){
		.layer = slot->layer,
		.block = block_of(slot),
		.flags = slot->flags,
		.checksum = slot->checksum,
		.order = (uint64_t)slot->order_high << 32 | slot->order_low,
	};
}

void index_set_flags(struct index *index, uint32_t number, unsigned set, unsigned clear)
{
	struct slot *slot = &index->slots[number];

	slot->flags = ((slot->flags & ~clear) | set) & 0xff;
}

void index_set_checksum(struct index *index, uint32_t number, uint32_t checksum)
{
	index->slots[number].checksum = checksum;
}

void index_clear(struct index *index, uint32_t number)
{
	struct slot *slot = &index->slots[number];

	if (is_live(slot))
		index_remove(index, slot->layer, block_of(slot));
	*slot = (struct slot){0};
}
