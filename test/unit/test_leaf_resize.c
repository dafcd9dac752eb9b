/* Resizing the native layer: beside other commits, across crashes, and where
 * there is no room. The file's flushes wait here for as long as a test wants. */
#include <errno.h>
#include <sys/syscall.h>

#include "leaf_fixture.h"

#define PER_CHUNK (CHUNK / BLOCK_SIZE)
#define BLOCKS 64
#define SIZE ((uint64_t)BLOCKS * BLOCK_SIZE)
/* Ends inside a chunk, and inside a block. */
#define ODD_BLOCKS 37
#define ODD_SIZE ((ODD_BLOCKS - 1) * (uint64_t)BLOCK_SIZE + 513)

static struct {
	struct lock lock;
	struct condition changed;
	bool closed;
	unsigned waiting;
} syncs = {.lock = LOCK_INIT(LOCK_RANK_FAULTS), .changed = CONDITION_INIT};

/* In place of the C library's. */
int fdatasync(int fd)
{
	lock_take(&syncs.lock);
	syncs.waiting++;
	condition_broadcast(&syncs.changed);
	while (syncs.closed)
		lock_wait(&syncs.lock, &syncs.changed);
	syncs.waiting--;
	lock_let_go(&syncs.lock);
	return (int)syscall(SYS_fdatasync, fd);
}

static void hold_syncs(bool hold)
{
	LOCK_GUARD(&syncs.lock);
	syncs.closed = hold;
	condition_broadcast(&syncs.changed);
}

static void await_sync(void)
{
	LOCK_GUARD(&syncs.lock);
	while (!syncs.waiting)
		lock_wait(&syncs.lock, &syncs.changed);
}

static int resize(struct image *image, uint64_t size, bool bottom)
{
	struct image_op op = {.length = size, .bottom = bottom};

	return image_run_blocking(image, &op, image_resize);
}

static void write_blocks(struct image *image, uint64_t block, uint64_t blocks, uint8_t value, uint8_t *model)
{
	uint8_t *data = new_buffer(blocks << BLOCK_SHIFT);

	memset(data, value, blocks << BLOCK_SHIFT);
	g_assert_cmpint(transfer(image, true, block, blocks, data), ==, 0);
	memset(model + block, value, blocks);
	free(data);
}

static void flush(struct image *image)
{
	g_assert_cmpint(run_op(image, image_flush, 0, 0), ==, 0);
}

static void close_sound(struct image *image, const char *path, uint64_t size, const uint8_t *model)
{
	g_assert_cmpint(image_close(image), ==, 0);
	assert_sound(path);
	image = open_leaf(path, 0);
	g_assert_cmpuint(image->size_bytes, ==, size);
	assert_blocks(image, model, (unsigned)blocks_of(size));
	image_close(image);
}

struct call {
	struct image *image;
	uint64_t size; /* 0: flush */
	GThread *thread;
};

static gpointer call_thread(gpointer opaque)
{
	struct call *call = opaque;

	return GINT_TO_POINTER(call->size ? resize(call->image, call->size, true)
					  : run_op(call->image, image_flush, 0, 0));
}

static void begin(struct call *call)
{
	call->thread = g_thread_new("call", call_thread, call);
}

static void end(struct call *call)
{
	g_assert_cmpint(GPOINTER_TO_INT(g_thread_join(call->thread)), ==, 0);
}

/* A checkpoint is under way when a resize comes, and another flush. */
static void test_beside_checkpoint(gconstpointer shrinks)
{
	uint64_t size = shrinks ? SIZE / 2 : 2 * SIZE;
	g_autofree char *path = new_leaf(SIZE);
	struct image *image = open_leaf(path, IMAGE_WRITABLE);
	struct call calls[] = {{image, 0, NULL}, {image, size, NULL}, {image, 0, NULL}};
	uint8_t model[2 * BLOCKS];

	memset(model, 0xaa, sizeof(model));
	write_blocks(image, 3, 20, 1, model);
	leaf_of(image)->checkpoint_due = true;
	hold_syncs(true);
	begin(&calls[0]);
	await_sync();
	begin(&calls[1]);
	begin(&calls[2]);
	hold_syncs(false);
	for (unsigned i = 0; i < G_N_ELEMENTS(calls); i++)
		end(&calls[i]);
	g_assert_cmpuint(image->size_bytes, ==, size);
	if (!shrinks)
		write_blocks(image, BLOCKS + 5, 20, 2, model);
	flush(image);
	leaf_of(image)->checkpoint_due = true;
	write_blocks(image, 1, 1, 3, model);
	flush(image);
	close_sound(image, path, size, model);
}

/* Flushes and resizes from many threads, in any order. */
static void await_queued(struct leaf *leaf)
{
	bool queued = false;

	while (!queued) {
		g_usleep(1000);
		LOCK_GUARD(&leaf->lock);
		queued = !list_is_empty(&leaf->flushes) && !list_is_empty(&leaf->resizes);
	}
}

/* A flush and a resize wait for the same commit, behind a checkpoint that is
 * under way; the NTH write from then on finds no room. True: that was the resize's. */
static bool flush_beside(unsigned nth)
{
	g_autofree char *path = new_leaf(SIZE), *fault = g_strdup_printf("image.write:ENOSPC@%ux1", nth);
	struct image *image = open_leaf(path, IMAGE_WRITABLE);
	struct call calls[] = {{image, 0, NULL}, {image, 2 * SIZE, NULL}, {image, 0, NULL}};
	uint8_t model[2 * BLOCKS];
	int results[3];

	memset(model, 0xaa, sizeof(model));
	write_blocks(image, 3, 20, 1, model);
	flush(image);
	leaf_of(image)->checkpoint_due = true;
	hold_syncs(true);
	begin(&calls[0]);
	await_sync();
	write_blocks(image, BLOCKS - 1, 1, 2, model);
	begin(&calls[1]);
	begin(&calls[2]);
	await_queued(leaf_of(image));
	fault_arm(fault, NULL);
	hold_syncs(false);
	for (unsigned i = 0; i < G_N_ELEMENTS(calls); i++)
		results[i] = GPOINTER_TO_INT(g_thread_join(calls[i].thread));
	fault_arm("", NULL);
	if (results[0] == 0 && results[1] < 0 && !image->failed) {
		g_assert_cmpint(results[2], ==, 0);
		write_blocks(image, 1, 1, 3, model);
		flush(image);
		close_sound(image, path, SIZE, model);
		return true;
	}
	(void)image_close(image);
	return false;
}

static void test_flush_beside(void)
{
	bool met = false;

	for (unsigned nth = 1; nth < 8 && !met; nth++)
		met = flush_beside(nth);
	g_assert_true(met);
}

static gpointer flush_often(gpointer image)
{
	for (unsigned i = 0; i < 200; i++)
		flush(image);
	return NULL;
}

static void test_any_order(void)
{
	g_autofree char *path = new_leaf(SIZE);
	struct image *image = open_leaf(path, IMAGE_WRITABLE);
	GThread *threads[3];
	uint8_t model[4 * BLOCKS];
	uint64_t size = SIZE;

	memset(model, 0xaa, sizeof(model));
	for (unsigned i = 0; i < G_N_ELEMENTS(threads); i++)
		threads[i] = g_thread_new("flush", flush_often, image);
	for (unsigned i = 0; i < 60; i++) {
		uint64_t blocks = (uint64_t)g_test_rand_int_range(1, 4 * BLOCKS), old = blocks_of(size);

		size = blocks << BLOCK_SHIFT;
		g_assert_cmpint(resize(image, size, false), ==, 0);
		if (blocks > old)
			memset(model + old, 0, blocks - old);
		write_blocks(image, (uint64_t)g_test_rand_int_range(0, (gint32)blocks), 1, (uint8_t)(i + 1), model);
		assert_blocks(image, model, (unsigned)blocks);
	}
	for (unsigned i = 0; i < G_N_ELEMENTS(threads); i++)
		g_thread_join(threads[i]);
	close_sound(image, path, size, model);
}

/* What was cut off does not come back, and what is below does not show through. */
static void test_sizes(void)
{
	g_autofree char *path = new_leaf(SIZE);
	struct image *image = open_leaf(path, IMAGE_WRITABLE);
	uint8_t model[BLOCKS];

	memset(model, 0xaa, sizeof(model));
	write_blocks(image, 20, 44, 1, model);
	flush(image);
	g_assert_cmpint(resize(image, ODD_SIZE, false), ==, 0);
	g_assert_cmpint(resize(image, SIZE, false), ==, 0);
	memset(model + ODD_BLOCKS, 0, BLOCKS - ODD_BLOCKS);
	assert_blocks(image, model, ODD_BLOCKS - 1);
	for (unsigned i = ODD_BLOCKS; i < BLOCKS; i++)
		g_assert_cmpint(image_extent(image, i, 1).state, ==, EXTENT_ZERO);
	write_blocks(image, ODD_BLOCKS - 1, 1, 2, model);
	close_sound(image, path, SIZE, model);
}

#ifdef LEAFDISK_FAULTS
/* Grows to twice the size over what a parent would show, then cuts most off. */
static int act_grow(struct image *image)
{
	return resize(image, 2 * SIZE, false);
}

static int act_shrink(struct image *image)
{
	return resize(image, 5 * BLOCK_SIZE, false);
}

/* What a child does that lives is a whole session. */
static int grow_and_close(struct image *image)
{
	int result = act_grow(image);

	return image_close(image) == 0 ? result : -EIO;
}

static int shrink_and_close(struct image *image)
{
	int result = act_shrink(image);

	return image_close(image) == 0 ? result : -EIO;
}

static const struct leaf_act acts[] = {{"grow", grow_and_close, false}, {"shrink", shrink_and_close, false}};

static void prepare(struct image *image, uint8_t *model)
{
	memset(model, 0xaa, 2 * BLOCKS);
	write_blocks(image, 1, 3, 1, model);
	write_blocks(image, 40, ODD_BLOCKS - 20, 2, model);
	flush(image);
}

static void assert_before_or_after(const char *path, const uint8_t *model, uint64_t after)
{
	struct image *image;

	assert_sound(path);
	image = open_leaf(path, IMAGE_WRITABLE);
	if (image->size_bytes != SIZE)
		g_assert_cmpuint(image->size_bytes, ==, after);
	assert_blocks(image, model, (unsigned)MIN(BLOCKS, image->size_bytes / BLOCK_SIZE));
	for (uint64_t i = BLOCKS; i < image->size_bytes / BLOCK_SIZE; i++)
		g_assert_cmpint(image_extent(image, i, 1).state, ==, EXTENT_ZERO);
	g_assert_cmpint(image_close(image), ==, 0);
}

/* Dies at every write and flush of a resize. */
static void test_crash(gconstpointer act)
{
	const char *points[] = {"image.write", "image.sync", "image.punch"};
	uint64_t after = g_str_equal(act, "grow") ? 2 * SIZE : 5 * BLOCK_SIZE;

	for (unsigned p = 0; p < G_N_ELEMENTS(points); p++)
		for (unsigned n = 1, died = 1; died; n++) {
			g_autofree char *path = new_leaf(SIZE);
			g_autofree char *fault = g_strdup_printf("%s:crash@%u", points[p], n);
			struct image *image = open_leaf(path, IMAGE_WRITABLE);
			uint8_t model[2 * BLOCKS];

			prepare(image, model);
			g_assert_cmpint(image_close(image), ==, 0);
			died = die_at(path, fault, act);
			assert_before_or_after(path, model, after);
			unlink(path);
			g_assert_cmpuint(n, <, 100);
		}
}

/* A resize that finds no room changes nothing, and the disk goes on. */
static void test_no_room(gconstpointer act)
{
	const char *errors[] = {"ENOSPC", "EDQUOT", "EFBIG"};
	bool grows = g_str_equal(act, "grow");

	for (unsigned e = 0; e < G_N_ELEMENTS(errors); e++) {
		g_autofree char *path = new_leaf(SIZE);
		g_autofree char *fault = g_strdup_printf("image.write:%s@1x1", errors[e]);
		struct image *image = open_leaf(path, IMAGE_WRITABLE);
		uint8_t model[2 * BLOCKS];

		prepare(image, model);
		write_blocks(image, 10, 1, 4, model);
		fault_arm(fault, NULL);
		g_assert_cmpint((grows ? act_grow : act_shrink)(image), <, 0);
		fault_arm("image.write:ENOSPC", NULL);
		g_assert_cmpuint(image->size_bytes, ==, SIZE);
		assert_blocks(image, model, BLOCKS);
		write_blocks(image, 11, 1, 5, model);
		flush(image);
		fault_arm("", NULL);
		g_assert_cmpint((grows ? act_grow : act_shrink)(image), ==, 0);
		memset(model + BLOCKS, 0, BLOCKS);
		close_sound(image, path, grows ? 2 * SIZE : 5 * BLOCK_SIZE, model);
	}
}
#endif

int main(int argc, char **argv)
{
	int status;

#ifdef LEAFDISK_FAULTS
	if (argc == 5 && strcmp(argv[1], "--act") == 0)
		return act_and_die(argv, acts, G_N_ELEMENTS(acts));
#endif
	g_test_init(&argc, &argv, NULL);
	directory = make_directory();
	g_test_add_data_func("/leaf-resize/beside-checkpoint", NULL, test_beside_checkpoint);
	g_test_add_data_func("/leaf-resize/shrink-beside-checkpoint", "shrinks", test_beside_checkpoint);
	g_test_add_func("/leaf-resize/flush-beside", test_flush_beside);
	g_test_add_func("/leaf-resize/any-order", test_any_order);
	g_test_add_func("/leaf-resize/sizes", test_sizes);
#ifdef LEAFDISK_FAULTS
	g_test_add_data_func("/leaf-resize/grow-crash", "grow", test_crash);
	g_test_add_data_func("/leaf-resize/shrink-crash", "shrink", test_crash);
	g_test_add_data_func("/leaf-resize/grow-no-room", "grow", test_no_room);
	g_test_add_data_func("/leaf-resize/shrink-no-room", "shrink", test_no_room);
#endif
	status = g_test_run();
	remove_directory();
	return status;
}
