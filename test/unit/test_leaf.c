/* The native layer without a mount: bits, blocks, crashes at every write. */
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../../src/image/blocking.h"
#include "../../src/image/leaf/leaf.h"
#include "core/counters.h"
#include "core/fault.h"

#define CHUNK (64u << 10)
#define BLOCKS 64
#define SIZE ((uint64_t)BLOCKS * BLOCK_SIZE)

static char *directory;

static char *new_leaf(uint64_t size)
{
	static int number;
	struct image_create_options options = {.size_bytes = size, .chunk_bytes = CHUNK};
	char *path = g_strdup_printf("%s/%d.leaf", directory, number++);
	g_autoptr(GError) error = NULL;

	g_assert_true(image_create(path, IMAGE_FORMAT_LEAF, &options, &error));
	return path;
}

static struct image *open_leaf(const char *path, unsigned flags)
{
	g_autoptr(GError) error = NULL;
	struct image *image = image_open(path, IMAGE_FORMAT_LEAF, flags, 0, &error);

	if (!image)
		g_error("%s", error->message);
	return image;
}

/* One transfer at a time, on a loop of its own. */
static struct {
	bool finished;
	int result;
} waited;

static void io_done(struct image_io *io, int result)
{
	(void)io;
	waited.result = result;
	waited.finished = true;
}

static int transfer(struct image *image, bool write, uint64_t block, uint64_t blocks, uint8_t *data)
{
	struct blocking_loop *blocking = blocking_loop_get();

	while (blocks) {
		struct image_io io = {.queue = blocking->queue,
				      .image = image,
				      .offset = block << BLOCK_SHIFT,
				      .length = (uint32_t)(blocks << BLOCK_SHIFT),
				      .buffer = data,
				      .done = io_done};
		struct image_extent extent = {EXTENT_DATA, 0};
		int64_t n;

		waited.finished = false;
		waited.result = 0;
		if (write) {
			n = image_write(&io);
			g_assert_cmpint(n, >, 0);
		} else {
			extent = image_read(&io);
			n = (int64_t)extent.blocks;
		}
		if (extent.state == EXTENT_DATA)
			loop_run(blocking->loop, &waited.finished);
		else
			memset(data, extent.state == EXTENT_ZERO ? 0 : 0xaa, (size_t)n << BLOCK_SHIFT);
		if (waited.result < 0)
			break;
		block += (uint64_t)n;
		blocks -= (uint64_t)n;
		data += (size_t)n << BLOCK_SHIFT;
	}
	blocking_loop_put(blocking);
	return waited.result;
}

static int run_op(struct image *image, void (*submit)(struct image *, struct image_op *), uint64_t block,
		  uint64_t blocks)
{
	struct image_op op = {.offset = block << BLOCK_SHIFT, .length = blocks << BLOCK_SHIFT};

	return image_run_blocking(image, &op, submit);
}

static uint8_t *new_buffer(void)
{
	return aligned_alloc(BLOCK_SIZE, SIZE);
}

static void finding(void *opaque, bool repaired, const char *sentence)
{
	(void)repaired;
	g_test_message("finding: %s", sentence);
	++*(unsigned *)opaque;
}

static void assert_sound(const char *path)
{
	struct image_check_result result;
	g_autoptr(GError) error = NULL;
	unsigned findings = 0;

	g_assert_true(image_check(path, IMAGE_FORMAT_LEAF, false, finding, &findings, &result, &error));
	g_assert_cmpuint(findings, ==, 0);
}

/* What the blocks hold: 0xaa absent, 0 zero, else a byte of data. */
static void assert_blocks(struct image *image, const uint8_t *model)
{
	uint8_t *data = new_buffer();

	g_assert_cmpint(transfer(image, false, 0, BLOCKS, data), ==, 0);
	for (unsigned i = 0; i < BLOCKS; i++)
		for (unsigned j = 0; j < BLOCK_SIZE; j += 511)
			g_assert_cmphex(data[i * BLOCK_SIZE + j], ==, model[i]);
	free(data);
}

static void test_bits(void)
{
	uint64_t present[4] = {0}, zero[4] = {0};

	bits_set(present, 3, 130);
	bits_set(zero, 70, 10);
	g_assert_cmpuint(bits_run(present, zero, 0, 256), ==, 3);
	g_assert_cmpuint(bits_run(present, zero, 3, 253), ==, 67);
	g_assert_cmpuint(bits_run(present, zero, 70, 186), ==, 10);
	g_assert_cmpuint(bits_run(present, zero, 80, 176), ==, 53);
	g_assert_cmpuint(bits_run(present, zero, 133, 123), ==, 123);
	g_assert_true(bits_all_set(present, 3, 130));
	g_assert_false(bits_all_set(present, 2, 130));
	bits_clear(present, 64, 64);
	g_assert_false(bits_any_set(present, 64, 64));
	g_assert_true(bits_any_set(present, 63, 2));
}

static void test_geometry(void)
{
	for (uint32_t chunk = LEAF_CHUNK_BYTES_MIN; chunk <= LEAF_CHUNK_BYTES_MAX; chunk *= 2) {
		struct leaf_geometry g;
		uint64_t last;

		leaf_geometry_init(&g, chunk, 2 * chunk);
		last = g.slots_per_group - 1;
		g_assert_cmpuint(leaf_slot_offset(&g, 0), ==, 3ull * chunk);
		g_assert_cmpuint(leaf_slot_offset(&g, last) + chunk, ==, 2ull * chunk + g.group_bytes);
		g_assert_cmpuint(leaf_page_offset(&g, g.pages_per_group), ==, 2ull * chunk + g.group_bytes);
		g_assert_cmpuint(leaf_slots_within(&g, leaf_slot_offset(&g, last) + chunk), ==, last + 1);
		g_assert_cmpuint(leaf_slots_within(&g, leaf_slot_offset(&g, last) + chunk - 1), ==, last);
		g_assert_cmpuint(leaf_slots_within(&g, leaf_slot_offset(&g, last + 1)), ==, last + 1);
		g_assert_cmpuint(leaf_slots_within(&g, 0), ==, 0);
	}
}

/* Random writes, zeroes, flushes and reopens against a model of bytes. */
static void test_model(void)
{
	g_autofree char *path = new_leaf(SIZE);
	struct image *image = open_leaf(path, IMAGE_WRITABLE);
	uint8_t *data = new_buffer();
	uint8_t model[BLOCKS];

	memset(model, 0xaa, sizeof(model));
	for (int i = 0; i < 600; i++) {
		unsigned first = (unsigned)g_test_rand_int_range(0, BLOCKS);
		unsigned count = (unsigned)g_test_rand_int_range(1, (gint32)(BLOCKS - first) + 1);
		int what = g_test_rand_int_range(0, 10);
		uint8_t value = (uint8_t)g_test_rand_int_range(1, 0xa0);

		if (what < 5) {
			count = MIN(count, 20);
			memset(data, value, (size_t)count << BLOCK_SHIFT);
			g_assert_cmpint(transfer(image, true, first, count, data), ==, 0);
			memset(model + first, value, count);
		} else if (what < 8) {
			g_assert_cmpint(run_op(image, image_zero, first, count), ==, 0);
			memset(model + first, 0, count);
		} else if (what < 9) {
			g_assert_cmpint(run_op(image, image_flush, 0, 0), ==, 0);
		} else {
			g_assert_cmpint(image_close(image), ==, 0);
			assert_sound(path);
			image = open_leaf(path, IMAGE_WRITABLE);
		}
		if (i % 10 == 0)
			assert_blocks(image, model);
	}
	assert_blocks(image, model);
	g_assert_cmpint(image_close(image), ==, 0);
	free(data);
}

/* A thousand commits go through the journal's end several times. */
static void test_checkpoints(void)
{
	g_autofree char *path = new_leaf(SIZE);
	struct image *image = open_leaf(path, IMAGE_WRITABLE);
	uint64_t before = counters.image_checkpoints;
	uint8_t *data = new_buffer();
	uint8_t model[BLOCKS];

	memset(model, 0xaa, sizeof(model));
	for (unsigned i = 0; i < 1000; i++) {
		unsigned block = i % BLOCKS;

		if (model[block] == 0xaa || model[block] == 0) {
			memset(data, (int)(i % 100) + 1, BLOCK_SIZE);
			g_assert_cmpint(transfer(image, true, block, 1, data), ==, 0);
			model[block] = (uint8_t)(i % 100) + 1;
		} else {
			g_assert_cmpint(run_op(image, image_zero, block, 1), ==, 0);
			model[block] = 0;
		}
		g_assert_cmpint(run_op(image, image_flush, 0, 0), ==, 0);
	}
	g_assert_cmpuint(counters.image_checkpoints, >, before + 2);
	g_assert_cmpint(image_close(image), ==, 0);
	assert_sound(path);
	image = open_leaf(path, 0);
	assert_blocks(image, model);
	image_close(image);
	free(data);
}

static int apply(struct image *image, uint8_t *first, uint8_t *second)
{
	struct image_apply_extent extents[] = {
		{2 * BLOCK_SIZE, 20 * BLOCK_SIZE, first},
		{30 * BLOCK_SIZE, 4 * BLOCK_SIZE, NULL},
		{40 * BLOCK_SIZE, 10 * BLOCK_SIZE, second},
	};
	struct image_op op = {.extents = extents, .extent_count = G_N_ELEMENTS(extents)};

	return image_run_blocking(image, &op, image_apply);
}

static void apply_to_model(uint8_t *model, uint8_t value)
{
	memset(model + 2, value, 20);
	memset(model + 30, 0, 4);
	memset(model + 40, value, 10);
}

static void prepare_apply(struct image *image, uint8_t *model)
{
	uint8_t *data = new_buffer();

	memset(model, 0xaa, BLOCKS);
	memset(data, 0x11, SIZE);
	g_assert_cmpint(transfer(image, true, 10, 35, data), ==, 0);
	memset(model + 10, 0x11, 35);
	g_assert_cmpint(run_op(image, image_zero, 20, 3), ==, 0);
	memset(model + 20, 0, 3);
	g_assert_cmpint(run_op(image, image_flush, 0, 0), ==, 0);
	free(data);
}

static void test_apply(void)
{
	g_autofree char *path = new_leaf(SIZE);
	struct image *image = open_leaf(path, IMAGE_WRITABLE);
	uint8_t *data = new_buffer();
	uint8_t model[BLOCKS];

	prepare_apply(image, model);
	for (uint8_t value = 1; value < 100; value++) {
		memset(data, value, SIZE);
		g_assert_cmpint(apply(image, data, data), ==, 0);
		apply_to_model(model, value);
		assert_blocks(image, model);
	}
	g_assert_cmpint(image_close(image), ==, 0);
	assert_sound(path);
	image = open_leaf(path, 0);
	assert_blocks(image, model);
	image_close(image);
	free(data);
}

#ifdef LEAFDISK_FAULTS
static int apply_two(struct image *image);
static int many_commits(struct image *image);

static const struct {
	const char *name;
	int (*act)(struct image *image);
} acts[] = {{"apply", apply_two}, {"commits", many_commits}};

/* The child of die_at(): a process of its own, because threads do not survive
 * a fork. */
static int act_and_die(char **argv)
{
	struct image *image = open_leaf(argv[2], IMAGE_WRITABLE);

	fault_arm(argv[3], NULL);
	for (unsigned i = 0; i < G_N_ELEMENTS(acts); i++)
		if (strcmp(acts[i].name, argv[4]) == 0)
			return acts[i].act(image) == 0 ? 0 : 1;
	return 2;
}

/* Runs ACT on the image in a child that dies at a fault point. True when the
 * child met it. */
static bool die_at(const char *path, const char *fault, const char *act)
{
	const char *argv[] = {"/proc/self/exe", "--act", path, fault, act, NULL};
	g_autoptr(GError) error = NULL;
	int status;

	if (!g_spawn_sync(NULL, (char **)argv, NULL, 0, NULL, NULL, NULL, NULL, &status, &error))
		g_error("%s", error->message);
	g_assert_true(WIFEXITED(status));
	g_assert_true(WEXITSTATUS(status) == 77 || WEXITSTATUS(status) == 0);
	return WEXITSTATUS(status) == 77;
}

static int apply_two(struct image *image)
{
	uint8_t *data = new_buffer();

	int result;

	memset(data, 2, SIZE);
	result = apply(image, data, data);
	free(data);
	return result;
}

static bool blocks_equal(struct image *image, const uint8_t *model)
{
	uint8_t *data = new_buffer();
	bool equal = true;

	g_assert_cmpint(transfer(image, false, 0, BLOCKS, data), ==, 0);
	for (unsigned i = 0; i < BLOCKS; i++)
		equal = equal && data[i * BLOCK_SIZE] == model[i] && data[i * BLOCK_SIZE + 4095] == model[i];
	free(data);
	return equal;
}

/* Dies at the Nth POINT for every N: all of the batch or none of it. */
static void apply_dying_at(const char *point, unsigned *deaths)
{
	for (unsigned n = 1;; n++) {
		g_autofree char *path = new_leaf(SIZE);
		g_autofree char *fault = g_strdup_printf("%s:crash@%u", point, n);
		struct image *image = open_leaf(path, IMAGE_WRITABLE);
		uint8_t before[BLOCKS], after[BLOCKS];
		bool died;

		prepare_apply(image, before);
		g_assert_cmpint(image_close(image), ==, 0);
		memcpy(after, before, sizeof(after));
		apply_to_model(after, 2);
		died = die_at(path, fault, "apply");
		image = open_leaf(path, IMAGE_WRITABLE);
		g_assert_true(blocks_equal(image, after) || (died && blocks_equal(image, before)));
		g_assert_cmpint(image_close(image), ==, 0);
		assert_sound(path);
		unlink(path);
		if (!died)
			break;
		++*deaths;
	}
}

static void test_apply_crash(void)
{
	unsigned deaths = 0;

	apply_dying_at("aio.write", &deaths);
	apply_dying_at("aio.datasync", &deaths);
	apply_dying_at("image.write", &deaths);
	apply_dying_at("image.sync", &deaths);
	g_assert_cmpuint(deaths, >, 6);
}

static int many_commits(struct image *image)
{
	uint8_t *data = new_buffer();

	memset(data, 7, SIZE);
	for (unsigned i = 0; i < 600; i++) {
		unsigned block = 1 + i % (BLOCKS - 1);

		if (i / (BLOCKS - 1) % 2)
			run_op(image, image_zero, block, 1);
		else
			transfer(image, true, block, 1, data);
		run_op(image, image_flush, 0, 0);
	}
	free(data);
	return 0;
}

/* Dies at the Nth write or flush of a checkpoint: what was flushed is there. */
static void test_checkpoint_crash(void)
{
	const char *points[] = {"image.write", "image.sync"};

	for (unsigned p = 0; p < G_N_ELEMENTS(points); p++) {
		for (unsigned n = 1;; n++) {
			g_autofree char *path = new_leaf(SIZE);
			g_autofree char *fault = g_strdup_printf("%s:crash@%u", points[p], n);
			struct image *image = open_leaf(path, IMAGE_WRITABLE);
			uint8_t *data = new_buffer();
			bool died;

			memset(data, 9, BLOCK_SIZE);
			g_assert_cmpint(transfer(image, true, 0, 1, data), ==, 0);
			g_assert_cmpint(image_close(image), ==, 0);
			died = die_at(path, fault, "commits");
			assert_sound(path);
			image = open_leaf(path, IMAGE_WRITABLE);
			many_commits(image);
			g_assert_cmpint(transfer(image, false, 0, 1, data), ==, 0);
			g_assert_cmphex(data[0], ==, 9);
			g_assert_cmpint(image_close(image), ==, 0);
			assert_sound(path);
			unlink(path);
			free(data);
			if (!died)
				break;
			g_assert_cmpuint(n, <, 100);
		}
	}
}

/* No room for a commit: the flush says so, and the next one makes it good. */
static void test_no_room(void)
{
	const char *faults[] = {"aio.write:ENOSPC@2x1", "image.write:ENOSPC@1x1"};

	for (unsigned f = 0; f < G_N_ELEMENTS(faults); f++) {
		g_autofree char *path = new_leaf(SIZE);
		struct image *image = open_leaf(path, IMAGE_WRITABLE);
		struct leaf *leaf = leaf_of(image);
		uint8_t *data = new_buffer();

		memset(data, 3, BLOCK_SIZE);
		leaf->checkpoint_due = f == 1;
		fault_arm(faults[f], NULL);
		g_assert_cmpint(transfer(image, true, 5, 1, data), ==, 0);
		g_assert_cmpint(run_op(image, image_flush, 0, 0), ==, -ENOSPC);
		fault_arm("", NULL);
		g_assert_cmpint(run_op(image, image_flush, 0, 0), ==, 0);
		g_assert_cmpint(image_close(image), ==, 0);
		assert_sound(path);
		image = open_leaf(path, 0);
		g_assert_cmpint(transfer(image, false, 5, 1, data), ==, 0);
		g_assert_cmphex(data[0], ==, 3);
		image_close(image);
		free(data);
	}
}

/* A flush that fails otherwise: FAILED, no more writes, reads go on. */
static void test_failed(void)
{
	g_autofree char *path = new_leaf(SIZE);
	struct image *image = open_leaf(path, IMAGE_WRITABLE);
	struct image_io io = {.image = image, .length = BLOCK_SIZE};
	uint8_t *data = new_buffer();

	memset(data, 3, BLOCK_SIZE);
	g_assert_cmpint(transfer(image, true, 5, 1, data), ==, 0);
	fault_arm("aio.datasync:EIO@1x1", NULL);
	g_assert_cmpint(run_op(image, image_flush, 0, 0), ==, -EIO);
	fault_arm("", NULL);
	g_assert_cmpint(run_op(image, image_flush, 0, 0), ==, -EIO);
	io.buffer = data;
	g_assert_cmpint(image_write(&io), ==, -EIO);
	g_assert_cmpint(transfer(image, false, 5, 1, data), ==, 0);
	g_assert_cmphex(data[0], ==, 3);
	g_assert_cmpint(image_close(image), ==, -EIO);
	assert_sound(path);
	free(data);
}
#endif

/* 8 EiB of disk: the table is as long as what is allocated. */
static void test_huge(void)
{
	uint64_t size = LEAF_SIZE_MAX((uint64_t)CHUNK);
	g_autofree char *path = new_leaf(size);
	struct image *image = open_leaf(path, IMAGE_WRITABLE);
	uint64_t last = (size >> BLOCK_SHIFT) - 1;
	struct image_extent extent;
	uint8_t *data = new_buffer();

	memset(data, 5, BLOCK_SIZE);
	g_assert_cmpint(transfer(image, true, last, 1, data), ==, 0);
	g_assert_cmpint(run_op(image, image_zero, 1, last - 1), ==, 0);
	g_assert_cmpint(image_close(image), ==, 0);
	assert_sound(path);
	image = open_leaf(path, 0);
	g_assert_cmpint(transfer(image, false, last, 1, data), ==, 0);
	g_assert_cmphex(data[0], ==, 5);
	extent = image_extent(image, 1 << 20, 1 << 30);
	g_assert_cmpint(extent.state, ==, EXTENT_ZERO);
	g_assert_cmpuint(extent.blocks, ==, 1 << 30);
	g_assert_cmpuint(image_allocated_bytes(image), <, 8 << 20);
	image_close(image);
	free(data);
}

/* Discarding all gives the space back and keeps the slots for use. */
static void test_discard_space(void)
{
	g_autofree char *path = new_leaf(SIZE);
	struct image *image = open_leaf(path, IMAGE_WRITABLE);
	uint8_t *data = new_buffer();
	uint64_t full;

	memset(data, 5, SIZE);
	g_assert_cmpint(transfer(image, true, 0, BLOCKS, data), ==, 0);
	g_assert_cmpint(run_op(image, image_flush, 0, 0), ==, 0);
	full = image_allocated_bytes(image);
	g_assert_cmpint(run_op(image, image_zero, 0, BLOCKS), ==, 0);
	g_assert_cmpint(run_op(image, image_flush, 0, 0), ==, 0);
	g_assert_cmpuint(image_allocated_bytes(image) + SIZE, <=, full);
	for (int i = 0; i < 50; i++) {
		g_assert_cmpint(transfer(image, true, 0, BLOCKS, data), ==, 0);
		g_assert_cmpint(run_op(image, image_zero, 0, BLOCKS), ==, 0);
		g_assert_cmpint(run_op(image, image_flush, 0, 0), ==, 0);
	}
	g_assert_cmpuint(leaf_of(image)->slots->len, <=, 2 * SIZE / CHUNK);
	image_close(image);
	free(data);
}

/* Many separate runs of zero chunks: the zero list fills pages. */
static void test_zero_list(void)
{
	const uint64_t chunks = 1500;
	g_autofree char *path = new_leaf(chunks * CHUNK);
	struct image *image = open_leaf(path, IMAGE_WRITABLE);
	uint32_t per_chunk = CHUNK / BLOCK_SIZE;

	for (uint64_t i = 0; i < chunks; i += 2)
		g_assert_cmpint(run_op(image, image_zero, i * per_chunk, per_chunk), ==, 0);
	leaf_of(image)->checkpoint_due = true;
	g_assert_cmpint(run_op(image, image_flush, 0, 0), ==, 0);
	g_assert_cmpint(image_close(image), ==, 0);
	assert_sound(path);
	image = open_leaf(path, IMAGE_WRITABLE);
	for (uint64_t i = 0; i < chunks; i++)
		g_assert_cmpint(image_extent(image, i * per_chunk, 1).state, ==, i % 2 ? EXTENT_ABSENT : EXTENT_ZERO);
	image_close(image);
}

static char *make_directory(void)
{
	char *template = g_build_filename(g_getenv("TMPDIR") ? g_getenv("TMPDIR") : "/var/tmp", "leaf-XXXXXX", NULL);

	return g_mkdtemp(template);
}

static void remove_directory(void)
{
	GDir *dir = g_dir_open(directory, 0, NULL);
	const char *name;

	while ((name = g_dir_read_name(dir))) {
		g_autofree char *path = g_build_filename(directory, name, NULL);

		unlink(path);
	}
	g_dir_close(dir);
	rmdir(directory);
	g_free(directory);
}

int main(int argc, char **argv)
{
	int status;

#ifdef LEAFDISK_FAULTS
	if (argc == 5 && strcmp(argv[1], "--act") == 0)
		return act_and_die(argv);
#endif
	g_test_init(&argc, &argv, NULL);
	directory = make_directory();
	g_test_add_func("/leaf/bits", test_bits);
	g_test_add_func("/leaf/geometry", test_geometry);
	g_test_add_func("/leaf/model", test_model);
	g_test_add_func("/leaf/checkpoints", test_checkpoints);
	g_test_add_func("/leaf/apply", test_apply);
#ifdef LEAFDISK_FAULTS
	g_test_add_func("/leaf/apply-crash", test_apply_crash);
	g_test_add_func("/leaf/checkpoint-crash", test_checkpoint_crash);
	g_test_add_func("/leaf/no-room", test_no_room);
	g_test_add_func("/leaf/failed", test_failed);
#endif
	g_test_add_func("/leaf/huge", test_huge);
	g_test_add_func("/leaf/discard-space", test_discard_space);
	g_test_add_func("/leaf/zero-list", test_zero_list);
	status = g_test_run();
	remove_directory();
	return status;
}
