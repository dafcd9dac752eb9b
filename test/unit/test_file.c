/* Files: what is refused, the lock, sizes, whole transfers. */
#include "aio/file.h"

#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <string.h>
#include <unistd.h>

#include "core/bytes.h"

static char *path;

static int open_path(int flags)
{
	int fd = open(path, flags | O_CLOEXEC);

	g_assert_cmpint(fd, >=, 0);
	return fd;
}

static void test_look(void)
{
	g_autofree char *directory = g_path_get_dirname(path);
	const char *others[] = {directory, "/dev/null"};
	int fd = open_path(O_RDONLY);
	struct stat st;

	g_assert_true(aio_fd_look(fd, path, &st, NULL));
	g_assert_true(S_ISREG(st.st_mode));
	close(fd);
	for (unsigned i = 0; i < G_N_ELEMENTS(others); i++) {
		g_autoptr(GError) error = NULL;

		fd = open(others[i], O_RDONLY | O_CLOEXEC);
		g_assert_false(aio_fd_look(fd, others[i], &st, &error));
		g_assert_nonnull(strstr(error->message, others[i]));
		close(fd);
	}
}

/* Shared locks go together; an exclusive one is alone, until its file is closed. */
static void test_lock(void)
{
	int a = open_path(O_RDWR), b = open_path(O_RDWR), c = open_path(O_RDWR);

	g_assert_cmpint(aio_fd_lock(a, false), ==, ANSWER_YES);
	g_assert_cmpint(aio_fd_lock(b, false), ==, ANSWER_YES);
	g_assert_cmpint(aio_fd_lock(c, true), ==, ANSWER_NO);
	close(a);
	close(b);
	g_assert_cmpint(aio_fd_lock(c, true), ==, ANSWER_YES);
	a = open_path(O_RDWR);
	g_assert_cmpint(aio_fd_lock(a, false), ==, ANSWER_NO);
	close(c);
	g_assert_cmpint(aio_fd_lock(a, false), ==, ANSWER_YES);
	close(a);
}

static void *close_later(void *fd)
{
	g_usleep(100 * 1000);
	close(GPOINTER_TO_INT(fd));
	return NULL;
}

/* Who has just closed is waited for. */
static void test_lock_waits(void)
{
	int a = open_path(O_RDWR), b = open_path(O_RDWR);
	GThread *thread;

	g_assert_cmpint(aio_fd_lock(a, true), ==, ANSWER_YES);
	thread = g_thread_new("closer", close_later, GINT_TO_POINTER(a));
	g_assert_cmpint(aio_fd_lock(b, true), ==, ANSWER_YES);
	g_thread_join(thread);
	close(b);
}

static void test_pair(void)
{
	struct aio_file file, other;
	g_autoptr(GError) error = NULL;

	aio_file_init(&file, path, STORE_IMAGE);
	aio_file_init(&other, path, STORE_IMAGE);
	aio_file_close(&file); /* nothing is open yet */
	file.buffered_fd = open_path(O_RDWR);
	other.buffered_fd = open_path(O_RDWR);
	g_assert_cmpint(aio_file_lock(&file, true, "", &error), ==, ANSWER_YES);
	g_assert_cmpint(aio_file_lock(&other, true, "; wait", &error), ==, ANSWER_NO);
	g_assert_nonnull(strstr(error->message, path));
	g_assert_true(g_str_has_suffix(error->message, "; wait"));
	aio_file_open_direct(&file, O_RDWR);
	g_assert_true(is_power_of_two(file.alignment) && file.alignment <= BLOCK_SIZE);
	g_assert_cmpint(ftruncate(file.buffered_fd, 12345), ==, 0);
	g_assert_cmpint(aio_file_size(&other), ==, 12345);
	aio_file_close(&file);
	aio_file_close(&other);
	g_assert_cmpint(file.direct_fd, ==, -1);
	g_assert_cmpint(aio_file_size(&file), ==, -EBADF);
}

static void test_whole_transfers(void)
{
	char data[1000], back[1000];
	int fd = open_path(O_RDWR), read_only = open_path(O_RDONLY);

	memset(data, 7, sizeof(data));
	g_assert_cmpint(ftruncate(fd, 0), ==, 0);
	g_assert_cmpint(aio_fd_write(fd, data, sizeof(data), 500), ==, 0);
	g_assert_cmpint(aio_fd_size(fd), ==, 1500);
	g_assert_cmpint(aio_fd_read(read_only, back, sizeof(back), 500), ==, 0);
	g_assert_cmpint(memcmp(data, back, sizeof(data)), ==, 0);
	g_assert_cmpint(aio_fd_read(fd, back, sizeof(back), 501), ==, -ENODATA);
	g_assert_cmpint(aio_fd_read(fd, back, 0, 1 << 30), ==, 0);
	g_assert_cmpint(aio_fd_write(read_only, data, 1, 0), ==, -EBADF);
	close(fd);
	close(read_only);
}

/* What was done before the end, or an error, is taken off. */
static void test_rest(void)
{
	char data[1000] = {1}, back[1000];
	struct aio_rest rest = {back, sizeof(back), 0};
	int fd = open_path(O_RDWR);

	g_assert_cmpint(ftruncate(fd, 0), ==, 0);
	g_assert_cmpint(aio_fd_write(fd, data, 600, 0), ==, 0);
	g_assert_cmpint(aio_fd_read_on(fd, &rest), ==, 1);
	g_assert_true(rest.data == back + 600 && rest.length == 400 && rest.offset == 600);
	g_assert_cmpint(aio_fd_write(fd, data, 400, 600), ==, 0);
	g_assert_cmpint(aio_fd_read_on(fd, &rest), ==, 0);
	g_assert_cmpuint(rest.length, ==, 0);
	close(fd);
}

int main(int argc, char **argv)
{
	int result, fd;

	g_test_init(&argc, &argv, NULL);
	fd = g_file_open_tmp("leafdisk-file-XXXXXX", &path, NULL);
	close(fd);
	g_test_add_func("/file/look", test_look);
	g_test_add_func("/file/lock", test_lock);
	g_test_add_func("/file/lock-waits", test_lock_waits);
	g_test_add_func("/file/pair", test_pair);
	g_test_add_func("/file/whole-transfers", test_whole_transfers);
	g_test_add_func("/file/rest", test_rest);
	result = g_test_run();
	(void)g_unlink(path);
	g_free(path);
	return result;
}
