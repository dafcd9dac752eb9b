/* Chains: what is kept of images that change meanwhile. */
#include "layer/chain.h"

#include <glib/gstdio.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <unistd.h>

#include "image/format.h"

#define TRIES 200
/* File systems stamp times no finer than this. */
#define GRAIN_US (20 * 1000)

static char *directory;

/* A file system whose time stamps stand still for a tick; others may be finer. */
static void make_coarse(void)
{
	if (unshare(CLONE_NEWNS) == 0 && mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0)
		(void)mount("none", directory, "ramfs", 0, NULL);
}

static uint32_t format_of_parent(const char *path, const struct chain_roots *roots, struct chain_cache *cache)
{
	g_autoptr(GPtrArray) links = chain_links_new();

	(void)chain_resolve(path, IMAGE_FORMAT_LEAF, roots, cache, links, NULL);
	g_assert_cmpuint(links->len, >, 0);
	return ((const struct chain_link *)links->pdata[0])->info.parent.format;
}

/* The new header has no other time than the one that was read just before. False: it
 * has one after all. */
static bool check_in_one_tick(unsigned number)
{
	struct chain_roots *roots = chain_roots_new(directory, NULL, NULL);
	struct chain_cache *cache = chain_cache_new();
	g_autofree char *path = g_strdup_printf("%s/%u.leaf", directory, number);
	struct image_create_options options = {.size_bytes = 1 << 20};
	struct image_parent parent = {.format = IMAGE_FORMAT_RAW, .path = (char *)"base.raw", .size_bytes = 1 << 20};
	struct stat before, after;
	bool same;

	g_assert_true(image_create(path, IMAGE_FORMAT_LEAF, &options, NULL));
	g_assert_cmpuint(format_of_parent(path, roots, cache), ==, IMAGE_FORMAT_NONE);
	g_assert_cmpint(g_stat(path, &before), ==, 0);
	g_assert_true(image_set_parent(path, &parent, NULL));
	g_assert_cmpint(g_stat(path, &after), ==, 0);
	same = before.st_ctim.tv_sec == after.st_ctim.tv_sec && before.st_ctim.tv_nsec == after.st_ctim.tv_nsec;
	for (unsigned i = 0; same && i < 2; i++) {
		g_assert_cmpuint(format_of_parent(path, roots, cache), ==, IMAGE_FORMAT_RAW);
		g_usleep(2 * GRAIN_US);
	}
	g_assert_cmpint(g_unlink(path), ==, 0);
	chain_cache_unref(cache);
	chain_roots_unref(roots);
	return same;
}

static void test_header_that_changes_in_one_tick(void)
{
	bool same = false;

	for (unsigned i = 0; i < TRIES && !same; i++)
		same = check_in_one_tick(i);
	if (!same)
		g_test_skip("the time stamps are too fine here");
}

int main(int argc, char **argv)
{
	int result;

	g_test_init(&argc, &argv, NULL);
	directory = g_dir_make_tmp("leafdisk-chain-XXXXXX", NULL);
	make_coarse();
	g_test_add_func("/chain/header_that_changes_in_one_tick", test_header_that_changes_in_one_tick);
	result = g_test_run();
	(void)umount(directory);
	(void)g_rmdir(directory);
	g_free(directory);
	return result;
}
