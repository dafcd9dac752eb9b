/* Images for the tests of the native layer, and a child that dies in them. */
#ifndef LEAFDISK_TEST_LEAF_FIXTURE_H
#define LEAFDISK_TEST_LEAF_FIXTURE_H

#include <errno.h>
#include <glib.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "aio/blocking.h"
#include "core/fault.h"
#include "image/format.h"
#include "image/leaf/bits.h"
#include "image/leaf/checkpoint.h"
#include "image/leaf/format.h"
#include "image/leaf/header.h"
#include "image/leaf/journal.h"
#include "image/leaf/lock.h"
#include "image/leaf/room.h"
#include "image/leaf/slots.h"
#include "image/leaf/table.h"
#include "image/settings.h"

#define CHUNK (64u << 10)

static char *directory;

static inline char *new_leaf(uint64_t size)
{
	static int number;
	struct image_create_options options = {.size_bytes = size, .chunk_bytes = CHUNK};
	char *path = g_strdup_printf("%s/%d.leaf", directory, number++);
	g_autoptr(GError) error = NULL;

	g_assert_true(image_create(path, IMAGE_FORMAT_LEAF, &options, &error));
	return path;
}

static inline struct image *open_leaf(const char *path, unsigned flags)
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

static inline void io_done(struct image_io *io, int result)
{
	(void)io;
	waited.result = result;
	waited.finished = true;
}

static inline int run_op(struct image *image, void (*submit)(struct image *, struct image_op *), uint64_t block,
			 uint64_t blocks)
{
	struct image_op op = {.offset = block << BLOCK_SHIFT, .length = blocks << BLOCK_SHIFT};

	return image_run_blocking(image, &op, submit);
}

/* What image_write() returns once it need not be tried again. */
static inline int64_t write_some(struct image_io *io)
{
	int64_t n = image_write(io);

	while (n == -EAGAIN) {
		n = run_op(io->image, image_wait_room, 0, 0);
		if (n == 0)
			n = image_write(io);
	}
	return n;
}

/* 0, or the first error. */
static inline int transfer(struct image *image, bool write, uint64_t block, uint64_t blocks, uint8_t *data)
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
			n = write_some(&io);
			g_assert_cmpint(n, !=, 0);
			waited.result = n < 0 ? (int)n : 0;
		} else {
			extent = image_read(&io);
			n = (int64_t)extent.blocks;
		}
		if (waited.result < 0)
			break;
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

/* Soft: a copy of what is below. */
static inline int write_soft(struct image *image, uint64_t block, uint8_t *data)
{
	struct blocking_loop *blocking = blocking_loop_get();
	struct image_io io = {.queue = blocking->queue,
			      .image = image,
			      .offset = block << BLOCK_SHIFT,
			      .length = BLOCK_SIZE,
			      .soft = true,
			      .buffer = data,
			      .done = io_done};

	waited.finished = false;
	g_assert_cmpint(write_some(&io), ==, 1);
	loop_run(blocking->loop, &waited.finished);
	blocking_loop_put(blocking);
	return waited.result;
}

static inline uint8_t *new_buffer(uint64_t bytes)
{
	return aligned_alloc(BLOCK_SIZE, bytes);
}

/* What a crash would leave at this moment. */
static inline char *copy_of(const char *path)
{
	char *copy = g_strconcat(path, ".copy", NULL);
	const char *argv[] = {"cp", "--sparse=always", path, copy, NULL};
	int status;

	g_assert_true(
		g_spawn_sync(NULL, (char **)argv, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, NULL, NULL, &status, NULL));
	g_assert_cmpint(status, ==, 0);
	return copy;
}

static inline void finding(void *opaque, bool repaired, const char *sentence)
{
	(void)repaired;
	g_test_message("finding: %s", sentence);
	++*(unsigned *)opaque;
}

/* No damage is found. */
static inline struct image_check_result check_image(const char *path, bool repair)
{
	struct image_check_result result = {0};
	g_autoptr(GError) error = NULL;
	unsigned findings = 0;

	g_assert_true(image_check(path, IMAGE_FORMAT_LEAF, repair, finding, &findings, &result, &error));
	g_assert_cmpuint(findings, ==, 0);
	return result;
}

static inline void assert_sound(const char *path)
{
	(void)check_image(path, false);
}

/* What the blocks hold: 0xaa absent, 0 zero, else a byte of data. */
static inline void assert_blocks(struct image *image, const uint8_t *model, unsigned blocks)
{
	uint8_t *data = new_buffer((uint64_t)blocks << BLOCK_SHIFT);

	g_assert_cmpint(transfer(image, false, 0, blocks, data), ==, 0);
	for (unsigned i = 0; i < blocks; i++)
		for (unsigned j = 0; j < BLOCK_SIZE; j += 511)
			g_assert_cmphex(data[i * BLOCK_SIZE + j], ==, model[i]);
	free(data);
}

#ifdef LEAFDISK_FAULTS
struct leaf_act {
	const char *name;
	int (*act)(struct image *image);
	bool opening; /* dies while it opens the image, too */
};

/* The child of die_at(): a process of its own, because threads do not survive
 * a fork. */
static inline int act_and_die(char **argv, const struct leaf_act *acts, unsigned count)
{
	const struct leaf_act *act = acts;
	struct image *image;

	while (act < acts + count && strcmp(act->name, argv[4]) != 0)
		act++;
	if (act == acts + count)
		return 2;
	if (act->opening)
		fault_arm(argv[3], NULL);
	image = open_leaf(argv[2], IMAGE_WRITABLE);
	if (!act->opening)
		fault_arm(argv[3], NULL);
	return act->act(image) == 0 ? 0 : 1;
}

/* Runs ACT on the image in a child that dies at a fault point. True when the
 * child met it. */
static inline bool die_at(const char *path, const char *fault, const char *act)
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

#endif

static inline char *make_directory(void)
{
	char *template = g_build_filename(g_getenv("TMPDIR") ? g_getenv("TMPDIR") : "/var/tmp", "leaf-XXXXXX", NULL);

	return g_mkdtemp(template);
}

static inline void remove_directory(void)
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

#endif
