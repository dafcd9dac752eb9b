/* The native layer where there is no more room: what is there can be changed,
 * discarded and flushed, and nothing is taken that would be needed for it. */
#include <errno.h>

#include "leaf_fixture.h"

#ifdef LEAFDISK_FAULTS

#define PER_CHUNK (CHUNK / BLOCK_SIZE)
#define CHUNKS 400
#define BLOCKS (CHUNKS * PER_CHUNK)
#define SIZE ((uint64_t)BLOCKS * BLOCK_SIZE)

static int write_chunk(struct image *image, unsigned chunk, uint8_t value)
{
	uint8_t *data = new_buffer(CHUNK);
	int result;

	memset(data, value, CHUNK);
	result = transfer(image, true, (uint64_t)chunk * PER_CHUNK, PER_CHUNK, data);
	free(data);
	return result;
}

static int zero_chunks(struct image *image, unsigned chunk, unsigned count)
{
	return run_op(image, image_zero, (uint64_t)chunk * PER_CHUNK, (uint64_t)count * PER_CHUNK);
}

static void flush(struct image *image)
{
	g_assert_cmpint(run_op(image, image_flush, 0, 0), ==, 0);
}

/* Chunks from 0 on are data until no more fit. */
static unsigned fill(struct image *image)
{
	unsigned chunk = 0;

	g_assert_cmpint(write_chunk(image, chunk++, 1), ==, 0);
	flush(image);
	fault_arm("image.extend:ENOSPC", NULL);
	while (write_chunk(image, chunk, 1) == 0)
		chunk++;
	g_assert_cmpint(write_chunk(image, chunk, 1), ==, -ENOSPC);
	flush(image);
	return chunk;
}

static void close_sound(struct image *image, const char *path)
{
	fault_arm("", NULL);
	g_assert_cmpint(image_close(image), ==, 0);
	assert_sound(path);
}

/* Through the journal's end more than once. */
static void test_flush_for_ever(void)
{
	g_autofree char *path = new_leaf(4 * SIZE);
	struct image *image = open_leaf(path, IMAGE_WRITABLE);
	unsigned chunks = fill(image);
	uint8_t *data = new_buffer(BLOCK_SIZE);

	memset(data, 2, BLOCK_SIZE);
	for (unsigned i = 0; i < 700; i++) {
		g_assert_cmpint(zero_chunks(image, 3 * CHUNKS + 2 * (i % 100), 1), ==, 0);
		if (i % 2)
			g_assert_cmpint(run_op(image, image_zero, 0, 1), ==, 0);
		else
			g_assert_cmpint(transfer(image, true, 0, 1, data), ==, 0);
		flush(image);
	}
	g_assert_cmpint(zero_chunks(image, 0, chunks), ==, 0);
	flush(image);
	g_assert_cmpint(write_chunk(image, 2 * CHUNKS, 3), ==, 0);
	flush(image);
	close_sound(image, path);
	image = open_leaf(path, 0);
	for (unsigned i = 0; i < 100; i++)
		g_assert_cmpint(image_extent(image, (uint64_t)(3 * CHUNKS + 2 * i) * PER_CHUNK, 1).state, ==,
				EXTENT_ZERO);
	g_assert_cmpint(image_extent(image, 0, PER_CHUNK).state, ==, EXTENT_ZERO);
	image_close(image);
	free(data);
}

/* The zero list gets longer than the reserve has room for: the discard says so,
 * all that were taken are kept, and flushes go on. */
static void test_long_zero_list(void)
{
	const unsigned disk_chunks = 40000;
	g_autofree char *path = new_leaf((uint64_t)disk_chunks * CHUNK);
	struct image *image = open_leaf(path, IMAGE_WRITABLE);
	unsigned first = fill(image) + 1, taken = 0;
	int result = 0;

	while ((result = zero_chunks(image, first + 2 * taken, 1)) == 0) {
		taken++;
		if (taken % 500 == 0) {
			leaf_of(image)->checkpoint_due = true;
			flush(image);
		}
	}
	g_assert_cmpint(result, ==, -ENOSPC);
	g_assert_cmpuint(taken, >, 1000);
	leaf_of(image)->checkpoint_due = true;
	flush(image);
	g_assert_cmpint(zero_chunks(image, 0, 4), ==, 0);
	flush(image);
	g_assert_cmpint(zero_chunks(image, first + 2 * taken, 1), ==, 0);
	close_sound(image, path);
	image = open_leaf(path, 0);
	for (unsigned i = 0; i <= taken; i++)
		g_assert_cmpint(image_extent(image, (uint64_t)(first + 2 * i) * PER_CHUNK, 1).state, ==, EXTENT_ZERO);
	image_close(image);
}

/* Checkpoints that fail for want of room take no slot each. */
static void test_failing_checkpoints(void)
{
	g_autofree char *path = new_leaf(SIZE);
	struct image *image = open_leaf(path, IMAGE_WRITABLE);
	guint slots;

	for (unsigned i = 0; i < 10; i++)
		g_assert_cmpint(write_chunk(image, i, 1), ==, 0);
	flush(image);
	g_assert_cmpint(zero_chunks(image, 20, 5), ==, 0);
	slots = leaf_of(image)->slots->len;
	for (unsigned i = 0; i < 50; i++) {
		leaf_of(image)->checkpoint_due = true;
		g_assert_cmpint(zero_chunks(image, 30 + 2 * i, 1), ==, 0);
		fault_arm("image.write:ENOSPC", NULL);
		g_assert_cmpint(run_op(image, image_flush, 0, 0), ==, -ENOSPC);
		fault_arm("", NULL);
	}
	g_assert_cmpuint(leaf_of(image)->slots->len, ==, slots);
	flush(image);
	close_sound(image, path);
	image = open_leaf(path, 0);
	g_assert_cmpint(image_extent(image, 128 * PER_CHUNK, 1).state, ==, EXTENT_ZERO);
	image_close(image);
}

static int apply_block(struct image *image, uint64_t block, uint64_t blocks, uint8_t *data)
{
	struct image_apply_extent extent = {block << BLOCK_SHIFT, blocks << BLOCK_SHIFT, data};
	struct image_op op = {.extents = &extent, .extent_count = 1};

	return image_run_blocking(image, &op, image_apply);
}

/* A batch over blocks that are there finds its room, from one block up to what
 * image.h promises; so do zeros. */
static void test_batches(void)
{
	g_autofree char *path = new_leaf(4 * SIZE);
	struct image *image = open_leaf(path, IMAGE_WRITABLE);
	uint8_t *data = new_buffer(CHUNK);
	unsigned chunks;

	memset(data, 4, CHUNK);
	g_assert_cmpint(apply_block(image, 0, 1, data), ==, 0);
	chunks = fill(image);
	for (unsigned i = 0; i < 600; i++) {
		data[0] = (uint8_t)i;
		g_assert_cmpint(apply_block(image, i % 40, 1 + i % IMAGE_APPLY_RESERVE_BLOCKS, data), ==, 0);
	}
	g_assert_cmpint(apply_block(image, (uint64_t)chunks * PER_CHUNK, 1, data), ==, -ENOSPC);
	g_assert_cmpint(apply_block(image, 0, 2 * PER_CHUNK, NULL), ==, 0);
	g_assert_cmpint(apply_block(image, (uint64_t)chunks * PER_CHUNK, 1, data), ==, 0);
	free(data);
	close_sound(image, path);
}

static uint8_t byte_after_crash(const char *path, uint64_t block)
{
	g_autofree char *copy = copy_of(path);
	struct image *image = open_leaf(copy, IMAGE_WRITABLE);
	uint8_t *data = new_buffer(BLOCK_SIZE), byte;

	g_assert_cmpint(transfer(image, false, block, 1, data), ==, 0);
	byte = data[0];
	free(data);
	image_close(image);
	return byte;
}

/* A batch whose record may be on disk is refused; until a checkpoint that is
 * durable voids the record no flush is answered without one, however often it finds no room. */
static void test_refused_batch_stays_refused(void)
{
	g_autofree char *path = new_leaf(SIZE);
	struct image *image = open_leaf(path, IMAGE_WRITABLE);
	struct image_apply_extent zeros = {2 * CHUNK, CHUNK, NULL};
	struct image_op batch = {.extents = &zeros, .extent_count = 1, .bottom = true};

	for (unsigned i = 0; i < 4; i++)
		g_assert_cmpint(write_chunk(image, i, 1), ==, 0);
	flush(image);
	fault_arm("aio.datasync:ENOSPC@2x1", NULL);
	g_assert_cmpint(image_run_blocking(image, &batch, image_apply), ==, -ENOSPC);
	fault_arm("image.write:ENOSPC", NULL);
	for (unsigned i = 0; i < 3; i++)
		g_assert_cmpint(run_op(image, image_flush, 0, 0), ==, -ENOSPC);
	fault_arm("", NULL);
	g_assert_cmpint(write_chunk(image, 2, 7), ==, 0);
	flush(image);
	g_assert_cmpuint(byte_after_crash(path, 2 * PER_CHUNK), ==, 7);
	close_sound(image, path);
}

/* A hard write over a soft block, while a checkpoint that would name the block
 * fails, is in the next record. */
static void test_soft_block_of_a_failed_checkpoint(void)
{
	g_autofree char *path = new_leaf(SIZE);
	struct image *image = open_leaf(path, IMAGE_WRITABLE);
	uint8_t *data = new_buffer(BLOCK_SIZE);
	struct leaf *leaf = leaf_of(image);
	struct leaf_checkpoint *checkpoint;
	struct leaf_dirty taken;
	int result;

	memset(data, 3, BLOCK_SIZE);
	g_assert_cmpint(write_chunk(image, 0, 1), ==, 0);
	flush(image);
	g_assert_cmpint(write_soft(image, 100 * PER_CHUNK, data), ==, 0);
	lock_take(&leaf->lock);
	checkpoint = leaf_checkpoint_prepare_locked(leaf, NULL, &taken, &result);
	lock_let_go(&leaf->lock);
	memset(data, 9, BLOCK_SIZE);
	g_assert_cmpint(transfer(image, true, 100 * PER_CHUNK, 1, data), ==, 0);
	lock_take(&leaf->lock);
	leaf_dirty_restore_locked(leaf, &taken);
	leaf_checkpoint_undo_locked(leaf, checkpoint);
	lock_let_go(&leaf->lock);
	leaf_checkpoint_free(checkpoint);
	flush(image);
	g_assert_cmpuint(byte_after_crash(path, 100 * PER_CHUNK), ==, 9);
	close_sound(image, path);
	free(data);
}
#endif

int main(int argc, char **argv)
{
	int status;

	g_test_init(&argc, &argv, NULL);
	directory = make_directory();
#ifdef LEAFDISK_FAULTS
	g_test_add_func("/leaf-full/flush-for-ever", test_flush_for_ever);
	g_test_add_func("/leaf-full/long-zero-list", test_long_zero_list);
	g_test_add_func("/leaf-full/failing-checkpoints", test_failing_checkpoints);
	g_test_add_func("/leaf-full/batches", test_batches);
	g_test_add_func("/leaf-full/refused-batch", test_refused_batch_stays_refused);
	g_test_add_func("/leaf-full/soft-block", test_soft_block_of_a_failed_checkpoint);
#endif
	status = g_test_run();
	remove_directory();
	return status;
}
