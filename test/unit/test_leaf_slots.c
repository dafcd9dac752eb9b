/* Slots of the native layer: one is not handed out before the last operation
 * on it has ended. The file's punches wait here for as long as a test wants. */
#include <errno.h>
#include <fcntl.h>
#include <sys/syscall.h>

#include "leaf_fixture.h"

#define PER_CHUNK (CHUNK / BLOCK_SIZE)
#define CHUNKS 8
#define BLOCKS (CHUNKS * PER_CHUNK)
#define SIZE ((uint64_t)BLOCKS * BLOCK_SIZE)

static struct {
	GMutex lock;
	GCond changed;
	bool closed;
	unsigned waiting;
} punches;

/* In place of the C library's. */
int fallocate(int fd, int mode, off_t offset, off_t length)
{
	g_mutex_lock(&punches.lock);
	punches.waiting++;
	g_cond_broadcast(&punches.changed);
	while (punches.closed)
		g_cond_wait(&punches.changed, &punches.lock);
	punches.waiting--;
	g_mutex_unlock(&punches.lock);
	return (int)syscall(SYS_fallocate, fd, mode, offset, length);
}

static void hold_punches(bool hold)
{
	g_mutex_lock(&punches.lock);
	punches.closed = hold;
	g_cond_broadcast(&punches.changed);
	g_mutex_unlock(&punches.lock);
}

static void await_punches(unsigned count)
{
	g_mutex_lock(&punches.lock);
	while (punches.waiting < count)
		g_cond_wait(&punches.changed, &punches.lock);
	g_mutex_unlock(&punches.lock);
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

int main(int argc, char **argv)
{
	int status;

	g_test_init(&argc, &argv, NULL);
	directory = make_directory();
	g_test_add_data_func("/leaf-slots/late-punch", NULL, test_late_punch);
	g_test_add_data_func("/leaf-slots/late-punch-bottom", "bottom", test_late_punch);
	g_test_add_func("/leaf-slots/late-punch-of-part", test_late_punch_of_part);
	g_test_add_func("/leaf-slots/slots-come-back", test_slots_come_back);
	g_test_add_func("/leaf-slots/runs-without-slot", test_runs_without_slot);
	status = g_test_run();
	remove_directory();
	return status;
}
