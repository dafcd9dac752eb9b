/* The cache's index against a hash table. */
#include <glib.h>
#include <string.h>

#include "cache/index/index.h"
#include "format/cache.h"

#define SEGMENT CACHE_SEGMENT_BLOCKS
#define SLOTS (8 * SEGMENT)
#define LAYERS 3
#define BLOCKS 1500
/* Blocks of layer N begin here, so that both halves of a number are used. */
#define BASE(layer) ((uint64_t)(layer)*0x1ffffff00)

/* What each slot holds, and the LIVE slot of each block, plus 1. */
struct model {
	struct index *index;
	uint32_t slots;
	struct index_entry entries[2 * SLOTS];
	uint32_t live[LAYERS + 1][BLOCKS];
	unsigned removed;
};

static uint32_t random_below(uint32_t limit)
{
	return (uint32_t)g_test_rand_int_range(0, (gint32)limit);
}

static void model_remove(struct model *model, uint32_t layer, uint32_t block)
{
	uint32_t *live = &model->live[layer][block];

	if (*live)
		model->entries[*live - 1].flags &= (unsigned)~INDEX_LIVE;
	*live = 0;
}

static struct model *model_new(void)
{
	struct model *model = g_new0(struct model, 1);
	g_autoptr(GError) error = NULL;

	model->slots = SLOTS;
	model->index = index_new(SLOTS, &error);
	g_assert_no_error(error);
	return model;
}

static void model_free(struct model *model)
{
	index_free(model->index);
	g_free(model);
}

static void assert_slot(const struct model *model, uint32_t slot)
{
	const struct index_entry *expected = &model->entries[slot];
	struct index_entry found;

	index_get(model->index, slot, &found);
	g_assert_cmpuint(found.flags, ==, expected->flags);
	if (!(expected->flags & INDEX_DATA))
		return;
	g_assert_cmpuint(found.layer, ==, expected->layer);
	g_assert_cmpuint(found.block, ==, expected->block);
	g_assert_cmphex(found.checksum, ==, expected->checksum);
	g_assert_cmphex(found.order, ==, expected->order);
}

static void assert_gap(const struct model *model, uint32_t layer, uint32_t block)
{
	uint32_t limit = 1 + random_below(BLOCKS - block), gap = 0;

	while (gap < limit && !model->live[layer][block + gap])
		gap++;
	g_assert_cmpuint(index_gap(model->index, layer, BASE(layer) + block, limit), ==, gap);
}

static void assert_list(const struct model *model, uint32_t layer, uint64_t first, uint64_t blocks)
{
	g_autoptr(GArray) list = index_list(model->index, layer, first, blocks);
	guint at = 0;

	for (uint32_t block = 0; block < BLOCKS; block++) {
		if (!model->live[layer][block] || BASE(layer) + block - first >= blocks)
			continue;
		g_assert_cmpuint(at, <, list->len);
		g_assert_cmpuint(g_array_index(list, uint64_t, at++), ==, BASE(layer) + block);
	}
	g_assert_cmpuint(at, ==, list->len);
}

static bool continues(const struct model *model, uint32_t slot, uint32_t run)
{
	const struct index_entry *first = &model->entries[slot], *next = &model->entries[slot + run];

	return (next->flags & INDEX_LIVE) && next->layer == first->layer && next->block == first->block + run;
}

static void assert_run(const struct model *model, uint32_t slot)
{
	const struct index_entry *entry = &model->entries[slot];
	uint32_t limit = 1 + random_below(100), run = 1;

	while (run < limit && (slot + run) % SEGMENT && continues(model, slot, run))
		run++;
	g_assert_cmpuint(index_run(model->index, slot, entry->layer, entry->block, limit), ==, run);
}

static void assert_equal(const struct model *model)
{
	for (uint32_t layer = 1; layer <= LAYERS; layer++) {
		uint32_t first = random_below(BLOCKS);

		assert_list(model, layer, BASE(layer) + first, 1 + random_below(BLOCKS - first));
		for (uint32_t block = 0; block < BLOCKS; block++) {
			uint32_t live = model->live[layer][block];

			g_assert_cmpuint(index_find(model->index, layer, BASE(layer) + block), ==,
					 live ? live - 1 : INDEX_NO_SLOT);
			assert_gap(model, layer, block);
			if (live)
				assert_run(model, live - 1);
		}
	}
	for (uint32_t slot = 0; slot < model->slots; slot++)
		assert_slot(model, slot);
}

static void do_insert(struct model *model, uint32_t slot, uint32_t layer, uint32_t block)
{
	uint32_t live = model->live[layer][block];
	struct index_entry entry = {
		.layer = layer,
		.block = BASE(layer) + block,
		.flags = random_below(2) ? INDEX_PINNED : 0,
		.checksum = (uint32_t)g_test_rand_int(),
		.order = ((uint64_t)g_test_rand_int() << 20) % CACHE_ORDER_END,
	};

	if (model->entries[slot].flags & INDEX_DATA)
		return;
	g_assert_cmpuint(index_insert(model->index, slot, &entry), ==, live ? live - 1 : INDEX_NO_SLOT);
	model_remove(model, layer, block);
	entry.flags |= INDEX_LIVE | INDEX_DATA;
	model->entries[slot] = entry;
	model->live[layer][block] = slot + 1;
}

/* Blocks and slots in sequence, as a record has them. */
static void do_insert_run(struct model *model)
{
	uint32_t slot = random_below(model->slots), layer = 1 + random_below(LAYERS), block = random_below(BLOCKS);
	uint32_t count = 1 + random_below(40);

	for (uint32_t i = 0; i < count && slot + i < model->slots && block + i < BLOCKS; i++)
		do_insert(model, slot + i, layer, block + i);
}

static void do_clear_run(struct model *model)
{
	uint32_t slot = random_below(model->slots), count = 1 + random_below(100);

	for (uint32_t i = slot; i < slot + count && i < model->slots; i++) {
		struct index_entry *entry = &model->entries[i];

		index_clear(model->index, i);
		if (entry->flags & INDEX_LIVE)
			model->live[entry->layer][entry->block - BASE(entry->layer)] = 0;
		*entry = (struct index_entry){0};
	}
}

static void do_remove(struct model *model)
{
	uint32_t layer = 1 + random_below(LAYERS), block = random_below(BLOCKS), live = model->live[layer][block];

	g_assert_cmpuint(index_remove(model->index, layer, BASE(layer) + block), ==, live ? live - 1 : INDEX_NO_SLOT);
	model_remove(model, layer, block);
}

static void removed_cb(void *opaque, uint32_t slot, const struct index_entry *entry)
{
	struct model *model = opaque;
	uint32_t block = (uint32_t)(entry->block - BASE(entry->layer));

	g_assert_true(entry->flags & INDEX_LIVE);
	g_assert_cmpuint(model->live[entry->layer][block], ==, slot + 1);
	model_remove(model, entry->layer, block);
	model->removed++;
}

static void do_remove_range(struct model *model, uint32_t layer, uint32_t first, uint32_t count, uint64_t blocks)
{
	unsigned expected = 0;

	for (uint32_t i = first; i < first + count; i++)
		expected += model->live[layer][i] != 0;
	model->removed = 0;
	index_remove_range(model->index, layer, BASE(layer) + first, blocks, removed_cb, model);
	g_assert_cmpuint(model->removed, ==, expected);
}

static void do_remove_some(struct model *model)
{
	uint32_t layer = 1 + random_below(LAYERS), first = random_below(BLOCKS);
	uint32_t count = 1 + random_below((BLOCKS - first) / (1 + random_below(20)) + 1);

	count = MIN(count, BLOCKS - first);
	if (random_below(10) == 0)
		do_remove_range(model, layer, first, BLOCKS - first, UINT64_C(1) << 30);
	else
		do_remove_range(model, layer, first, count, count);
}

static void do_flags(struct model *model)
{
	uint32_t slot = random_below(model->slots);

	if (!(model->entries[slot].flags & INDEX_DATA))
		return;
	index_set_flags(model->index, slot, INDEX_HOT, INDEX_PINNED);
	model->entries[slot].flags = (model->entries[slot].flags | INDEX_HOT) & (unsigned)~INDEX_PINNED;
}

static void do_grow(struct model *model)
{
	g_autoptr(GError) error = NULL;

	model->slots = 2 * SLOTS;
	g_assert_true(index_grow(model->index, model->slots, &error));
	g_assert_no_error(error);
}

static void do_something(struct model *model)
{
	uint32_t what = random_below(100);

	if (what < 50)
		do_insert_run(model);
	else if (what < 75)
		do_clear_run(model);
	else if (what < 85)
		do_remove(model);
	else if (what < 90)
		do_remove_some(model);
	else
		do_flags(model);
}

static void test_random(void)
{
	struct model *model = model_new();

	for (int i = 0; i < 20000; i++) {
		do_something(model);
		if (i % 500 == 0)
			assert_equal(model);
		if (i == 10000)
			do_grow(model);
	}
	assert_equal(model);
	model_free(model);
}

/* Every slot LIVE: chains of full length, and all of them found. */
static void test_full(void)
{
	uint64_t slots = 64 * SEGMENT;
	g_autoptr(GError) error = NULL;
	struct index *index = index_new(slots, &error);

	g_assert_no_error(error);
	for (uint32_t slot = 0; slot < slots; slot++) {
		struct index_entry entry = {
			.layer = CACHE_LAYER_MAX,
			.block = CACHE_BLOCK_END - 1 - slot * 7,
			.checksum = slot,
			.order = CACHE_ORDER_END - 1 - slot,
		};

		g_assert_cmpuint(index_insert(index, slot, &entry), ==, INDEX_NO_SLOT);
	}
	for (uint32_t slot = 0; slot < slots; slot++)
		g_assert_cmpuint(index_find(index, CACHE_LAYER_MAX, CACHE_BLOCK_END - 1 - slot * 7), ==, slot);
	g_assert_cmpuint(index_find(index, CACHE_LAYER_MAX, 0), ==, INDEX_NO_SLOT);
	g_assert_cmpuint(index_find(index, 1, CACHE_BLOCK_END - 1), ==, INDEX_NO_SLOT);
	index_free(index);
}

static void test_memory(void)
{
	uint64_t slots = (UINT64_C(20) << 30) / BLOCK_SIZE;
	g_autoptr(GError) error = NULL;
	struct index *index = index_new(slots, &error);

	g_assert_no_error(error);
	g_assert_cmpuint(index_memory_bytes(index), <=, 28 * slots);
	g_assert_true(index_grow(index, 2 * slots, &error));
	g_assert_cmpuint(index_memory_bytes(index), <=, 28 * 2 * slots);
	index_free(index);
	index_free(NULL);
}

/* The largest ring that the format allows either fits or is refused. */
static void test_largest(void)
{
	g_autoptr(GError) error = NULL;
	struct index *index = index_new(CACHE_SEGMENTS_MAX * SEGMENT, &error);

	if (!index)
		g_assert_nonnull(strstr(error->message, "no memory"));
	index_free(index);
}

/* Ranges far longer than the index take no longer than a walk over it. */
static void test_long_ranges(void)
{
	struct model *model = model_new();

	for (unsigned i = 0; i < 2000; i++) {
		do_insert(model, i % SLOTS, 1, i % BLOCKS);
		g_assert_cmpuint(index_gap(model->index, 2, 0, UINT64_C(1) << 50), ==, UINT64_C(1) << 50);
		g_assert_cmpuint(index_gap(model->index, 1, 0, UINT64_C(1) << 50), ==, BASE(1) + i % BLOCKS);
		assert_list(model, 1, 0, UINT64_C(1) << 50);
		assert_list(model, 2, 0, UINT64_C(1) << 50);
		do_remove_range(model, 1, 0, BLOCKS, UINT64_C(1) << 50);
	}
	model_free(model);
}

#define WALK_SLOTS (4 * 65536)

static void insert(struct index *index, uint32_t slot, uint64_t block)
{
	index_insert(index, slot, &(struct index_entry){.layer = 1, .block = block});
}

/* What moves behind the walk while the lock is let go is not missed. */
static void test_walk(void)
{
	g_autoptr(GError) error = NULL;
	struct index *index = index_new(WALK_SLOTS, &error);
	uint64_t far = UINT64_C(1) << 50, limit = CACHE_BLOCK_END - 2;
	struct index_walk walk, other;

	g_assert_no_error(error);
	insert(index, WALK_SLOTS - 2, far);
	insert(index, WALK_SLOTS - 1, far + 7);
	index_walk_begin(index, &walk, 1, 0, limit);
	index_walk_begin(index, &other, 2, 0, limit);
	g_assert_false(index_walk_on(index, &walk));
	g_assert_cmpuint(walk.gap, ==, limit);
	insert(index, 3, far);
	index_clear(index, WALK_SLOTS - 2);
	insert(index, 4, limit + 1);
	while (!index_walk_on(index, &walk))
		;
	while (!index_walk_on(index, &other))
		;
	index_walk_end(&walk);
	index_walk_end(&other);
	g_assert_cmpuint(walk.gap, ==, far);
	g_assert_cmpuint(other.gap, ==, limit);
	insert(index, 5, 1);
	g_assert_cmpuint(walk.gap, ==, far);
	g_assert_cmpuint(index_gap(index, 1, 2, limit), ==, far - 2);
	index_free(index);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/cache-index/random", test_random);
	g_test_add_func("/cache-index/full", test_full);
	g_test_add_func("/cache-index/memory", test_memory);
	g_test_add_func("/cache-index/largest", test_largest);
	g_test_add_func("/cache-index/long-ranges", test_long_ranges);
	g_test_add_func("/cache-index/walk", test_walk);
	return g_test_run();
}
