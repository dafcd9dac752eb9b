/* Room for the native layer's slots: the file is extended beside its writers, and
 * a grow command may take as long as it likes. */
#include <errno.h>
#include <signal.h>

#include "core/starter.h"
#include "leaf_fixture.h"

#define PER_CHUNK (CHUNK / BLOCK_SIZE)
#define CHUNKS 2000
#define SIZE ((uint64_t)CHUNKS * CHUNK)

static char *in_directory(const char *name)
{
	return g_build_filename(directory, name, NULL);
}

static void use_command(const char *script)
{
	const char *argv[] = {"/bin/sh", "-c", script, NULL};
	const char *const *programs[STARTER_PROGRAMS] = {[STARTER_GROW] = argv};

	g_assert_true(starter_begin(programs, false, NULL));
}

/* The image on a device, as far as its slots are concerned: it ends where it
 * ends, and the command does not make it larger. */
static struct image *open_on_device(const char *path)
{
	struct image *image = open_leaf(path, IMAGE_WRITABLE);

	leaf_of(image)->file.block_device = true;
	return image;
}

static int zero_chunk_part(struct image *image)
{
	return run_op(image, image_zero, 1, 1);
}

static bool exists_in_time(const char *path)
{
	gint64 deadline = g_get_monotonic_time() + 60 * G_USEC_PER_SEC;

	while (!g_file_test(path, G_FILE_TEST_EXISTS) && g_get_monotonic_time() < deadline)
		g_usleep(10 * 1000);
	return g_file_test(path, G_FILE_TEST_EXISTS);
}

/* The image is closed while its command runs; the command ends afterwards. */
static void test_command_outlasts_image(void)
{
	g_autofree char *path = new_leaf(SIZE);
	g_autofree char *gate = in_directory("gate"), *ended = in_directory("ended");
	g_autofree char *script = g_strdup_printf("while ! [ -e '%s' ]; do sleep 0.02; done; touch '%s'", gate, ended);
	struct image *image = open_on_device(path);
	uint8_t *data = new_buffer(BLOCK_SIZE);
	struct image_io io = {.image = image, .length = BLOCK_SIZE, .buffer = data};

	use_command(script);
	g_assert_cmpint(image_write(&io), ==, -EAGAIN);
	g_assert_cmpint(run_op(image, image_flush, 0, 0), ==, 0);
	g_assert_cmpint(image_close(image), ==, 0);
	g_assert_true(g_file_set_contents(gate, "", 0, NULL));
	g_assert_true(exists_in_time(ended));
	starter_end();
	assert_sound(path);
	free(data);
}

/* A discard that needs a slot waits for the command like a write. */
static void test_command_in_vain(void)
{
	g_autofree char *path = new_leaf(SIZE);
	struct image *image = open_on_device(path);

	use_command("exit 1");
	g_assert_cmpint(zero_chunk_part(image), ==, -ENOSPC);
	g_assert_cmpint(zero_chunk_part(image), ==, -ENOSPC);
	starter_end();
	g_assert_cmpint(image_close(image), ==, 0);
	assert_sound(path);
}

#ifdef LEAFDISK_FAULTS
/* A device with room for a few slots more: writes that fail leave it to those that
 * do not. */
static void test_failures_leave_room(void)
{
	g_autofree char *path = new_leaf(SIZE);
	struct image *image = open_leaf(path, IMAGE_WRITABLE);
	struct leaf *leaf = leaf_of(image);
	uint8_t *data = new_buffer(BLOCK_SIZE);

	memset(data, 5, BLOCK_SIZE);
	g_assert_cmpint(transfer(image, true, 0, 1, data), ==, 0);
	g_assert_cmpint(run_op(image, image_flush, 0, 0), ==, 0);
	leaf->file.block_device = true;
	leaf->file_bytes = leaf_slot_offset(&leaf->geometry, leaf->slots->len + 4);
	fault_arm("aio.write:EIO", NULL);
	for (unsigned chunk = 1; chunk < 50; chunk++)
		g_assert_cmpint(transfer(image, true, chunk * PER_CHUNK, 1, data), ==, -EIO);
	fault_arm("", NULL);
	for (unsigned chunk = 1; chunk < 5; chunk++)
		g_assert_cmpint(transfer(image, true, chunk * PER_CHUNK, 1, data), ==, 0);
	g_assert_cmpint(transfer(image, true, 5 * PER_CHUNK, 1, data), ==, -ENOSPC);
	g_assert_cmpint(image_close(image), ==, 0);
	assert_sound(path);
	free(data);
}

static bool ends_in_time(const char *pid_file)
{
	g_autofree char *text = NULL;
	gint64 deadline = g_get_monotonic_time() + 60 * G_USEC_PER_SEC;
	pid_t pid;

	g_assert_true(g_file_get_contents(pid_file, &text, NULL, NULL));
	pid = (pid_t)atoi(text);
	g_assert_cmpint(pid, >, 1);
	while (kill(pid, 0) == 0 && g_get_monotonic_time() < deadline)
		g_usleep(10 * 1000);
	return kill(pid, 0) < 0;
}

/* The command, and what it started, is killed at its limit. */
static void test_command_without_end(void)
{
	g_autofree char *path = new_leaf(SIZE);
	g_autofree char *pid_file = in_directory("pid");
	g_autofree char *script = g_strdup_printf("sleep 1000 & echo $! > '%s'; wait", pid_file);
	struct image *image = open_on_device(path);

	fault_arm("grow.limit:EIO", NULL);
	use_command(script);
	g_assert_cmpint(zero_chunk_part(image), ==, -ENOSPC);
	fault_arm("", NULL);
	starter_end();
	g_assert_true(ends_in_time(pid_file));
	g_assert_cmpint(image_close(image), ==, 0);
}

/* A step of the file that fails, with every error: those that need it are told,
 * nobody else, and the next try is a new one. */
static void test_extending_fails(void)
{
	const char *errors[] = {"EIO", "ENOSPC", "EFBIG"};

	for (unsigned e = 0; e < G_N_ELEMENTS(errors); e++) {
		g_autofree char *path = new_leaf(SIZE);
		g_autofree char *fault = g_strdup_printf("image.extend:%s", errors[e]);
		struct image *image = open_leaf(path, IMAGE_WRITABLE);
		uint8_t *data = new_buffer(CHUNK);
		uint64_t chunk = 0;
		int result = 0;

		memset(data, 5, CHUNK);
		g_assert_cmpint(transfer(image, true, 0, PER_CHUNK, data), ==, 0);
		fault_arm(fault, NULL);
		while (result == 0 && ++chunk < CHUNKS)
			result = transfer(image, true, chunk * PER_CHUNK, 1, data);
		g_assert_cmpint(result, <, 0);
		g_assert_cmpint(chunk, >, 400);
		g_assert_cmpint(transfer(image, true, 0, PER_CHUNK, data), ==, 0);
		g_assert_cmpint(run_op(image, image_flush, 0, 0), ==, 0);
		fault_arm("", NULL);
		g_assert_cmpint(transfer(image, true, chunk * PER_CHUNK, 1, data), ==, 0);
		g_assert_cmpint(image_close(image), ==, 0);
		assert_sound(path);
		unlink(path);
		free(data);
	}
}
#endif

int main(int argc, char **argv)
{
	int status;

	g_test_init(&argc, &argv, NULL);
	directory = make_directory();
	g_test_add_func("/leaf-room/command-outlasts-image", test_command_outlasts_image);
	g_test_add_func("/leaf-room/command-in-vain", test_command_in_vain);
#ifdef LEAFDISK_FAULTS
	g_test_add_func("/leaf-room/command-without-end", test_command_without_end);
	g_test_add_func("/leaf-room/extending-fails", test_extending_fails);
	g_test_add_func("/leaf-room/failures-leave-room", test_failures_leave_room);
#endif
	status = g_test_run();
	remove_directory();
	return status;
}
