/* What tests of the cache share: a file, a thread's loop and queue, contents
 * that tell which block and version they are. */
#ifndef LEAFDISK_TEST_CACHE_RIG_H
#define LEAFDISK_TEST_CACHE_RIG_H

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cache/block.h"
#include "cache/cache.h"
#include "cache/layer.h"
#include "core/fault.h"
#include "format/cache.h"

#define SMALL (8u << 20)
#define READ_BLOCKS 256
#define PATIENCE_S 60
#define ZERO_RANGES_MAX 32768 /* LAYER_ZERO_RANGES_MAX */

static char *directory;

/* One thread's loop, with a queue and a buffer. */
struct user {
	struct loop *loop;
	struct aio_queue *queue;
	uint8_t *buffer; /* READ_BLOCKS */
	bool finished;
	int result;
	GRand *random;
};

/* ---- Fixtures ------------------------------------------------------------ */

static inline void arm(const char *spec)
{
#ifdef LEAFDISK_FAULTS
	g_autoptr(GError) error = NULL;

	fault_arm(spec, &error);
	g_assert_no_error(error);
#else
	g_assert_cmpstr(spec, ==, "");
#endif
}

static inline char *new_path(void)
{
	static unsigned serial;

	return g_strdup_printf("%s/cache%d-%u", directory, (int)getpid(), serial++);
}

static inline struct cache *try_open(const char *path, uint64_t size, uint8_t pool, GError **error)
{
	struct cache_options options = {.path = path, .size_bytes = size, .pool_path = "/pool"};

	memset(options.pool_id, pool, sizeof(options.pool_id));
	return cache_open(&options, error);
}

static inline struct cache *open_cache(const char *path, uint64_t size)
{
	g_autoptr(GError) error = NULL;
	struct cache *cache = try_open(path, size, 1, &error);

	g_assert_no_error(error);
	g_assert_true(cache_start(cache, &error));
	return cache;
}

static inline struct cache_layer *open_layer(struct cache *cache, uint8_t identity, uint64_t stamp, bool writable)
{
	struct cache_layer_key key = {.stamp = stamp, .size_bytes = UINT64_C(1) << 40, .name = "layer"};

	memset(key.identity, identity, sizeof(key.identity));
	return cache_layer_open(cache, &key, writable);
}

static inline void user_init(struct user *user)
{
	memset(user, 0, sizeof(*user));
	user->loop = loop_new(NULL);
	user->queue = aio_queue_new(user->loop, NULL, NULL);
	user->buffer = aligned_alloc(BLOCK_SIZE, READ_BLOCKS * BLOCK_SIZE);
	user->random = g_rand_new_with_seed((guint32)g_test_rand_int());
}

static inline void user_clear(struct user *user)
{
	aio_queue_free(user->queue);
	loop_free(user->loop);
	free(user->buffer);
	g_rand_free(user->random);
}

/* ---- Contents ------------------------------------------------------------ */

static inline void fill(uint8_t *data, uint64_t tag, uint64_t block, uint64_t version)
{
	uint64_t words[4] = {tag, block, version, tag ^ block ^ version};

	for (size_t i = 0; i < BLOCK_SIZE; i += sizeof(words))
		memcpy(data + i, words, sizeof(words));
}

static inline bool is_filled(const uint8_t *data, uint64_t tag, uint64_t block, uint64_t version)
{
	uint8_t expected[BLOCK_SIZE];

	fill(expected, tag, block, version);
	return memcmp(data, expected, BLOCK_SIZE) == 0;
}

struct waiting {
	struct cache_waiter waiter;
	struct user *user;
};

static inline void room_came(struct loop_task *task)
{
	container_of(task, struct waiting, waiter.task)->user->finished = true;
}

static inline void wait_for_room(struct user *user, struct cache *cache)
{
	struct waiting waiting = {.waiter = {.loop = user->loop, .task.run = room_came}, .user = user};

	user->finished = false;
	cache_wait(cache, &waiting.waiter);
	loop_run(user->loop, &user->finished);
}

/* Puts all of it, waiting for room. 0, or what it failed with. */
static inline int put(struct user *user, struct cache_layer *layer, uint64_t tag, uint64_t block, uint64_t blocks,
		      uint64_t version, bool pinned)
{
	uint64_t done = 0;

	for (uint64_t i = 0; i < blocks; i++)
		fill(user->buffer + i * BLOCK_SIZE, tag, block + i, version);
	while (done < blocks) {
		int64_t count = cache_put(layer, block + done, blocks - done, user->buffer + done * BLOCK_SIZE, pinned);

		if (count == -EAGAIN)
			wait_for_room(user, cache_layer_cache(layer));
		else if (count < 0)
			return (int)count;
		else
			done += (uint64_t)count;
	}
	return 0;
}

static inline void forget(struct user *user, struct cache_layer *layer, uint64_t block, uint64_t blocks)
{
	while (cache_forget(layer, block, blocks) == -EAGAIN)
		wait_for_room(user, cache_layer_cache(layer));
}

struct reading {
	struct cache_io io;
	struct user *user;
};

static inline void read_done(struct cache_io *io, int result)
{
	struct user *user = container_of(io, struct reading, io)->user;

	user->result = result;
	user->finished = true;
}

/* The read's result is in user->result, its data in user->buffer. */
static inline struct cache_extent read_blocks(struct user *user, struct cache_layer *layer, uint64_t block,
					      uint64_t blocks)
{
	struct reading reading = {
		.io = {.queue = user->queue,
		       .layer = layer,
		       .block = block,
		       .blocks = blocks,
		       .buffer = user->buffer,
		       .done = read_done},
		.user = user,
	};
	struct cache_extent extent;

	user->finished = false;
	user->result = 0;
	extent = cache_read(&reading.io);
	g_assert_cmpuint(extent.blocks, >=, 1);
	g_assert_cmpuint(extent.blocks, <=, blocks);
	if (extent.answer == CACHE_HIT)
		loop_run(user->loop, &user->finished);
	return extent;
}

static inline void assert_block(struct user *user, struct cache_layer *layer, uint64_t tag, uint64_t block,
				uint64_t version)
{
	struct cache_extent extent = read_blocks(user, layer, block, 1);

	g_assert_cmpint(extent.answer, ==, CACHE_HIT);
	g_assert_cmpint(user->result, ==, 0);
	g_assert_true(is_filled(user->buffer, tag, block, version));
}

static inline void assert_answer(struct cache_layer *layer, uint64_t block, enum cache_answer answer)
{
	g_assert_cmpint(cache_lookup(layer, block, 1).answer, ==, answer);
}

static inline bool wait_for_state(struct cache *cache, enum cache_state state)
{
	gint64 end = g_get_monotonic_time() + PATIENCE_S * G_USEC_PER_SEC;
	struct cache_status status;

	do {
		cache_get_status(cache, &status);
		if (status.state == state)
			return true;
		g_usleep(1000);
	} while (g_get_monotonic_time() < end);
	return false;
}

/* ---- Files --------------------------------------------------------------- */

/* Damages the copy of a block in the file; how many there are. */
static inline unsigned damage_copies(const char *path, uint64_t tag, uint64_t block, uint64_t version)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);
	uint8_t data[BLOCK_SIZE], expected[BLOCK_SIZE];
	unsigned count = 0;

	fill(expected, tag, block, version);
	for (off_t at = CACHE_SEGMENTS_OFFSET; pread(fd, data, sizeof(data), at) == sizeof(data); at += BLOCK_SIZE) {
		if (memcmp(data, expected, sizeof(data)) != 0)
			continue;
		data[100] ^= 1;
		g_assert_cmpint(pwrite(fd, data, sizeof(data), at), ==, sizeof(data));
		count++;
	}
	close(fd);
	return count;
}

static inline void make_directory(void)
{
	const char *base = g_getenv("TMPDIR") ? g_getenv("TMPDIR") : "/var/tmp";

	directory = g_build_filename(base, "leafdisk-cache-XXXXXX", NULL);
	g_assert_nonnull(g_mkdtemp(directory));
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
