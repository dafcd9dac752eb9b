/* The native layer without a mount: bits, blocks, crashes at every write. */
#include <errno.h>

#include "core/counters.h"
#include "core/error.h"
#include "leaf_fixture.h"

#define BLOCKS 64
#define SIZE ((uint64_t)BLOCKS * BLOCK_SIZE)

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
	uint8_t *data = new_buffer(SIZE);
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
			assert_blocks(image, model, BLOCKS);
	}
	assert_blocks(image, model, BLOCKS);
	g_assert_cmpint(image_close(image), ==, 0);
	free(data);
}

/* A thousand commits go through the journal's end several times. */
static void test_checkpoints(void)
{
	g_autofree char *path = new_leaf(SIZE);
	struct image *image = open_leaf(path, IMAGE_WRITABLE);
	uint64_t before = counters.image_checkpoints;
	uint8_t *data = new_buffer(SIZE);
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
	assert_blocks(image, model, BLOCKS);
	image_close(image);
	free(data);
}

/* A soft write is named by nothing on disk; a hard one to the same block must
 * be, once it was flushed. */
static void test_hard_over_soft(void)
{
	g_autofree char *path = new_leaf(SIZE);
	g_autofree char *crashed = NULL;
	struct image *image = open_leaf(path, IMAGE_WRITABLE);
	uint8_t *data = new_buffer(SIZE);

	memset(data, 1, BLOCK_SIZE);
	g_assert_cmpint(write_soft(image, 5, data), ==, 0);
	g_assert_cmpint(run_op(image, image_flush, 0, 0), ==, 0);
	memset(data, 2, BLOCK_SIZE);
	g_assert_cmpint(transfer(image, true, 5, 1, data), ==, 0);
	g_assert_cmpint(run_op(image, image_flush, 0, 0), ==, 0);
	crashed = copy_of(path);
	image_close(image);
	image = open_leaf(crashed, 0);
	g_assert_cmpint(image_extent(image, 5, 1).state, ==, EXTENT_DATA);
	g_assert_cmpint(transfer(image, false, 5, 1, data), ==, 0);
	g_assert_cmphex(data[0], ==, 2);
	image_close(image);
	free(data);
}

#ifdef LEAFDISK_FAULTS
static int many_commits(struct image *image)
{
	uint8_t *data = new_buffer(SIZE);

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

/* Opening, a commit with a block more, and a checkpoint: all that the header's
 * two copies go through. */
static int begin_session(struct image *image)
{
	uint8_t *data = new_buffer(BLOCK_SIZE);
	unsigned block = 0;
	int result;

	while (image_extent(image, block, 1).state != EXTENT_ABSENT)
		block++;
	memset(data, (int)block + 1, BLOCK_SIZE);
	result = transfer(image, true, block, 1, data);
	if (result == 0)
		result = run_op(image, image_flush, 0, 0);
	leaf_of(image)->checkpoint_due = true;
	if (result == 0)
		result = run_op(image, image_flush, 0, 0);
	free(data);
	return result;
}

static const struct leaf_act acts[] = {{"commits", many_commits, false}, {"session", begin_session, true}};

static int write_and_checkpoint(struct image *image, uint8_t *data)
{
	int result = transfer(image, true, 1, 1, data);

	leaf_of(image)->checkpoint_due = true;
	return result == 0 ? run_op(image, image_flush, 0, 0) : result;
}

/* Errors that pass by themselves, at each blocking call of an open, an extension, a
 * checkpoint and a discard: nobody hears of them. */
static void test_transient_errors(void)
{
	const char *errors[] = {"EAGAIN", "EINTR", "ENOMEM", "EBUSY"};
	const char *points[] = {"image.read", "image.write", "image.sync", "image.extend", "image.punch"};

	for (unsigned i = 0; i < G_N_ELEMENTS(errors) * G_N_ELEMENTS(points); i++) {
		const char *point = points[i / G_N_ELEMENTS(errors)], *error = errors[i % G_N_ELEMENTS(errors)];
		g_autofree char *path = new_leaf(SIZE);
		g_autofree char *fault = g_strdup_printf("%s:%s@1x3", point, error);
		uint8_t *data = new_buffer(BLOCK_SIZE);
		struct image *image;

		memset(data, 3, BLOCK_SIZE);
		fault_arm(fault, NULL);
		image = open_leaf(path, IMAGE_WRITABLE);
		g_assert_cmpint(write_and_checkpoint(image, data), ==, 0);
		fault_arm(fault, NULL);
		g_assert_cmpint(write_and_checkpoint(image, data), ==, 0);
		g_assert_cmpint(run_op(image, image_zero, 0, 1), ==, 0);
		g_assert_false(image->failed);
		g_assert_cmpint(image_close(image), ==, 0);
		fault_arm("", NULL);
		assert_sound(path);
		free(data);
	}
}

/* One that does not pass: the table says what it means in the end, and when. */
static void test_transient_without_end(void)
{
	g_autofree char *path = new_leaf(SIZE);
	struct image *image = open_leaf(path, IMAGE_WRITABLE);
	uint8_t *data = new_buffer(BLOCK_SIZE);
	gint64 began;

	memset(data, 3, BLOCK_SIZE);
	g_assert_cmpint(write_and_checkpoint(image, data), ==, 0);
	image_set_io_timeout(200 * 1000 * 1000);
	fault_arm("image.sync:EAGAIN", NULL);
	began = g_get_monotonic_time();
	g_assert_cmpint(write_and_checkpoint(image, data), ==, -EAGAIN);
	g_assert_cmpint(g_get_monotonic_time() - began, >=, G_USEC_PER_SEC / 5);
	fault_arm("", NULL);
	image_set_io_timeout(0);
	g_assert_true(image->failed);
	g_assert_cmpint(image_close(image), ==, -EIO);
	assert_sound(path);
	free(data);
}

/* The journal is written before its first use where there is room for it: without,
 * the image is opened; with any other error it is not. */
static void test_journal_without_room(void)
{
	g_autofree char *path = new_leaf(SIZE);
	g_autoptr(GError) error = NULL;
	struct image *image;

	fault_arm("image.write:EIO@1x1", NULL);
	g_assert_null(image_open(path, IMAGE_FORMAT_LEAF, IMAGE_WRITABLE, 0, &error));
	g_assert_cmpint(error_to_errno(error), ==, -EIO);
	fault_arm("image.write:ENOSPC@1x1", NULL);
	image = open_leaf(path, IMAGE_WRITABLE);
	fault_arm("", NULL);
	g_assert_cmpint(many_commits(image), ==, 0);
	g_assert_cmpint(image_close(image), ==, 0);
	assert_sound(path);
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
			uint8_t *data = new_buffer(SIZE);
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

/* What is left after deaths: BLOCKS blocks or one more, and it is found sound by
 * a check and by the next writer. */
static unsigned session_blocks(const char *path, unsigned blocks)
{
	struct image *image = open_leaf(path, 0);
	uint8_t model[BLOCKS];

	memset(model, 0xaa, sizeof(model));
	if (image_extent(image, blocks, 1).state != EXTENT_ABSENT)
		blocks++;
	for (unsigned i = 0; i < blocks; i++)
		model[i] = (uint8_t)(i + 1);
	assert_blocks(image, model, BLOCKS);
	image_close(image);
	return blocks;
}

/* True: the session met the fault. *BLOCKS are those sure to be there. */
static bool session_dies_at(const char *path, const char *fault, unsigned *blocks)
{
	unsigned before = *blocks;
	bool died = die_at(path, fault, "session");

	assert_sound(path);
	*blocks = session_blocks(path, before);
	g_assert_true(died || *blocks == before + 1);
	return died;
}

/* Every write of a session. Who dies at a flush leaves what the next write finds. */
static GPtrArray *session_faults(void)
{
	const char *points[] = {"image.write", "aio.write"};
	GPtrArray *faults = g_ptr_array_new_with_free_func(g_free);

	for (unsigned p = 0; p < G_N_ELEMENTS(points); p++)
		for (unsigned n = 1, met = 1; met; n++) {
			g_autofree char *path = new_leaf(SIZE);
			g_autofree char *fault = g_strdup_printf("%s:crash@%u", points[p], n);
			unsigned blocks = 0;

			/* A first session that was killed gives the next one all there is to do. */
			session_dies_at(path, "image.sync:crash@3", &blocks);
			met = session_dies_at(path, fault, &blocks);
			if (met)
				g_ptr_array_add(faults, g_steal_pointer(&fault));
			unlink(path);
		}
	return faults;
}

/* Sessions die one after the other, three times, at every pair of operations;
 * what the first leaves is kept for all that follow it. */
static void test_deaths_in_a_row(void)
{
	g_autoptr(GPtrArray) faults = session_faults();
	unsigned pairs = 0;

	g_assert_cmpuint(faults->len, >, 6);
	for (unsigned first = 0; first < faults->len; first++) {
		g_autofree char *path = new_leaf(SIZE);
		unsigned blocks = 0;

		session_dies_at(path, faults->pdata[first], &blocks);
		for (unsigned second = 0; second < faults->len; second++) {
			g_autofree char *copy = copy_of(path);
			unsigned found = blocks;

			pairs += session_dies_at(copy, faults->pdata[second], &found);
			session_dies_at(copy, faults->pdata[first], &found);
			g_assert_false(session_dies_at(copy, "image.sync:crash@1000", &found));
			unlink(copy);
		}
		unlink(path);
	}
	g_assert_cmpuint(pairs, >, 40);
}

/* An image that is opened and only read stays as the crash left it. */
static void test_reading_changes_nothing(void)
{
	g_autofree char *path = new_leaf(SIZE);
	g_autofree char *copy = NULL;
	const char *argv[] = {"cmp", path, NULL, NULL};
	unsigned blocks = 0;
	int status;

	g_assert_true(session_dies_at(path, "image.sync:crash@2", &blocks));
	argv[2] = copy = copy_of(path);
	image_close(open_leaf(path, 0));
	image_close(open_leaf(path, IMAGE_WRITABLE | IMAGE_BEGIN_LATER));
	g_assert_true(
		g_spawn_sync(NULL, (char **)argv, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, NULL, NULL, &status, NULL));
	g_assert_cmpint(status, ==, 0);
}

/* Beginning fails, and is tried again on the image that is still open. */
static void test_begin_again(void)
{
	const char *points[] = {"image.write", "image.sync"};

	for (unsigned p = 0; p < G_N_ELEMENTS(points); p++)
		for (unsigned n = 1; n < 5; n++) {
			g_autofree char *path = new_leaf(SIZE);
			g_autofree char *fault = g_strdup_printf("%s:EIO@%ux1", points[p], n);
			struct image *image = open_leaf(path, IMAGE_WRITABLE | IMAGE_BEGIN_LATER);
			uint64_t generation = image->generation;
			int result;

			fault_arm(fault, NULL);
			result = image_begin_writing(image, NULL);
			fault_arm("", NULL);
			assert_sound(path);
			fault_arm("image.write:EIO@2x1", NULL);
			image_begin_writing(image, NULL);
			fault_arm("", NULL);
			assert_sound(path);
			g_assert_cmpint(image_begin_writing(image, NULL), ==, 0);
			g_assert_true(result == 0 || image->generation > generation);
			g_assert_cmpint(image_close(image), ==, 0);
			assert_sound(path);
		}
}

/* No room for a commit: the flush says so, and the next one makes it good. */
static void test_no_room(void)
{
	const char *faults[] = {"aio.write:ENOSPC@1x1", "image.write:ENOSPC@1x1"};

	for (unsigned f = 0; f < G_N_ELEMENTS(faults); f++) {
		g_autofree char *path = new_leaf(SIZE);
		struct image *image = open_leaf(path, IMAGE_WRITABLE);
		struct leaf *leaf = leaf_of(image);
		uint8_t *data = new_buffer(SIZE);

		memset(data, 3, BLOCK_SIZE);
		leaf->checkpoint_due = f == 1;
		g_assert_cmpint(transfer(image, true, 5, 1, data), ==, 0);
		fault_arm(faults[f], NULL);
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
	uint8_t *data = new_buffer(SIZE);

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
	uint8_t *data = new_buffer(SIZE);

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
	uint8_t *data = new_buffer(SIZE);
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

int main(int argc, char **argv)
{
	int status;

#ifdef LEAFDISK_FAULTS
	if (argc == 5 && strcmp(argv[1], "--act") == 0)
		return act_and_die(argv, acts, G_N_ELEMENTS(acts));
#endif
	g_test_init(&argc, &argv, NULL);
	directory = make_directory();
	g_test_add_func("/leaf/bits", test_bits);
	g_test_add_func("/leaf/geometry", test_geometry);
	g_test_add_func("/leaf/model", test_model);
	g_test_add_func("/leaf/checkpoints", test_checkpoints);
	g_test_add_func("/leaf/hard-over-soft", test_hard_over_soft);
#ifdef LEAFDISK_FAULTS
	g_test_add_func("/leaf/transient-errors", test_transient_errors);
	g_test_add_func("/leaf/transient-without-end", test_transient_without_end);
	g_test_add_func("/leaf/journal-without-room", test_journal_without_room);
	g_test_add_func("/leaf/checkpoint-crash", test_checkpoint_crash);
	g_test_add_func("/leaf/deaths-in-a-row", test_deaths_in_a_row);
	g_test_add_func("/leaf/reading-changes-nothing", test_reading_changes_nothing);
	g_test_add_func("/leaf/begin-again", test_begin_again);
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
