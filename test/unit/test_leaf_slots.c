/* Slots of the native layer: one is not handed out before the last operation
 * on it has ended, nor while the disk may know of its last owner; and one of which
 * the disk knows nothing is free again at once. The file's punches wait here for as
 * long as a test wants. */
#include <errno.h>
#include <fcntl.h>
#include <sys/syscall.h>

#include "leaf_fixture.h"

#define PER_CHUNK (CHUNK / BLOCK_SIZE)
#define CHUNKS 8
#define BLOCKS (CHUNKS * PER_CHUNK)
#define SIZE ((uint64_t)BLOCKS * BLOCK_SIZE)

static struct {
	struct lock lock;
	struct condition changed;
	bool closed;
	unsigned waiting;
} punches = {.lock = LOCK_INIT(LOCK_RANK_FAULTS), .changed = CONDITION_INIT};

/* In place of the C library's. */
int fallocate(int fd, int mode, off_t offset, off_t length)
{
	lock_take(&punches.lock);
	punches.waiting++;
	condition_broadcast(&punches.changed);
	while (punches.closed)
		lock_wait(&punches.lock, &punches.changed);
	punches.waiting--;
	lock_let_go(&punches.lock);
	return (int)syscall(SYS_fallocate, fd, mode, offset, length);
}

static void hold_punches(bool hold)
{
	LOCK_GUARD(&punches.lock);
	punches.closed = hold;
	condition_broadcast(&punches.changed);
}

static void await_punches(unsigned count)
{
	LOCK_GUARD(&punches.lock);
	while (punches.waiting < count)
		lock_wait(&punches.lock, &punches.changed);
}

struct zeroing {
	struct image *image;
	uint64_t first;
	uint64_t blocks;
	bool bottom;
	GThread *thread;
};

static gpointer zero_thread(gpointer opaque)
{
	struct zeroing *zeroing = opaque;
	struct image_op op = {.offset = zeroing->first << BLOCK_SHIFT,
			      .length = zeroing->blocks << BLOCK_SHIFT,
			      .bottom = zeroing->bottom};

	return GINT_TO_POINTER(image_run_blocking(zeroing->image, &op, image_zero));
}

static void begin_zero(struct zeroing *zeroing)
{
	zeroing->thread = g_thread_new("zero", zero_thread, zeroing);
}

static void end_zero(struct zeroing *zeroing)
{
	g_assert_cmpint(GPOINTER_TO_INT(g_thread_join(zeroing->thread)), ==, 0);
}

static void write_chunk(struct image *image, uint64_t chunk, uint8_t value, uint8_t *model)
{
	uint8_t *data = new_buffer(CHUNK);

	memset(data, value, CHUNK);
	g_assert_cmpint(transfer(image, true, chunk * PER_CHUNK, PER_CHUNK, data), ==, 0);
	memset(model + chunk * PER_CHUNK, value, PER_CHUNK);
	free(data);
}

static void flush(struct image *image)
{
	g_assert_cmpint(run_op(image, image_flush, 0, 0), ==, 0);
}

static void close_sound(struct image *image, const char *path, const uint8_t *model)
{
	g_assert_cmpint(image_close(image), ==, 0);
	assert_sound(path);
	image = open_leaf(path, 0);
	assert_blocks(image, model, BLOCKS);
	image_close(image);
}

/* A whole chunk is zeroed and its punch takes long; a commit makes the disk
 * forget its slot, and others write. */
static void test_late_punch(gconstpointer bottom)
{
	g_autofree char *path = new_leaf(SIZE);
	struct image *image = open_leaf(path, IMAGE_WRITABLE);
	struct zeroing zeroing = {image, 0, PER_CHUNK, bottom != NULL, NULL};
	uint8_t model[BLOCKS];

	memset(model, 0xaa, sizeof(model));
	write_chunk(image, 0, 1, model);
	flush(image);
	hold_punches(true);
	begin_zero(&zeroing);
	await_punches(1);
	memset(model, bottom ? 0xaa : 0, PER_CHUNK);
	flush(image);
	flush(image);
	for (unsigned chunk = 1; chunk < 4; chunk++)
		write_chunk(image, chunk, (uint8_t)(chunk + 1), model);
	flush(image);
	hold_punches(false);
	end_zero(&zeroing);
	assert_blocks(image, model, BLOCKS);
	write_chunk(image, 5, 6, model);
	close_sound(image, path, model);
}

/* The same for a punch of a part, whose chunk goes in the meantime. */
static void test_late_punch_of_part(void)
{
	g_autofree char *path = new_leaf(SIZE);
	struct image *image = open_leaf(path, IMAGE_WRITABLE);
	struct zeroing part = {image, 2, 5, false, NULL}, whole = {image, 0, PER_CHUNK, false, NULL};
	uint8_t model[BLOCKS];

	memset(model, 0xaa, sizeof(model));
	write_chunk(image, 0, 1, model);
	flush(image);
	hold_punches(true);
	begin_zero(&part);
	await_punches(1);
	begin_zero(&whole);
	await_punches(2);
	memset(model, 0, PER_CHUNK);
	flush(image);
	flush(image);
	for (unsigned chunk = 1; chunk < 4; chunk++)
		write_chunk(image, chunk, (uint8_t)(chunk + 1), model);
	flush(image);
	hold_punches(false);
	end_zero(&part);
	end_zero(&whole);
	assert_blocks(image, model, BLOCKS);
	close_sound(image, path, model);
}

/* Once all has ended the slots are used again. */
static void test_slots_come_back(void)
{
	g_autofree char *path = new_leaf(SIZE);
	struct image *image = open_leaf(path, IMAGE_WRITABLE);
	struct zeroing zeroing = {image, 0, BLOCKS, false, NULL};
	uint8_t model[BLOCKS];

	memset(model, 0xaa, sizeof(model));
	for (unsigned round = 0; round < 20; round++) {
		for (unsigned chunk = 0; chunk < CHUNKS; chunk++)
			write_chunk(image, chunk, (uint8_t)(round + 1), model);
		hold_punches(true);
		begin_zero(&zeroing);
		await_punches(1);
		memset(model, 0, BLOCKS);
		flush(image);
		hold_punches(false);
		end_zero(&zeroing);
		flush(image);
	}
	g_assert_cmpuint(leaf_of(image)->slots->len, <=, 2 * CHUNKS + 2);
	close_sound(image, path, model);
}

/* What comes next is known, whatever has come and gone before. */
static void test_runs_without_slot(void)
{
	const uint64_t chunks = 4000;
	g_autofree char *path = new_leaf(chunks * CHUNK);
	struct image *image = open_leaf(path, IMAGE_WRITABLE);
	g_autofree uint8_t *there = g_malloc0(chunks);
	uint8_t *data = new_buffer(BLOCK_SIZE);

	memset(data, 1, BLOCK_SIZE);
	for (unsigned i = 0; i < 600; i++) {
		uint64_t chunk = (uint64_t)g_test_rand_int_range(0, (gint32)chunks), next = chunk;
		struct image_op gone = {.offset = chunk * CHUNK, .length = CHUNK, .bottom = true};
		struct image_extent extent;

		if (there[chunk])
			g_assert_cmpint(image_run_blocking(image, &gone, image_zero), ==, 0);
		else
			g_assert_cmpint(transfer(image, true, chunk * PER_CHUNK, 1, data), ==, 0);
		there[chunk] ^= 1;
		chunk = (uint64_t)g_test_rand_int_range(0, (gint32)chunks);
		for (next = chunk; next < chunks && !there[next];)
			next++;
		extent = image_extent_blocking(image, chunk * PER_CHUNK, (chunks - chunk) * PER_CHUNK);
		if (next == chunk)
			g_assert_cmpint(extent.state, ==, EXTENT_DATA);
		else
			g_assert_cmpuint(extent.blocks, ==, (next - chunk) * PER_CHUNK);
	}
	g_assert_cmpint(image_close(image), ==, 0);
	assert_sound(path);
	free(data);
}

#ifdef LEAFDISK_FAULTS
static int write_block(struct image *image, uint64_t chunk, uint8_t value)
{
	uint8_t *data = new_buffer(BLOCK_SIZE);
	int result;

	memset(data, value, BLOCK_SIZE);
	result = transfer(image, true, chunk * PER_CHUNK, 1, data);
	free(data);
	return result;
}

static int apply_block(struct image *image, uint64_t chunk, uint8_t value)
{
	uint8_t *data = new_buffer(BLOCK_SIZE);
	struct image_apply_extent extent = {chunk * CHUNK, BLOCK_SIZE, data};
	struct image_op op = {.extents = &extent, .extent_count = 1};
	int result;

	memset(data, value, BLOCK_SIZE);
	result = image_run_blocking(image, &op, image_apply);
	free(data);
	return result;
}

static void assert_chunk(struct image *image, uint64_t chunk, enum extent_state state, uint8_t value)
{
	uint8_t *data = new_buffer(BLOCK_SIZE);

	g_assert_cmpint(image_extent(image, chunk * PER_CHUNK, 1).state, ==, state);
	g_assert_cmpint(transfer(image, false, chunk * PER_CHUNK, 1, data), ==, 0);
	g_assert_cmphex(data[0], ==, value);
	free(data);
}

struct failing {
	const char *fault;
	int (*act)(struct image *image, uint64_t chunk, uint8_t value);
	bool zeroed; /* what it goes to is in the zero list */
};

#define FAILING_CHUNKS 600

/* Nothing is flushed, and what fails takes neither a slot nor what was there. */
static void test_failures_take_no_slot(gconstpointer opaque)
{
	const struct failing *failing = opaque;
	g_autofree char *path = new_leaf((uint64_t)FAILING_CHUNKS * CHUNK);
	struct image *image = open_leaf(path, IMAGE_WRITABLE);
	enum extent_state state = failing->zeroed ? EXTENT_ZERO : EXTENT_ABSENT;
	struct leaf *leaf = leaf_of(image);
	guint slots, freed;

	g_assert_cmpint(apply_block(image, 0, 1), ==, 0);
	g_assert_cmpint(apply_block(image, 0, 1), ==, 0);
	if (failing->zeroed)
		g_assert_cmpint(run_op(image, image_zero, PER_CHUNK, (FAILING_CHUNKS - 1) * PER_CHUNK), ==, 0);
	flush(image);
	slots = leaf->slots->len;
	freed = leaf->freed->len;
	fault_arm(failing->fault, NULL);
	for (unsigned chunk = 1; chunk < FAILING_CHUNKS; chunk++)
		g_assert_cmpint(failing->act(image, chunk, 7), ==, -EIO);
	fault_arm("", NULL);
	g_assert_cmpuint(leaf->slots->len, <=, slots + 2);
	g_assert_cmpuint(leaf->freed->len, ==, freed);
	for (unsigned chunk = 1; chunk < FAILING_CHUNKS; chunk++)
		assert_chunk(image, chunk, state, failing->zeroed ? 0 : 0xaa);
	g_assert_cmpint(failing->act(image, 5, 7), ==, 0);
	g_assert_cmpint(image_close(image), ==, 0);
	assert_sound(path);
	image = open_leaf(path, 0);
	assert_chunk(image, 5, EXTENT_DATA, 7);
	assert_chunk(image, 6, state, failing->zeroed ? 0 : 0xaa);
	image_close(image);
}

/* The record that has a slot was written, and its flush failed: a crash may find it.
 * The owner goes, and the slot is nobody's until a commit has told the disk. */
static void test_slot_of_a_failed_record(void)
{
	g_autofree char *path = new_leaf(SIZE), *copy = NULL;
	struct image *image = open_leaf(path, IMAGE_WRITABLE);
	struct leaf *leaf = leaf_of(image);
	struct image_op gone = {.offset = CHUNK, .length = CHUNK, .bottom = true};
	uint64_t slot;

	g_assert_cmpint(write_block(image, 0, 1), ==, 0);
	flush(image);
	g_assert_cmpint(write_block(image, 1, 2), ==, 0);
	slot = leaf_chunk_find(leaf, 1)->slot;
	fault_arm("aio.datasync:ENOSPC@2x1", NULL);
	g_assert_cmpint(run_op(image, image_flush, 0, 0), ==, -ENOSPC);
	g_assert_cmpint(image_run_blocking(image, &gone, image_zero), ==, 0);
	g_assert_cmpint(leaf_slot(leaf, slot)->state, ==, SLOT_FREED);
	for (unsigned chunk = 2; chunk < CHUNKS; chunk++)
		g_assert_cmpint(write_block(image, chunk, (uint8_t)(chunk + 1)), ==, 0);
	g_assert_null(leaf_slot_chunk(leaf, slot));
	copy = copy_of(path);
	flush(image);
	g_assert_cmpint(leaf_slot(leaf, slot)->state, ==, SLOT_FREE);
	fault_arm("", NULL);
	g_assert_cmpint(image_close(image), ==, 0);
	assert_sound(path);
	assert_sound(copy);
	image = open_leaf(copy, 0);
	assert_chunk(image, 0, EXTENT_DATA, 1);
	assert_chunk(image, 1, EXTENT_DATA, 0); /* discarded: zeros, whether a record says so or not */
	image_close(image);
}

/* A batch whose record failed: the same, of its chunks and of its redo slots. */
static void test_slots_of_a_failed_batch(void)
{
	g_autofree char *path = new_leaf(SIZE);
	struct image *image = open_leaf(path, IMAGE_WRITABLE);
	struct leaf *leaf = leaf_of(image);
	guint freed;

	g_assert_cmpint(write_block(image, 0, 1), ==, 0);
	flush(image);
	freed = leaf->freed->len;
	fault_arm("aio.datasync:ENOSPC@2x1", NULL);
	g_assert_cmpint(apply_block(image, 1, 2), ==, -ENOSPC);
	fault_arm("", NULL);
	g_assert_cmpuint(leaf->freed->len, ==, freed + 1);
	flush(image);
	g_assert_cmpuint(leaf->freed->len, ==, 0);
	g_assert_cmpint(image_close(image), ==, 0);
	assert_sound(path);
}
#endif

int main(int argc, char **argv)
{
#ifdef LEAFDISK_FAULTS
	static const struct failing writes = {"aio.write:EIO", write_block, false};
	static const struct failing zero_writes = {"aio.write:EIO", write_block, true};
	static const struct failing batches = {"aio.write:EIO", apply_block, false};
	static const struct failing zero_batches = {"aio.write:EIO", apply_block, true};
#endif
	int status;

	g_test_init(&argc, &argv, NULL);
	directory = make_directory();
	g_test_add_data_func("/leaf-slots/late-punch", NULL, test_late_punch);
	g_test_add_data_func("/leaf-slots/late-punch-bottom", "bottom", test_late_punch);
	g_test_add_func("/leaf-slots/late-punch-of-part", test_late_punch_of_part);
	g_test_add_func("/leaf-slots/slots-come-back", test_slots_come_back);
	g_test_add_func("/leaf-slots/runs-without-slot", test_runs_without_slot);
#ifdef LEAFDISK_FAULTS
	g_test_add_data_func("/leaf-slots/failing-writes", &writes, test_failures_take_no_slot);
	g_test_add_data_func("/leaf-slots/failing-writes-of-zeros", &zero_writes, test_failures_take_no_slot);
	g_test_add_data_func("/leaf-slots/failing-batches", &batches, test_failures_take_no_slot);
	g_test_add_data_func("/leaf-slots/failing-batches-of-zeros", &zero_batches, test_failures_take_no_slot);
	g_test_add_func("/leaf-slots/failed-record", test_slot_of_a_failed_record);
	g_test_add_func("/leaf-slots/failed-batch", test_slots_of_a_failed_batch);
#endif
	status = g_test_run();
	remove_directory();
	return status;
}
