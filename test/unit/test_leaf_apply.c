/* image_apply: batches of data and zeros, all or none at every failure. */
#include <errno.h>
#include <fcntl.h>
#include <time.h>

#include "core/error.h"
#include "leaf_fixture.h"

#define BLOCKS 128
#define PER_CHUNK (CHUNK / BLOCK_SIZE)
#define SIZE ((uint64_t)BLOCKS * BLOCK_SIZE)
#define TIB (UINT64_C(1) << 40)

static int apply_extents(struct image *image, const struct image_apply_extent *extents, unsigned count, bool bottom)
{
	struct image_op op = {.extents = extents, .extent_count = count, .bottom = bottom};

	return image_run_blocking(image, &op, image_apply);
}

static struct image_apply_extent extent_of(uint64_t block, uint64_t blocks, void *data)
{
	return (struct image_apply_extent){block << BLOCK_SHIFT, blocks << BLOCK_SHIFT, data};
}

/* Chunks 0 to 2 partly data, 4 and 7 all data, 5 in the zero list, 3 and 6
 * absent. */
static void prepare(struct image *image, uint8_t *model)
{
	uint8_t *data = new_buffer(SIZE);

	memset(model, 0xaa, BLOCKS);
	memset(data, 0x11, SIZE);
	g_assert_cmpint(transfer(image, true, 10, 35, data), ==, 0);
	g_assert_cmpint(transfer(image, true, 64, 16, data), ==, 0);
	g_assert_cmpint(transfer(image, true, 112, 16, data), ==, 0);
	memset(model + 10, 0x11, 35);
	memset(model + 64, 0x11, 16);
	memset(model + 112, 0x11, 16);
	g_assert_cmpint(run_op(image, image_zero, 20, 3), ==, 0);
	g_assert_cmpint(run_op(image, image_zero, 80, 16), ==, 0);
	memset(model + 20, 0, 3);
	memset(model + 80, 0, 16);
	g_assert_cmpint(run_op(image, image_flush, 0, 0), ==, 0);
	free(data);
}

/* Data over data, absent and zero; zeros over parts of chunks and over whole
 * ones of each kind. */
static int apply_batch(struct image *image, uint8_t value)
{
	uint8_t *data = new_buffer(SIZE);
	struct image_apply_extent extents[] = {
		extent_of(2, 20, data),	 extent_of(30, 4, NULL),  extent_of(40, 10, data),
		extent_of(64, 48, NULL), extent_of(115, 4, data), extent_of(121, 2, NULL),
	};
	int result;

	memset(data, value, SIZE);
	result = apply_extents(image, extents, G_N_ELEMENTS(extents), false);
	free(data);
	return result;
}

static void batch_to_model(uint8_t *model, uint8_t value)
{
	memset(model + 2, value, 20);
	memset(model + 30, 0, 4);
	memset(model + 40, value, 10);
	memset(model + 64, 0, 48);
	memset(model + 115, value, 4);
	memset(model + 121, 0, 2);
}

static void assert_reopened(const char *path, const uint8_t *model)
{
	struct image *image;

	assert_sound(path);
	image = open_leaf(path, 0);
	assert_blocks(image, model, BLOCKS);
	image_close(image);
}

static void test_batch(void)
{
	g_autofree char *path = new_leaf(SIZE);
	struct image *image = open_leaf(path, IMAGE_WRITABLE);
	uint8_t model[BLOCKS];

	prepare(image, model);
	for (uint8_t value = 1; value < 100; value++) {
		g_assert_cmpint(apply_batch(image, value), ==, 0);
		batch_to_model(model, value);
		assert_blocks(image, model, BLOCKS);
	}
	g_assert_cmpint(image_close(image), ==, 0);
	assert_reopened(path, model);
}

/* Sorted extents that do not overlap; the model follows. */
static GArray *random_batch(uint8_t *model, uint8_t *data, uint8_t value)
{
	GArray *extents = g_array_new(FALSE, FALSE, sizeof(struct image_apply_extent));
	unsigned block = (unsigned)g_test_rand_int_range(0, 40);

	while (block < BLOCKS) {
		unsigned blocks = (unsigned)g_test_rand_int_range(1, 60);
		bool zero = g_test_rand_bit();
		struct image_apply_extent extent;

		blocks = MIN(blocks, BLOCKS - block);
		extent = extent_of(block, blocks, zero ? NULL : data);
		g_array_append_val(extents, extent);
		memset(model + block, zero ? 0 : value, blocks);
		block += blocks + (unsigned)g_test_rand_int_range(0, 30);
	}
	return extents;
}

static void step(struct image *image, uint8_t *model, uint8_t *data)
{
	unsigned first = (unsigned)g_test_rand_int_range(0, BLOCKS);
	unsigned count = (unsigned)g_test_rand_int_range(1, (gint32)(BLOCKS - first) + 1);
	uint8_t value = (uint8_t)g_test_rand_int_range(1, 0xa0);
	int what = g_test_rand_int_range(0, 10);

	memset(data, value, SIZE);
	if (what < 3) {
		g_assert_cmpint(transfer(image, true, first, count, data), ==, 0);
		memset(model + first, value, count);
	} else if (what < 5) {
		g_assert_cmpint(run_op(image, image_zero, first, count), ==, 0);
		memset(model + first, 0, count);
	} else if (what < 6) {
		g_assert_cmpint(run_op(image, image_flush, 0, 0), ==, 0);
	} else {
		g_autoptr(GArray) extents = random_batch(model, data, value);

		g_assert_cmpint(apply_extents(image, (void *)extents->data, extents->len, false), ==, 0);
	}
}

/* Random writes, zeroes and batches; now and then a reopen, or a crash right
 * after a flush or a batch, for which the file is copied. */
static void test_model(void)
{
	g_autofree char *path = new_leaf(SIZE);
	struct image *image = open_leaf(path, IMAGE_WRITABLE);
	uint8_t *data = new_buffer(SIZE);
	uint8_t model[BLOCKS];

	memset(model, 0xaa, sizeof(model));
	for (int i = 0; i < 600; i++) {
		step(image, model, data);
		if (i % 5 == 0)
			assert_blocks(image, model, BLOCKS);
		if (i % 40 == 0) {
			g_autofree char *copy = NULL;

			g_assert_cmpint(run_op(image, image_flush, 0, 0), ==, 0);
			copy = copy_of(path);
			assert_reopened(copy, model);
			unlink(copy);
		}
		if (i % 50 == 0) {
			g_assert_cmpint(image_close(image), ==, 0);
			assert_sound(path);
			image = open_leaf(path, IMAGE_WRITABLE);
		}
	}
	g_assert_cmpint(image_close(image), ==, 0);
	assert_reopened(path, model);
	free(data);
}

/* With nothing below, no trace is kept of chunks that are gone. */
static void test_bottom(void)
{
	g_autofree char *path = new_leaf(SIZE);
	struct image *image = open_leaf(path, IMAGE_WRITABLE);
	struct image_apply_extent all[] = {extent_of(0, BLOCKS, NULL)};
	struct image_apply_extent part[] = {extent_of(3, 5, NULL), extent_of(16, 20, NULL)};
	uint8_t model[BLOCKS];

	g_assert_cmpint(apply_extents(image, part, 2, true), ==, 0);
	g_assert_cmpuint(leaf_of(image)->slots->len, ==, 0);
	prepare(image, model);
	g_assert_cmpint(apply_extents(image, all, 1, true), ==, 0);
	memset(model, 0xaa, sizeof(model));
	assert_blocks(image, model, BLOCKS);
	g_assert_cmpuint(intervals_length(leaf_of(image)->zero), ==, 0);
	g_assert_cmpint(image_close(image), ==, 0);
	assert_reopened(path, model);
}

/* What a batch frees is punched, and used again. */
static void test_space(void)
{
	g_autofree char *path = new_leaf(SIZE);
	struct image *image = open_leaf(path, IMAGE_WRITABLE);
	struct image_apply_extent all[] = {extent_of(0, BLOCKS, NULL)};
	struct image_apply_extent halves[BLOCKS / PER_CHUNK];
	uint8_t *data = new_buffer(SIZE);
	uint64_t full;

	memset(data, 5, SIZE);
	for (int i = 0; i < 20; i++) {
		g_assert_cmpint(transfer(image, true, 0, BLOCKS, data), ==, 0);
		g_assert_cmpint(run_op(image, image_flush, 0, 0), ==, 0);
		full = image_allocated_bytes(image);
		g_assert_cmpint(apply_extents(image, all, 1, false), ==, 0);
		g_assert_cmpuint(image_allocated_bytes(image) + SIZE * 3 / 4, <, full);
	}
	g_assert_cmpuint(leaf_of(image)->slots->len, <=, 2 * BLOCKS / PER_CHUNK);
	/* Zeros that come in parts end in the zero list too. */
	g_assert_cmpint(transfer(image, true, 0, BLOCKS, data), ==, 0);
	full = image_allocated_bytes(image);
	for (unsigned part = 0; part < 2; part++) {
		for (unsigned i = 0; i < G_N_ELEMENTS(halves); i++)
			halves[i] = extent_of(i * PER_CHUNK + part * PER_CHUNK / 2, PER_CHUNK / 2, NULL);
		g_assert_cmpint(apply_extents(image, halves, G_N_ELEMENTS(halves), false), ==, 0);
	}
	g_assert_cmpuint(g_hash_table_size(leaf_of(image)->chunks), ==, 0);
	g_assert_cmpuint(image_allocated_bytes(image) + SIZE * 3 / 4, <, full);
	g_assert_cmpint(image_close(image), ==, 0);
	memset(data, 0, BLOCKS);
	assert_reopened(path, data);
	free(data);
}

/* A discard of a whole large disk: nothing is allocated, nor gone through. */
static void test_tebibyte(void)
{
	g_autofree char *path = new_leaf(TIB);
	struct image *image = open_leaf(path, IMAGE_WRITABLE);
	uint64_t blocks = TIB >> BLOCK_SHIFT, room = leaf_journal_room(leaf_of(image));
	uint8_t *data = new_buffer(SIZE);
	struct image_apply_extent extents[] = {extent_of(0, 1, data), extent_of(1, blocks - 1, NULL)};
	clock_t start = clock();

	memset(data, 7, SIZE);
	g_assert_cmpint(apply_extents(image, &extents[1], 1, true), ==, 0);
	g_assert_cmpuint(leaf_of(image)->slots->len, ==, 0);
	g_assert_cmpint(apply_extents(image, extents, 2, false), ==, 0);
	g_assert_cmpint(clock() - start, <, CLOCKS_PER_SEC);
	g_assert_cmpuint(leaf_of(image)->slots->len, ==, 4); /* of data, of a batch, of two zero lists */
	g_assert_cmpuint(room - leaf_journal_room(leaf_of(image)), ==, 2 * LEAF_PAGE_BYTES);
	g_assert_cmpint(image_close(image), ==, 0);
	assert_sound(path);
	image = open_leaf(path, 0);
	g_assert_cmpint(image_extent(image, 0, 1).state, ==, EXTENT_DATA);
	g_assert_cmpint(image_extent(image, 1, 1).state, ==, EXTENT_ZERO);
	g_assert_cmpuint(image_extent(image, PER_CHUNK, blocks).blocks, ==, blocks - PER_CHUNK);
	g_assert_cmpint(image_extent(image, PER_CHUNK, blocks).state, ==, EXTENT_ZERO);
	image_close(image);
	free(data);
}

/* What is unsorted, overlapping or past the end is refused. */
static void test_invalid(void)
{
	g_autofree char *path = new_leaf(SIZE);
	struct image *image = open_leaf(path, IMAGE_WRITABLE);
	struct image_apply_extent good[] = {extent_of(0, 4, NULL), extent_of(4, 4, NULL)};
	struct image_apply_extent overlap[] = {extent_of(0, 4, NULL), extent_of(3, 4, NULL)};
	struct image_apply_extent unsorted[] = {extent_of(8, 4, NULL), extent_of(0, 4, NULL)};
	struct image_apply_extent outside[] = {extent_of(0, 4, NULL), extent_of(BLOCKS - 1, 2, NULL)};

	g_assert_cmpint(apply_extents(image, good, 2, false), ==, 0);
	g_assert_cmpint(apply_extents(image, good, 0, false), ==, 0);
	g_assert_cmpint(apply_extents(image, overlap, 2, false), ==, -EINVAL);
	g_assert_cmpint(apply_extents(image, unsorted, 2, false), ==, -EINVAL);
	g_assert_cmpint(apply_extents(image, outside, 2, false), ==, -EINVAL);
	g_assert_cmpint(image_close(image), ==, 0);
}

/* The least journal that the format allows. */
static void shorten_journal(const char *path)
{
	struct image_file file;
	struct leaf_header_ondisk header;
	struct leaf_report report = {.path = path, .error = &(GError *){NULL}};

	g_assert_true(image_file_open(&file, IMAGE_BY_PATH, path, IMAGE_WRITABLE, NULL));
	g_assert_true(leaf_header_read(&file, &header, &report));
	header.journal_bytes = le64_of(LEAF_JOURNAL_BYTES_MIN);
	header.data_offset = le64_of(LEAF_JOURNAL_OFFSET + LEAF_JOURNAL_BYTES_MIN);
	g_assert_cmpint(leaf_header_write(&file, &header), ==, 0);
	image_file_close(&file);
}

/* A block in each of COUNT chunks. */
static struct image_apply_extent *scattered(unsigned count, uint8_t *data)
{
	struct image_apply_extent *extents = g_new(struct image_apply_extent, count);

	for (unsigned i = 0; i < count; i++)
		extents[i] = extent_of((uint64_t)i * PER_CHUNK + i % PER_CHUNK, 1, data);
	return extents;
}

static void assert_scattered(struct image *image, unsigned count, uint8_t value)
{
	uint8_t *data = new_buffer(BLOCK_SIZE);

	for (unsigned i = 0; i < count; i++) {
		g_assert_cmpint(transfer(image, false, (uint64_t)i * PER_CHUNK + i % PER_CHUNK, 1, data), ==, 0);
		g_assert_cmphex(data[100], ==, value);
	}
	free(data);
}

/* As many extents as promised fit, whatever waits for the next commit; one
 * more does not, and harms nothing. */
static void test_too_big(void)
{
	const unsigned chunks = 2000;
	g_autofree char *path = new_leaf((uint64_t)chunks * CHUNK);
	g_autofree struct image_apply_extent *extents = NULL;
	uint8_t *data = new_buffer(SIZE);
	struct image *image;
	unsigned most;

	shorten_journal(path);
	image = open_leaf(path, IMAGE_WRITABLE);
	most = image_apply_extents_max(image);
	g_assert_cmpuint(most, ==, (LEAF_JOURNAL_BYTES_MIN - LEAF_PAGE_BYTES - 64 - 32) / 40);
	extents = scattered(chunks, data);
	memset(data, 1, SIZE);
	g_assert_cmpint(apply_extents(image, extents, most, false), ==, 0);
	g_assert_cmpint(transfer(image, true, (uint64_t)(chunks - 1) * PER_CHUNK, 1, data), ==, 0);
	memset(data, 2, SIZE);
	g_assert_cmpint(apply_extents(image, extents, most + 2, false), ==, -EFBIG); /* without progress */
	assert_scattered(image, most, 1);
	g_assert_cmpint(apply_extents(image, extents, chunks, false), ==, -EFBIG);
	g_assert_cmpint(apply_extents(image, extents, most, false), ==, 0);
	assert_scattered(image, most, 2);
	g_assert_cmpint(image_extent(image, extents[most].offset >> BLOCK_SHIFT, 1).state, ==, EXTENT_ABSENT);
	g_assert_cmpint(image_close(image), ==, 0);
	assert_sound(path);
	free(data);
}

/* A checkpoint that is due for another reason comes first. */
static void test_checkpoint_due(void)
{
	g_autofree char *path = new_leaf(SIZE);
	struct image *image = open_leaf(path, IMAGE_WRITABLE);
	uint8_t model[BLOCKS];

	prepare(image, model);
	leaf_of(image)->checkpoint_due = true;
	g_assert_cmpint(apply_batch(image, 2), ==, 0);
	batch_to_model(model, 2);
	assert_blocks(image, model, BLOCKS);
	g_assert_cmpint(image_close(image), ==, 0);
	assert_reopened(path, model);
}

#ifdef LEAFDISK_FAULTS
static int apply_twos(struct image *image)
{
	return apply_batch(image, 2);
}

static int prepare_only(struct image *image)
{
	uint8_t model[BLOCKS];

	prepare(image, model);
	return image_close(image);
}

/* Over a block that only a soft write has put there. */
static int apply_over_soft(struct image *image)
{
	uint8_t *data = new_buffer(SIZE);
	int result;

	memset(data, 1, SIZE);
	result = write_soft(image, 5, data);
	memset(data, 2, SIZE);
	if (result == 0)
		result = apply_extents(image, (struct image_apply_extent[]){extent_of(5, 1, data)}, 1, false);
	free(data);
	return result;
}

/* Frees no slot, so that those of its copies are the first that are free. */
static int apply_over_data(struct image *image)
{
	uint8_t *data = new_buffer(BLOCK_SIZE);
	int result;

	memset(data, 2, BLOCK_SIZE);
	result = apply_extents(image, (struct image_apply_extent[]){extent_of(12, 1, data)}, 1, false);
	free(data);
	return result;
}

/* Opening it is what finishes a batch. */
static int finish_only(struct image *image)
{
	return image_close(image);
}

static const struct leaf_act acts[] = {
	{"apply", apply_twos, false},	       {"soft", apply_over_soft, false}, {"prepare", prepare_only, false},
	{"over-data", apply_over_data, false}, {"finish", finish_only, true},
};
static const char *const points[] = {"aio.write", "aio.datasync", "image.write", "image.sync", "image.punch"};

static bool blocks_equal(struct image *image, const uint8_t *model)
{
	uint8_t *data = new_buffer(SIZE);
	bool equal = true;

	g_assert_cmpint(transfer(image, false, 0, BLOCKS, data), ==, 0);
	for (unsigned i = 0; i < BLOCKS; i++)
		equal = equal && data[i * BLOCK_SIZE] == model[i] && data[i * BLOCK_SIZE + 4095] == model[i];
	free(data);
	return equal;
}

static char *prepared(uint8_t *before, uint8_t *after)
{
	char *path = new_leaf(SIZE);
	struct image *image = open_leaf(path, IMAGE_WRITABLE);

	prepare(image, before);
	g_assert_cmpint(image_close(image), ==, 0);
	memcpy(after, before, BLOCKS);
	batch_to_model(after, 2);
	return path;
}

/* Dies at the Nth POINT for every N: all of the batch or none of it. */
static unsigned apply_dying_at(const char *point)
{
	for (unsigned n = 1;; n++) {
		uint8_t before[BLOCKS], after[BLOCKS];
		g_autofree char *path = prepared(before, after);
		g_autofree char *fault = g_strdup_printf("%s:crash@%u", point, n);
		bool died = die_at(path, fault, "apply");
		struct image *image = open_leaf(path, IMAGE_WRITABLE);

		g_assert_true(blocks_equal(image, after) || (died && blocks_equal(image, before)));
		g_assert_cmpint(image_close(image), ==, 0);
		assert_sound(path);
		unlink(path);
		if (!died)
			return n - 1;
	}
}

static void test_crash(void)
{
	for (unsigned i = 0; i < G_N_ELEMENTS(points); i++) {
		unsigned deaths = apply_dying_at(points[i]);

		if (strcmp(points[i], "image.write") != 0)
			g_assert_cmpuint(deaths, >, 0);
	}
}

static bool owes_copies(const char *path)
{
	struct image_check_result result = check_image(path, false);

	return result.owed_extents > 0;
}

/* The batch has happened: one that only reads has it too, and changes nothing. */
static void assert_reads_owed(const char *path, const uint8_t *after)
{
	struct image *image = open_leaf(path, 0);

	g_assert_true(blocks_equal(image, after));
	g_assert_cmpint(image_close(image), ==, 0);
	g_assert_true(owes_copies(path));
}

static void assert_repairs_owed(const char *path, const uint8_t *after)
{
	g_autofree char *copy = copy_of(path);
	struct image *image;

	g_assert_cmpuint(check_image(copy, true).owed_extents, >, 0);
	g_assert_false(owes_copies(copy));
	image = open_leaf(copy, 0);
	g_assert_true(blocks_equal(image, after));
	g_assert_cmpint(image_close(image), ==, 0);
	unlink(copy);
}

/* Copies are owed; whoever finishes them dies at the Nth POINT, twice. Returns
 * how often that was. */
static unsigned finish_dying_at(const char *path, const char *point, const uint8_t *after)
{
	for (unsigned n = 1;; n++) {
		g_autofree char *copy = copy_of(path);
		g_autofree char *fault = g_strdup_printf("%s:crash@%u", point, n);
		bool died = die_at(copy, fault, "finish");
		struct image *image;

		die_at(copy, fault, "finish");
		image = open_leaf(copy, IMAGE_WRITABLE);
		g_assert_true(blocks_equal(image, after));
		g_assert_cmpint(image_close(image), ==, 0);
		assert_sound(copy);
		unlink(copy);
		if (!died)
			return n - 1;
	}
}

static unsigned crash_in_finishing(const char *act)
{
	unsigned deaths = 0;

	for (unsigned n = 1, died = 1; died; n++) {
		uint8_t before[BLOCKS], after[BLOCKS];
		g_autofree char *path = prepared(before, after);
		g_autofree char *fault = g_strdup_printf("aio.write:crash@%u", n);

		if (strcmp(act, "over-data") == 0) {
			memcpy(after, before, BLOCKS);
			after[12] = 2;
		}
		died = die_at(path, fault, act);
		if (owes_copies(path)) {
			assert_reads_owed(path, after);
			assert_repairs_owed(path, after);
			deaths += finish_dying_at(path, "image.write", after) +
				  finish_dying_at(path, "image.sync", after);
		}
		unlink(path);
	}
	return deaths;
}

/* The slots that copies come from are used for nothing else, the zero list of
 * the checkpoint for example, until they are owed no more. */
static void test_crash_in_finishing(void)
{
	g_assert_cmpuint(crash_in_finishing("apply"), >, 10);
	g_assert_cmpuint(crash_in_finishing("over-data"), >, 10);
}

/* An image that owes the copy of block 12, which is in chunk 0. */
static char *owing(void)
{
	for (unsigned n = 1;; n++) {
		uint8_t before[BLOCKS], after[BLOCKS];
		g_autofree char *path = prepared(before, after);
		g_autofree char *fault = g_strdup_printf("aio.write:crash@%u", n);

		g_assert_true(die_at(path, fault, "over-data"));
		if (owes_copies(path))
			return g_steal_pointer(&path);
		unlink(path);
	}
}

/* True: it opens without the Nth piece of memory. It is as it was, or its batch is
 * finished. */
static bool opens_without_memory(const char *path, unsigned n, unsigned flags)
{
	g_autofree char *copy = copy_of(path), *fault = g_strdup_printf("leaf.memory:ENOMEM@%ux1", n);
	g_autoptr(GError) error = NULL;
	struct image *image;
	bool opens;

	fault_arm(fault, NULL);
	image = image_open(copy, IMAGE_FORMAT_LEAF, flags, 0, &error);
	fault_arm("", NULL);
	opens = image;
	g_assert_true(opens == !error);
	g_assert_true(opens || error_to_errno(error) == -ENOMEM);
	g_assert_true(opens || strstr(error->message, "Cannot allocate memory"));
	g_assert_cmpint(image_close(image), ==, 0);
	assert_sound(copy);
	unlink(copy);
	return opens;
}

static bool checks_without_memory(const char *path, unsigned n, bool repair)
{
	g_autofree char *copy = copy_of(path), *fault = g_strdup_printf("leaf.memory:ENOMEM@%ux1", n);
	struct image_check_result result = {0};
	g_autoptr(GError) error = NULL;
	unsigned findings = 0;
	bool good;

	fault_arm(fault, NULL);
	good = image_check(copy, IMAGE_FORMAT_LEAF, repair, finding, &findings, &result, &error);
	fault_arm("", NULL);
	g_assert_cmpuint(findings, ==, 0);
	g_assert_true(good || error_to_errno(error) == -ENOMEM);
	assert_sound(copy);
	unlink(copy);
	return good;
}

/* Whichever is missing: it is refused with a sentence, and nothing is damage. */
static void test_no_memory(void)
{
	g_autofree char *path = owing();
	unsigned n;

	for (n = 1; !opens_without_memory(path, n, IMAGE_WRITABLE); n++)
		;
	g_assert_cmpuint(n, >, 6); /* the table and its slots, the journal, the copies, the checkpoint */
	for (n = 1; !opens_without_memory(path, n, 0); n++)
		;
	g_assert_cmpuint(n, >, 4);
	for (n = 1; !checks_without_memory(path, n, false); n++)
		;
	g_assert_cmpuint(n, >, 4);
	for (n = 1; !checks_without_memory(path, n, true); n++)
		;
	g_assert_cmpuint(n, >, 6);
}

/* What OPEN says while it fails at the Nth write, or does not. */
static char *said_at_open(const char *path, unsigned n, bool *good)
{
	g_autofree char *log = g_strconcat(path, ".log", NULL), *fault = g_strdup_printf("image.write:EIO@%ux1", n);
	int fd = open(log, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600), stderr_fd = dup(STDERR_FILENO);
	struct image *image;
	char *text;

	g_assert_cmpint(dup2(fd, STDERR_FILENO), ==, STDERR_FILENO);
	fault_arm(fault, NULL);
	image = image_open(path, IMAGE_FORMAT_LEAF, IMAGE_WRITABLE | IMAGE_BEGIN_LATER, 0, NULL);
	fault_arm("", NULL);
	dup2(stderr_fd, STDERR_FILENO);
	close(stderr_fd);
	close(fd);
	*good = image;
	g_assert_cmpint(image_close(image), ==, 0);
	g_assert_true(g_file_get_contents(log, &text, NULL, NULL));
	return text;
}

/* That a batch was finished is said when it was. */
static void test_finished_is_said_after(void)
{
	g_autofree char *path = owing();
	bool good = false;
	unsigned n;

	for (n = 1; !good; n++) {
		g_autofree char *copy = copy_of(path), *said = said_at_open(copy, n, &good);

		assert_sound(copy);
		g_assert_true(good == (strstr(said, "finished a batch") != NULL));
	}
	g_assert_cmpuint(n, >, 3);
}

/* The entry that owes it, in the image's bytes, and its record. */
static struct leaf_journal_entry_ondisk *find_owed(uint8_t *image, gsize length, struct leaf_record_ondisk **record)
{
	for (gsize offset = 0; offset < length; offset += BLOCK_SIZE) {
		struct leaf_journal_entry_ondisk *entry = (void *)(image + offset + sizeof(**record));

		*record = (void *)(image + offset);
		if (le32_get((*record)->magic) == LEAF_RECORD_MAGIC && le32_get(entry->type) == LEAF_JOURNAL_APPLY)
			return entry;
	}
	g_assert_not_reached();
}

static void assert_refused(const char *path)
{
	for (unsigned flags = 0; flags <= IMAGE_WRITABLE; flags += IMAGE_WRITABLE) {
		g_autoptr(GError) error = NULL;

		g_assert_null(image_open(path, IMAGE_FORMAT_LEAF, flags, 0, &error));
		g_assert_nonnull(strstr(error->message, path));
	}
}

static void forge_and_check(unsigned value, uint64_t forged)
{
	g_autofree char *path = owing();
	struct image_check_result result = {0};
	struct leaf_journal_entry_ondisk *entry;
	struct leaf_record_ondisk *record;
	g_autofree char *image = NULL;
	unsigned findings = 0;
	gsize length;

	g_assert_true(g_file_get_contents(path, &image, &length, NULL));
	entry = find_owed((uint8_t *)image, length, &record);
	g_assert_cmpuint(le64_get(entry->value[0]), ==, 12);
	entry->value[value] = le64_of(forged);
	leaf_record_seal(record, le32_get(record->bytes), le64_get(record->position), le64_get(record->epoch),
			 le64_get(record->sequence), le64_get(record->image_id), le32_get(record->entries),
			 le64_get(record->slot_count));
	g_assert_true(g_file_set_contents(path, image, (gssize)length, NULL));
	g_assert_true(image_check(path, IMAGE_FORMAT_LEAF, false, finding, &findings, &result, NULL));
	g_assert_cmpuint(findings, >, 0);
	assert_refused(path);
	unlink(path);
}

/* To a block that is not there, past the end of its chunk or of the disk, from a
 * slot that has a chunk, that the file does not have, or from its outside. */
static void test_forged_copies(void)
{
	static const struct {
		unsigned value;
		uint64_t forged;
	} forgeries[] = {
		{0, 50}, {0, 3},	{0, BLOCKS},	 {0, UINT64_MAX}, {1, 5},	   {1, PER_CHUNK + 1},
		{2, 2},	 {2, 1u << 30}, {2, UINT64_MAX}, {3, PER_CHUNK},  {3, UINT64_MAX},
	};

	for (unsigned i = 0; i < G_N_ELEMENTS(forgeries); i++)
		forge_and_check(forgeries[i].value, forgeries[i].forged);
}

static void test_crash_over_soft(void)
{
	for (unsigned n = 1, died = 1; died; n++) {
		g_autofree char *path = new_leaf(SIZE);
		g_autofree char *fault = g_strdup_printf("aio.write:crash@%u", n);
		uint8_t *data = new_buffer(SIZE);
		struct image_extent extent;
		struct image *image;

		died = die_at(path, fault, "soft");
		image = open_leaf(path, IMAGE_WRITABLE);
		extent = image_extent(image, 5, 1);
		g_assert_cmpint(transfer(image, false, 5, 1, data), ==, 0);
		g_assert_true(extent.state == EXTENT_ABSENT || data[0] == 1 || data[0] == 2);
		g_assert_true(died || data[0] == 2);
		g_assert_cmpint(image_close(image), ==, 0);
		assert_sound(path);
		unlink(path);
		free(data);
	}
}

/* The Nth operation fails: an image that is not FAILED is as before and takes
 * the next batch; any is sound when it is opened anew. */
static bool apply_failing_at(const char *point, const char *error, unsigned n)
{
	uint8_t before[BLOCKS], after[BLOCKS];
	g_autofree char *path = prepared(before, after);
	g_autofree char *fault = g_strdup_printf("%s:%s@%ux1", point, error, n);
	struct image *image = open_leaf(path, IMAGE_WRITABLE);
	bool failed;
	int result;

	fault_arm(fault, NULL);
	result = apply_batch(image, 2);
	fault_arm("", NULL);
	if (result < 0 && !image->failed) {
		g_assert_true(blocks_equal(image, before));
		g_assert_cmpint(apply_batch(image, 2), ==, 0);
	}
	failed = image->failed;
	g_assert_true(failed || blocks_equal(image, after));
	g_assert_cmpint(image_close(image), ==, failed ? -EIO : 0);
	image = open_leaf(path, IMAGE_WRITABLE);
	g_assert_true(blocks_equal(image, after) || (result < 0 && blocks_equal(image, before)));
	g_assert_cmpint(image_close(image), ==, 0);
	assert_sound(path);
	unlink(path);
	return result < 0;
}

static void test_failures(void)
{
	const char *errors[] = {"EIO", "ENOSPC"};

	for (unsigned i = 0; i < G_N_ELEMENTS(points); i++) {
		for (unsigned e = 0; e < G_N_ELEMENTS(errors); e++) {
			unsigned n = 1;

			while (apply_failing_at(points[i], errors[e], n))
				n++;
			g_test_message("%s:%s failed %u batches", points[i], errors[e], n - 1);
			if (g_str_has_prefix(points[i], "aio."))
				g_assert_cmpuint(n, >, 2);
		}
	}
}

static void assert_happened(const char *path, const uint8_t *after)
{
	g_autofree char *copy = copy_of(path);
	struct image *image = open_leaf(copy, IMAGE_WRITABLE);

	g_assert_true(blocks_equal(image, after));
	g_assert_cmpint(image_close(image), ==, 0);
	assert_sound(copy);
	unlink(copy);
}

/* No room for the record: nothing has happened; a crash may undo that until a
 * flush has succeeded. */
static void test_no_room(void)
{
	uint8_t before[BLOCKS], after[BLOCKS];
	g_autofree char *path = prepared(before, after);
	g_autofree char *copy = NULL;
	struct image *image = open_leaf(path, IMAGE_WRITABLE);
	uint8_t *data = new_buffer(SIZE);

	g_assert_cmpint(leaf_room_extend(leaf_of(image)), ==, 0);
	leaf_of(image)->checkpoint_due = true;
	fault_arm("image.write:ENOSPC@2x1", NULL);
	g_assert_cmpint(apply_batch(image, 2), ==, -ENOSPC); /* the checkpoint that it waits for */
	g_assert_cmpint(run_op(image, image_flush, 0, 0), ==, 0);
	fault_arm("aio.datasync:ENOSPC@2x1", NULL);
	g_assert_cmpint(apply_batch(image, 2), ==, -ENOSPC); /* its record, which is in the file */
	fault_arm("", NULL);
	g_assert_true(blocks_equal(image, before));
	/* What is written now must not be what a crash copies. */
	memset(data, 9, SIZE);
	g_assert_cmpint(transfer(image, true, 96, PER_CHUNK, data), ==, 0);
	assert_happened(path, after);
	g_assert_cmpint(run_op(image, image_flush, 0, 0), ==, 0);
	memset(before + 96, 9, PER_CHUNK);
	copy = copy_of(path);
	assert_reopened(copy, before);
	g_assert_cmpint(image_close(image), ==, 0);
	assert_reopened(path, before);
	free(data);
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
	g_test_add_func("/leaf-apply/batch", test_batch);
	g_test_add_func("/leaf-apply/model", test_model);
	g_test_add_func("/leaf-apply/bottom", test_bottom);
	g_test_add_func("/leaf-apply/space", test_space);
	g_test_add_func("/leaf-apply/tebibyte", test_tebibyte);
	g_test_add_func("/leaf-apply/invalid", test_invalid);
	g_test_add_func("/leaf-apply/too-big", test_too_big);
	g_test_add_func("/leaf-apply/checkpoint-due", test_checkpoint_due);
#ifdef LEAFDISK_FAULTS
	g_test_add_func("/leaf-apply/crash", test_crash);
	g_test_add_func("/leaf-apply/crash-in-finishing", test_crash_in_finishing);
	g_test_add_func("/leaf-apply/finished-is-said-after", test_finished_is_said_after);
	g_test_add_func("/leaf-apply/no-memory", test_no_memory);
	g_test_add_func("/leaf-apply/forged-copies", test_forged_copies);
	g_test_add_func("/leaf-apply/crash-over-soft", test_crash_over_soft);
	g_test_add_func("/leaf-apply/failures", test_failures);
	g_test_add_func("/leaf-apply/no-room", test_no_room);
#endif
	status = g_test_run();
	remove_directory();
	return status;
}
