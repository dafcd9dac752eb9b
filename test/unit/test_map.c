/* Merged maps of real images, and what two stacks share. */
#include "layer/map.h"

#include <pthread.h>

#include "core/counters.h"
#include "leaf_fixture.h"

#define REGION UINT64_C(256) /* blocks */
#define BLOCKS (4 * REGION)
#define SIZE (BLOCKS << BLOCK_SHIFT)
#define LAYERS 6

static struct chain_roots *roots;

/* ---- Images --------------------------------------------------------------- */

/* An image on PARENT, or on none. */
static char *new_layer(const char *parent, uint64_t size)
{
	static unsigned number;
	char *path = g_strdup_printf("%s/layer%u.leaf", directory, number++);
	struct image_create_options options = {.size_bytes = size, .chunk_bytes = CHUNK};
	g_autofree char *name = parent ? g_path_get_basename(parent) : NULL;
	struct image_parent reference = {0};
	g_autoptr(GError) error = NULL;
	struct image_info info;

	if (parent) {
		g_assert_true(image_read_info(parent, IMAGE_FORMAT_LEAF, &info, &error));
		reference = (struct image_parent){.format = info.format,
						  .path = name,
						  .size_bytes = info.size_bytes,
						  .generation = info.generation};
		memcpy(reference.uuid, info.uuid, sizeof(info.uuid));
		image_info_clear(&info);
		options.parent = &reference;
	}
	g_assert_true(image_create(path, IMAGE_FORMAT_LEAF, &options, &error));
	return path;
}

/* One more writer than there should be is refused. */
static bool is_in_use(const char *path)
{
	struct image *image = image_open(path, IMAGE_FORMAT_LEAF, IMAGE_WRITABLE | IMAGE_BEGIN_LATER, 0, NULL);

	if (image)
		g_assert_cmpint(image_close(image), ==, 0);
	return !image;
}

static void set_blocks(const char *path, bool data, uint64_t block, uint64_t blocks)
{
	struct image *image = open_leaf(path, IMAGE_WRITABLE);
	uint8_t *buffer = new_buffer(blocks << BLOCK_SHIFT);

	memset(buffer, 1, blocks << BLOCK_SHIFT);
	if (data)
		g_assert_cmpint(transfer(image, true, block, blocks, buffer), ==, 0);
	else
		g_assert_cmpint(run_op(image, image_zero, block, blocks), ==, 0);
	g_assert_cmpint(image_close(image), ==, 0);
	free(buffer);
}

static GPtrArray *links_of(const char *path)
{
	GPtrArray *links = chain_links_new();
	g_autoptr(GError) error = NULL;

	if (!chain_resolve(path, IMAGE_FORMAT_LEAF, roots, NULL, links, &error))
		g_error("%s", error->message);
	return links;
}

static struct stack *get(const char *path)
{
	g_autoptr(GPtrArray) links = links_of(path);
	g_autoptr(GError) error = NULL;
	struct stack *stack = stack_get(links, 0, NULL, false, &error);

	g_assert_no_error(error);
	g_assert_cmpuint(stack_depth(stack), ==, links->len);
	return stack;
}

static void assert_run(struct stack *stack, uint64_t block, uint64_t limit, unsigned layer, uint64_t blocks)
{
	uint64_t run;

	g_assert_cmpuint(stack_lookup(stack, block, limit, &run), ==, layer);
	g_assert_cmpuint(run, ==, blocks);
}

/* ---- Maps ----------------------------------------------------------------- */

/* A run ends with its region at the latest, and is as long as that where one layer
 * has all of it. */
static void test_region_of_one_layer(void)
{
	g_autofree char *base = new_layer(NULL, SIZE), *top = NULL;
	struct stack *stack;

	set_blocks(base, true, 0, REGION);
	set_blocks(base, false, 2 * REGION, REGION);
	top = new_layer(base, SIZE);
	set_blocks(top, true, 3 * REGION, REGION);
	stack = get(top);
	assert_run(stack, 0, BLOCKS, 1, REGION);
	assert_run(stack, REGION - 1, BLOCKS, 1, 1);
	assert_run(stack, 10, 7, 1, 7);
	assert_run(stack, REGION, BLOCKS, STACK_NO_LAYER, REGION);
	assert_run(stack, 2 * REGION, BLOCKS, STACK_NO_LAYER, REGION);
	assert_run(stack, 3 * REGION + 5, BLOCKS, 0, REGION - 5);
	stack_put(stack);
}

static void test_mixed_region(void)
{
	g_autofree char *base = new_layer(NULL, SIZE), *top = NULL;
	struct stack *stack;

	set_blocks(base, true, 0, 20);
	top = new_layer(base, SIZE);
	set_blocks(top, true, 5, 5);
	set_blocks(top, false, 12, 2);
	set_blocks(top, true, 30, 1);
	stack = get(top);
	assert_run(stack, 0, BLOCKS, 1, 5);
	assert_run(stack, 4, 1, 1, 1);
	assert_run(stack, 5, BLOCKS, 0, 5);
	assert_run(stack, 10, BLOCKS, 1, 2);
	assert_run(stack, 12, BLOCKS, STACK_NO_LAYER, 2); /* zeros hide what is below */
	assert_run(stack, 14, BLOCKS, 1, 6);
	assert_run(stack, 20, BLOCKS, STACK_NO_LAYER, 10);
	assert_run(stack, 30, BLOCKS, 0, 1);
	assert_run(stack, 31, BLOCKS, STACK_NO_LAYER, REGION - 31);
	stack_put(stack);
}

/* Past its end a layer is zero, whatever is below, in the middle of a region and
 * after it, and whatever a longer one above it has. */
static void test_past_the_end(void)
{
	g_autofree char *base = new_layer(NULL, SIZE), *middle = NULL, *top = NULL;
	uint64_t end = REGION + 10;
	struct stack *stack;

	set_blocks(base, true, 0, BLOCKS);
	middle = new_layer(base, end << BLOCK_SHIFT);
	top = new_layer(middle, SIZE);
	set_blocks(top, true, end + 2, 1);
	set_blocks(top, true, 3 * REGION, 2);
	stack = get(top);
	g_assert_cmpuint(stack_size_bytes(stack), ==, SIZE);
	assert_run(stack, 0, BLOCKS, 2, REGION);
	assert_run(stack, REGION, BLOCKS, 2, 10);
	assert_run(stack, end, BLOCKS, STACK_NO_LAYER, 2);
	assert_run(stack, end + 2, BLOCKS, 0, 1);
	assert_run(stack, end + 3, BLOCKS, STACK_NO_LAYER, REGION - 13);
	assert_run(stack, 2 * REGION, BLOCKS, STACK_NO_LAYER, REGION);
	assert_run(stack, 3 * REGION, BLOCKS, 0, 2);
	assert_run(stack, 3 * REGION + 2, BLOCKS, STACK_NO_LAYER, REGION - 2);
	assert_run(stack, 100 * BLOCKS, BLOCKS, STACK_NO_LAYER, REGION); /* past them all */
	stack_put(stack);
}

enum { ABSENT, ZERO, DATA, STATES };

struct model {
	char *path;
	uint8_t states[BLOCKS];
};

static void make_random(struct model *model, const char *parent)
{
	model->path = new_layer(parent, SIZE);
	for (unsigned i = 0; i < 12; i++) {
		uint64_t block = (uint64_t)g_test_rand_int_range(0, BLOCKS);
		uint64_t blocks = (uint64_t)g_test_rand_int_range(1, i == 0 ? 600 : 40);
		uint8_t state = (uint8_t)g_test_rand_int_range(ZERO, STATES);

		blocks = MIN(blocks, BLOCKS - block);
		set_blocks(model->path, state == DATA, block, blocks);
		memset(model->states + block, state, blocks);
	}
}

/* TOP first. */
static unsigned expected_layer(const struct model *top, uint64_t block)
{
	unsigned layer = 0;

	while (layer < LAYERS && (top - layer)->states[block] == ABSENT)
		layer++;
	return layer < LAYERS && (top - layer)->states[block] == DATA ? layer : STACK_NO_LAYER;
}

static void test_random(void)
{
	struct model *models = g_new0(struct model, LAYERS);
	const struct model *top = &models[LAYERS - 1];
	struct stack *stack;

	for (unsigned i = 0; i < LAYERS; i++)
		make_random(&models[i], i ? models[i - 1].path : NULL);
	stack = get(top->path);
	for (unsigned i = 0; i < 4000; i++) {
		uint64_t block = (uint64_t)g_test_rand_int_range(0, BLOCKS);
		uint64_t limit = (uint64_t)g_test_rand_int_range(1, 400), run;
		unsigned layer = stack_lookup(stack, block, limit, &run);
		uint64_t end = MIN(block + limit, (block / REGION + 1) * REGION);

		g_assert_cmpuint(run, >=, 1);
		g_assert_cmpuint(block + run, <=, end);
		for (uint64_t j = block; j < block + run; j++)
			g_assert_cmpuint(expected_layer(top, j), ==, layer);
		if (block + run < end)
			g_assert_cmpuint(expected_layer(top, block + run), !=, layer);
	}
	stack_put(stack);
	for (unsigned i = 0; i < LAYERS; i++)
		g_free(models[i].path);
	g_free(models);
}

/* ---- Sharing -------------------------------------------------------------- */

static void test_same_stack(void)
{
	g_autofree char *base = new_layer(NULL, SIZE), *top = NULL;
	struct stack *one, *other;
	uint64_t regions;

	set_blocks(base, true, 0, 5);
	top = new_layer(base, SIZE);
	one = get(top);
	other = get(top);
	g_assert_true(one == other);
	regions = counters.map_regions;
	assert_run(one, 0, BLOCKS, 1, 5);
	assert_run(other, 3, BLOCKS, 1, 2);
	g_assert_cmpuint(counters.map_regions - regions, ==, 1);
	stack_put(one);
	assert_run(other, REGION, BLOCKS, STACK_NO_LAYER, REGION);
	g_assert_true(is_in_use(top) && is_in_use(base));
	stack_put(other);
	g_assert_false(is_in_use(top) || is_in_use(base));
}

/* Two that have the lower layers in common: these are open once, and as long as
 * either is used; the maps are two. */
static void test_shared_layers(void)
{
	g_autofree char *base = new_layer(NULL, SIZE), *middle = NULL, *left = NULL, *right = NULL;
	struct stack *a, *b, *below;

	set_blocks(base, true, 0, REGION);
	middle = new_layer(base, SIZE);
	left = new_layer(middle, SIZE);
	right = new_layer(middle, SIZE);
	set_blocks(left, true, 7, 1);
	a = get(left);
	b = get(right);
	below = get(middle);
	g_assert_true(a != b && stack_layer(a, 0) != stack_layer(b, 0));
	for (unsigned i = 1; i < 3; i++) {
		g_assert_true(stack_layer(a, i) == stack_layer(b, i));
		g_assert_true(stack_layer(a, i) == stack_layer(below, i - 1));
	}
	assert_run(a, 7, 10, 0, 1);
	assert_run(b, 7, 10, 2, 10);
	stack_put(below);
	stack_put(a);
	g_assert_false(is_in_use(left));
	g_assert_true(is_in_use(right) && is_in_use(middle) && is_in_use(base));
	assert_run(b, 0, BLOCKS, 2, REGION);
	stack_put(b);
	g_assert_false(is_in_use(right) || is_in_use(middle) || is_in_use(base));
}

/* From a layer further down on: a leaf has the stack below it. */
static void test_first(void)
{
	g_autofree char *base = new_layer(NULL, SIZE), *leaf = NULL;
	g_autoptr(GPtrArray) links = NULL;
	struct stack *stack;

	leaf = new_layer(base, SIZE);
	links = links_of(leaf);
	stack = stack_get(links, 1, NULL, false, NULL);
	g_assert_cmpuint(stack_depth(stack), ==, 1);
	g_assert_true(is_in_use(base));
	g_assert_false(is_in_use(leaf));
	stack_put(stack);
	stack_put(NULL);
	g_assert_cmpuint(stack_depth(NULL), ==, 0);
	g_assert_cmpuint(stack_size_bytes(NULL), ==, 0);
}

/* A layer that is another file by now is not opened, and those below it are let go. */
static void test_layer_that_cannot_be_opened(void)
{
	g_autofree char *base = new_layer(NULL, SIZE), *middle = NULL, *top = NULL;
	g_autoptr(GPtrArray) links = NULL;
	g_autoptr(GError) error = NULL;

	middle = new_layer(base, SIZE);
	top = new_layer(middle, SIZE);
	links = links_of(top);
	g_assert_cmpint(unlink(middle), ==, 0);
	g_assert_null(stack_get(links, 0, NULL, false, &error));
	g_assert_nonnull(error);
	g_assert_nonnull(strstr(error->message, middle));
	g_assert_false(is_in_use(top) || is_in_use(base));
}

/* ---- Threads -------------------------------------------------------------- */

#define THREADS 4
#define ROUNDS 300

/* base <- middle <- left, right; no leaf in it: each is a stack. */
static struct {
	char *paths[4];
	GPtrArray *links[4];
	bool missing; /* the last one is not to be opened */
} tree;

static void use_once(GRand *random)
{
	unsigned which = (unsigned)g_rand_int_range(random, 0, 4);
	uint64_t block = (uint64_t)g_rand_int_range(random, 0, BLOCKS), run;
	struct stack *stack = stack_get(tree.links[which], 0, NULL, false, NULL);

	g_assert_true(!stack == (tree.missing && which == 3));
	if (!stack)
		return;
	g_assert_cmpuint(stack_lookup(stack, block, 1, &run), ==, stack_depth(stack) - 1);
	if (g_rand_boolean(random))
		g_usleep(100);
	stack_put(stack);
}

static void *use(void *opaque)
{
	GRand *random = opaque;

	for (unsigned i = 0; i < ROUNDS; i++)
		use_once(random);
	g_rand_free(random);
	return NULL;
}

static void run_threads(void)
{
	pthread_t threads[THREADS];

	for (unsigned i = 0; i < THREADS; i++)
		g_assert_cmpint(
			pthread_create(&threads[i], NULL, use, g_rand_new_with_seed((guint32)g_test_rand_int())), ==,
			0);
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
}

/* All open and close at once; everybody sees whole stacks, and in the end all is closed. */
static void test_threads(void)
{
	for (unsigned i = 0; i < 4; i++) {
		tree.paths[i] = new_layer(i ? tree.paths[i == 3 ? 1 : i - 1] : NULL, SIZE);
		if (i == 0)
			set_blocks(tree.paths[0], true, 0, BLOCKS);
		tree.links[i] = links_of(tree.paths[i]);
	}
	run_threads();
	for (unsigned i = 0; i < 4; i++)
		g_assert_false(is_in_use(tree.paths[i]));
	g_assert_cmpint(unlink(tree.paths[3]), ==, 0);
	tree.missing = true;
	run_threads();
	for (unsigned i = 0; i < 4; i++) {
		g_assert_true(i == 3 || !is_in_use(tree.paths[i]));
		g_ptr_array_unref(tree.links[i]);
		g_free(tree.paths[i]);
	}
}

int main(int argc, char **argv)
{
	int result;

	g_test_init(&argc, &argv, NULL);
	directory = make_directory();
	roots = chain_roots_new(directory, NULL, NULL);
	g_test_add_func("/map/region-of-one-layer", test_region_of_one_layer);
	g_test_add_func("/map/mixed-region", test_mixed_region);
	g_test_add_func("/map/past-the-end", test_past_the_end);
	g_test_add_func("/map/random", test_random);
	g_test_add_func("/map/same-stack", test_same_stack);
	g_test_add_func("/map/shared-layers", test_shared_layers);
	g_test_add_func("/map/first", test_first);
	g_test_add_func("/map/layer-that-cannot-be-opened", test_layer_that_cannot_be_opened);
	g_test_add_func("/map/threads", test_threads);
	result = g_test_run();
	chain_roots_unref(roots);
	remove_directory();
	return result;
}
