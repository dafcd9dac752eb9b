/* Places: what can be reached in a directory that somebody else writes to, by
 * one call of the kernel and by steps. */
#include "core/place.h"

#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/error.h"
#include "core/fault.h"
#include "image/format.h"

#define SWAPS 2000
#define PATIENCE_S 60

static char *work;

static void put(const char *path, const char *text)
{
	g_assert_true(g_file_set_contents(path, text, -1, NULL));
}

static void arm(const char *spec)
{
	g_assert_true(fault_arm(spec, NULL));
}

/* Both ways of the kernel. */
static void each_way(void (*test)(void))
{
	test();
	arm("place.openat2:ENOSYS");
	test();
	arm("");
}

static int find(const struct place *place, const char *relative)
{
	struct stat st;
	int fd = place_find(place, relative, &st);

	if (fd >= 0)
		close(fd);
	return MIN(fd, 0);
}

static void check_rules(void)
{
	struct place place;
	struct stat st;
	int fd;

	g_assert_true(place_open(&place, "pool", NULL));
	g_assert_cmpint(find(&place, "plain"), ==, 0);
	g_assert_cmpint(find(&place, "sub/inner"), ==, 0);
	g_assert_cmpint(find(&place, "missing"), ==, -ENOENT);
	g_assert_cmpint(find(&place, "link"), ==, -ELOOP);
	g_assert_cmpint(find(&place, "linked/secret"), <, 0);
	g_assert_cmpint(find(&place, "sub/../../secret"), ==, -EXDEV);
	g_assert_cmpint(find(&place, "/etc/passwd"), ==, -EXDEV);
	g_assert_cmpint(find(&place, "plain/inner"), ==, -ENOTDIR);
	g_assert_cmpint(place_open_directory(&place, "linked"), <, 0);
	/* A FIFO and its like are found, not opened. */
	fd = place_find(&place, "fifo", &st);
	g_assert_cmpint(fd, >=, 0);
	g_assert_true(S_ISFIFO(st.st_mode) && (fcntl(fd, F_GETFL) & O_PATH) && (fcntl(fd, F_GETFD) & FD_CLOEXEC));
	close(fd);
	fd = place_open_directory(&place, "");
	g_assert_cmpint(fd, >=, 0);
	close(fd);
	place_close(&place);
	place_close(&place);
}

static void test_rules(void)
{
	each_way(check_rules);
}

static void test_relative(void)
{
	struct place place;
	g_autofree char *inner = g_strdup_printf("%s/pool/sub/x", work);
	g_autofree char *beside = g_strdup_printf("%s/pool2/x", work);

	g_assert_true(place_open(&place, "pool", NULL));
	g_assert_cmpstr(place_relative(&place, inner), ==, "sub/x");
	g_assert_null(place_relative(&place, beside));
	g_assert_null(place_relative(&place, place.path));
	place_close(&place);
	g_assert_true(place_open(&place, "/", NULL));
	g_assert_cmpstr(place_relative(&place, "/etc/passwd"), ==, "etc/passwd");
	place_close(&place);
	g_assert_false(place_open(&place, "pool/plain", NULL));
	place_close(&place);
}

/* Its path has another directory now: that one is not taken for it. */
static void test_renew(void)
{
	struct place place;

	g_assert_true(place_open(&place, "pool", NULL));
	g_assert_cmpint(place_renew(&place), ==, 0);
	g_assert_cmpint(find(&place, "plain"), ==, 0);
	g_assert_cmpint(rename("pool", "pool.away"), ==, 0);
	g_assert_cmpint(mkdir("pool", 0700), ==, 0);
	g_assert_cmpint(place_renew(&place), ==, -ESTALE);
	g_assert_cmpint(find(&place, "plain"), ==, 0);
	g_assert_cmpint(rmdir("pool"), ==, 0);
	g_assert_cmpint(symlink("pool.away", "pool"), ==, 0);
	g_assert_cmpint(place_renew(&place), <, 0);
	g_assert_cmpint(unlink("pool"), ==, 0);
	g_assert_cmpint(rename("pool.away", "pool"), ==, 0);
	place_close(&place);
}

/* With no descriptor left each call says so, and nothing is kept open. */
static void test_no_descriptors(void)
{
	struct place place, second;
	GError *error = NULL;

	g_assert_true(place_open(&place, "pool", NULL));
	arm("place.open:EMFILE");
	g_assert_cmpint(find(&place, "sub/inner"), ==, -EMFILE);
	g_assert_cmpint(place_open_directory(&place, "sub"), ==, -EMFILE);
	g_assert_cmpint(place_renew(&place), ==, -EMFILE);
	g_assert_false(place_open(&second, "pool", &error));
	g_assert_cmpint(error_to_errno(error), ==, -EMFILE);
	g_clear_error(&error);
	arm("");
	g_assert_cmpint(find(&place, "sub/inner"), ==, 0);
	place_close(&place);
}

static ino_t inode_of(const char *path)
{
	struct stat st;

	return lstat(path, &st) == 0 ? st.st_ino : 0;
}

/* Where the store knows no rename that leaves what is there alone. */
static void test_rename_by_link(void)
{
	struct place place;
	ino_t inode;

	put("pool/old", "old");
	put("pool/there", "there");
	inode = inode_of("pool/old");
	g_assert_true(place_open(&place, "pool", NULL));
	arm("place.rename:EINVAL");
	g_assert_cmpint(place_rename_new(place.fd, "old", "there"), ==, -EEXIST);
	g_assert_cmpint(place_rename_new(place.fd, "old", "new"), ==, 0);
	g_assert_cmpint(inode_of("pool/old"), ==, 0);
	g_assert_cmpint(inode_of("pool/new"), ==, inode);
	/* Its new name is what counts, and what the caller has to go on with. */
	arm("place.rename:EINVAL; place.unlink/new:EIO");
	g_assert_cmpint(place_rename_new(place.fd, "new", "newer"), ==, 0);
	g_assert_cmpint(inode_of("pool/newer"), ==, inode);
	g_assert_cmpint(inode_of("pool/new"), ==, inode);
	arm("place.rename:EIO");
	g_assert_cmpint(place_rename_new(place.fd, "newer", "newest"), ==, -EIO);
	arm("");
	g_assert_cmpint(inode_of("pool/newest"), ==, 0);
	g_assert_cmpint(g_unlink("pool/new") | g_unlink("pool/newer") | g_unlink("pool/there"), ==, 0);
	place_close(&place);
}

static void *swap(void *stop)
{
	while (!*(_Atomic bool *)stop)
		g_assert_cmpint(renameat2(AT_FDCWD, "pool/x", AT_FDCWD, "pool/swapped", RENAME_EXCHANGE), ==, 0);
	return NULL;
}

/* Of so many tries some find and some miss; while the other thread does not run, all
 * do the same. */
static bool goes_on(unsigned tries, unsigned found, gint64 end)
{
	if (tries >= SWAPS && found > 0 && found < tries)
		return false;
	return tries < SWAPS || g_get_monotonic_time() < end;
}

/* A file, or a directory on the way, and a link out are exchanged all the time:
 * what is found is never what the link names. */
static void swap_and_find(const char *relative)
{
	gint64 end = g_get_monotonic_time() + PATIENCE_S * G_USEC_PER_SEC;
	struct stat outside, st;
	_Atomic bool stop = false;
	struct place place;
	unsigned found = 0, tries;
	pthread_t thread;

	g_assert_cmpint(stat("secret", &outside), ==, 0);
	g_assert_true(place_open(&place, "pool", NULL));
	g_assert_cmpint(pthread_create(&thread, NULL, swap, (void *)&stop), ==, 0);
	for (tries = 0; goes_on(tries, found, end); tries++) {
		int fd = place_find(&place, relative, &st);

		if (fd < 0)
			continue;
		g_assert_cmpuint(st.st_ino, !=, outside.st_ino);
		close(fd);
		found++;
	}
	stop = true;
	pthread_join(thread, NULL);
	if (g_file_test("pool/x", G_FILE_TEST_IS_SYMLINK))
		g_assert_cmpint(renameat2(AT_FDCWD, "pool/x", AT_FDCWD, "pool/swapped", RENAME_EXCHANGE), ==, 0);
	g_assert_cmpuint(found, >, 0);
	g_assert_cmpuint(found, <, tries);
	place_close(&place);
}

static void check_swaps(void)
{
	put("pool/x", "own");
	g_assert_cmpint(symlink("../secret", "pool/swapped"), ==, 0);
	swap_and_find("x");
	g_assert_cmpint(unlink("pool/x") | unlink("pool/swapped"), ==, 0);
	g_assert_cmpint(mkdir("pool/x", 0700) | symlink("..", "pool/swapped"), ==, 0);
	put("pool/x/secret", "own");
	swap_and_find("x/secret");
	g_assert_cmpint(unlink("pool/x/secret") | rmdir("pool/x") | unlink("pool/swapped"), ==, 0);
}

static void test_swaps(void)
{
	each_way(check_swaps);
}

/* The image is the file of the descriptor, whatever has its name now. */
static void test_image_by_descriptor(void)
{
	struct image_create_options options = {.size_bytes = 1 << 20};
	struct image_info info;
	struct image *image;
	struct place place;
	struct stat st, now;
	int fd;

	g_assert_true(place_open(&place, "pool", NULL));
	g_assert_true(image_create_in(place.fd, "any/where/i.leaf", IMAGE_FORMAT_LEAF, &options, NULL));
	g_assert_false(image_create_in(place.fd, "any/where/i.leaf", IMAGE_FORMAT_LEAF, &options, NULL));
	fd = place_find(&place, "i.leaf", &st);
	g_assert_cmpint(fd, >=, 0);
	g_assert_cmpint(rename("pool/i.leaf", "pool/j.leaf"), ==, 0);
	g_assert_cmpint(symlink("../secret", "pool/i.leaf"), ==, 0);
	g_assert_cmpint(image_probe_fd(fd, "pool/i.leaf", NULL), ==, IMAGE_FORMAT_LEAF);
	g_assert_true(image_read_info_fd(fd, "pool/i.leaf", IMAGE_FORMAT_LEAF, &info, NULL));
	g_assert_cmpuint(info.size_bytes, ==, options.size_bytes);
	image_info_clear(&info);
	image = image_open_fd(fd, "pool/i.leaf", IMAGE_FORMAT_LEAF, IMAGE_WRITABLE, 0, NULL);
	close(fd);
	g_assert_nonnull(image);
	g_assert_cmpint(image_stat(image, &now), ==, 0);
	g_assert_true(now.st_ino == st.st_ino && image->inode == st.st_ino);
	g_assert_cmpint(image_close(image), ==, 0);
	place_close(&place);
}

int main(int argc, char **argv)
{
	int result;

	g_test_init(&argc, &argv, NULL);
	work = g_dir_make_tmp("leafdisk-place-XXXXXX", NULL);
	g_assert_cmpint(chdir(work), ==, 0);
	g_assert_cmpint(mkdir("pool", 0700) | mkdir("pool/sub", 0700) | mkfifo("pool/fifo", 0600), ==, 0);
	g_assert_cmpint(symlink("../secret", "pool/link") | symlink("..", "pool/linked"), ==, 0);
	put("secret", "secret");
	put("pool/plain", "plain");
	put("pool/sub/inner", "inner");
	g_test_add_func("/place/rules", test_rules);
	g_test_add_func("/place/relative", test_relative);
	g_test_add_func("/place/renew", test_renew);
	g_test_add_func("/place/no_descriptors", test_no_descriptors);
	g_test_add_func("/place/rename_by_link", test_rename_by_link);
	g_test_add_func("/place/swaps", test_swaps);
	g_test_add_func("/place/image_by_descriptor", test_image_by_descriptor);
	result = g_test_run();
	g_free(work);
	return result;
}
