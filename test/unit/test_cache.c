/* The cache on real files: contents against a model, wrap-around, restarts,
 * failing and damaged files. The invariants are internal.h's. */
#include "cache/cache.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cache_rig.h"
#include "core/counters.h"
#include "core/fault.h"
#include "core/log.h"
#include "format/cache.h"

/* ---- Contents ------------------------------------------------------------ */

static void test_basic(void)
{
	g_autofree char *path = new_path();
	struct cache *cache = open_cache(path, SMALL);
	struct cache_layer *layer = cache_layer_new_volatile(cache, "disk");
	struct cache_extent extent;
	struct cache_status status;
	struct stat st;
	struct user user;

	user_init(&user);
	g_assert_cmpint(stat(path, &st), ==, 0);
	g_assert_cmpint(st.st_mode & 0777, ==, 0600);
	g_assert_cmpint(st.st_size, ==, SMALL);
	extent = read_blocks(&user, layer, 5, 100);
	g_assert_cmpint(extent.answer, ==, CACHE_MISS);
	g_assert_cmpuint(extent.blocks, ==, 100);
	g_assert_cmpint(put(&user, layer, 1, 10, 20, 1, true), ==, 0);
	extent = read_blocks(&user, layer, 5, 100);
	g_assert_cmpint(extent.answer, ==, CACHE_MISS);
	g_assert_cmpuint(extent.blocks, ==, 5);
	extent = read_blocks(&user, layer, 10, 100);
	g_assert_cmpint(extent.answer, ==, CACHE_HIT);
	g_assert_cmpuint(extent.blocks, ==, 20);
	for (unsigned i = 0; i < 20; i++)
		g_assert_true(is_filled(user.buffer + i * BLOCK_SIZE, 1, 10 + i, 1));
	g_assert_cmpint(cache_put_zero(layer, 8, 7), ==, 0);
	extent = cache_lookup(layer, 8, 100);
	g_assert_cmpint(extent.answer, ==, CACHE_ZERO);
	g_assert_cmpuint(extent.blocks, ==, 7);
	g_assert_cmpint(put(&user, layer, 1, 9, 1, 2, true), ==, 0);
	g_assert_cmpuint(cache_lookup(layer, 8, 100).blocks, ==, 1);
	assert_block(&user, layer, 1, 9, 2);
	assert_answer(layer, 10, CACHE_ZERO);
	g_assert_cmpint(cache_sync(cache), ==, 0);
	assert_block(&user, layer, 1, 15, 1);
	g_assert_cmpint(cache_forget(layer, 0, 1000), ==, 0);
	g_assert_cmpuint(cache_lookup(layer, 0, 1000).blocks, ==, 1000);
	cache_get_status(cache, &status);
	g_assert_cmpuint(status.pinned_blocks, ==, 0);
	g_assert_cmpuint(status.cached_blocks, ==, 0);
	cache_layer_close(layer, 0);
	g_assert_cmpint(cache_close(cache), ==, 0);
	user_clear(&user);
}

static void test_zero_limit(void)
{
	g_autofree char *path = new_path();
	struct cache *cache = open_cache(path, SMALL);
	struct cache_layer *layer = cache_layer_new_volatile(cache, "disk");
	struct cache_layer *base = open_layer(cache, 1, 1, false);

	for (uint64_t i = 0; i < ZERO_RANGES_MAX; i++)
		g_assert_cmpint(cache_put_zero(layer, 10 + i * 3, 1), ==, 0);
	g_assert_cmpint(cache_put_zero(layer, 0, 2), ==, -ENOSPC);
	assert_answer(layer, 0, CACHE_MISS);
	g_assert_cmpint(cache_put_zero(layer, 9, 2), ==, 0);
	assert_answer(layer, 9, CACHE_ZERO);
	g_assert_cmpint(cache_put_zero(layer, 0, 1000), ==, 0);
	g_assert_cmpint(cache_put_zero(layer, UINT64_C(1) << 40, 2), ==, 0);
	g_assert_cmpint(cache_put_zero(base, 0, 2), ==, -EOPNOTSUPP);
	cache_layer_close(layer, 0);
	cache_layer_close(base, 0);
	g_assert_cmpint(cache_close(cache), ==, 0);
}

#define MODEL_BLOCKS 400

/* One step: 0 put, 1 read, 2 zero, 3 forget. MODEL: 0 nothing, 1 zero, else version. */
static void model_step(struct user *user, struct cache_layer *layer, uint64_t tag, uint64_t *model, uint64_t version)
{
	int what = g_rand_int_range(user->random, 0, 20);
	unsigned first = (unsigned)g_rand_int_range(user->random, 0, MODEL_BLOCKS);
	unsigned count = (unsigned)g_rand_int_range(user->random, 1, 40);

	count = MIN(count, MODEL_BLOCKS - first);
	if (what < 9) {
		g_assert_cmpint(put(user, layer, tag, first, count, version, true), ==, 0);
		for (unsigned i = 0; i < count; i++)
			model[first + i] = version;
	} else if (what < 18) {
		struct cache_extent extent = read_blocks(user, layer, first, count);

		g_assert_cmpint(user->result, ==, 0);
		for (unsigned i = 0; i < extent.blocks; i++) {
			uint64_t is = model[first + i];

			g_assert_cmpint(extent.answer, ==, is == 0 ? CACHE_MISS : is == 1 ? CACHE_ZERO : CACHE_HIT);
			if (is > 1)
				g_assert_true(is_filled(user->buffer + i * BLOCK_SIZE, tag, first + i, is));
		}
	} else if (what < 19) {
		g_assert_cmpint(cache_put_zero(layer, first, count), ==, 0);
		for (unsigned i = 0; i < count; i++)
			model[first + i] = 1;
	} else {
		g_assert_cmpint(cache_forget(layer, first, count), ==, 0);
		memset(model + first, 0, count * sizeof(*model));
	}
}

static void test_model(void)
{
	g_autofree char *path = new_path();
	struct cache *cache = open_cache(path, SMALL);
	struct cache_layer *layer = cache_layer_new_volatile(cache, "disk");
	uint64_t model[MODEL_BLOCKS] = {0};
	struct cache_status status;
	struct user user;

	user_init(&user);
	for (uint64_t i = 0; i < 3000; i++)
		model_step(&user, layer, 7, model, i + 2);
	for (unsigned i = 0; i < MODEL_BLOCKS; i++) {
		assert_answer(layer, i, model[i] == 0 ? CACHE_MISS : model[i] == 1 ? CACHE_ZERO : CACHE_HIT);
		if (model[i] > 1)
			assert_block(&user, layer, 7, i, model[i]);
	}
	cache_get_status(cache, &status);
	g_assert_cmpuint(status.sequence, >, 100);
	cache_layer_close(layer, 0);
	g_assert_cmpint(cache_close(cache), ==, 0);
	user_clear(&user);
}

struct worker {
	pthread_t thread;
	struct user user;
	struct cache *cache;
	struct cache_layer *shared;
	uint64_t tag;
	int stop;
};

static void *worker_main(void *opaque)
{
	struct worker *worker = opaque;
	struct user *user = &worker->user;
	struct cache_layer *layer = cache_layer_new_volatile(worker->cache, "disk");
	uint64_t model[MODEL_BLOCKS] = {0};

	for (uint64_t i = 0; i < 700; i++) {
		uint64_t block = (uint64_t)g_rand_int_range(user->random, 0, 3000);

		model_step(user, layer, worker->tag, model, i + 2);
		if (read_blocks(user, worker->shared, block, 1).answer == CACHE_HIT && user->result == 0)
			g_assert_true(is_filled(user->buffer, 99, block, 0));
		else
			g_assert_cmpint(put(user, worker->shared, 99, block, 4, 0, false), ==, 0);
	}
	cache_layer_close(layer, 0);
	return NULL;
}

static void test_threads(void)
{
	g_autofree char *path = new_path();
	struct cache *cache = open_cache(path, 2 * SMALL);
	struct cache_layer *shared = open_layer(cache, 1, 1, false);
	struct worker workers[3];

	for (unsigned i = 0; i < G_N_ELEMENTS(workers); i++) {
		workers[i] = (struct worker){.cache = cache, .shared = shared, .tag = i + 1};
		user_init(&workers[i].user);
		g_assert_cmpint(pthread_create(&workers[i].thread, NULL, worker_main, &workers[i]), ==, 0);
	}
	for (unsigned i = 0; i < G_N_ELEMENTS(workers); i++) {
		pthread_join(workers[i].thread, NULL);
		user_clear(&workers[i].user);
	}
	cache_layer_close(shared, 0);
	g_assert_cmpint(cache_close(cache), ==, 0);
}

/* ---- Space --------------------------------------------------------------- */

static void test_pinned_limit(void)
{
	g_autofree char *path = new_path();
	struct cache *cache = open_cache(path, SMALL);
	struct cache_layer *layer = cache_layer_new_volatile(cache, "disk");
	struct cache_status status;
	struct user user;
	uint64_t count = 0;

	user_init(&user);
	while (put(&user, layer, 3, count * 2, 1, 1, true) == 0)
		count++;
	cache_get_status(cache, &status);
	g_assert_cmpuint(count, ==, status.pinned_blocks_max);
	g_assert_cmpuint(status.pinned_blocks, ==, count);
	/* What is pinned already can be written for ever. */
	for (unsigned i = 0; i < 20000; i++) {
		uint64_t block = (uint64_t)g_rand_int_range(user.random, 0, (gint32)count);

		g_assert_cmpint(put(&user, layer, 3, block * 2, 1, 1, true), ==, 0);
	}
	g_assert_cmpint(put(&user, layer, 3, 1, 1, 1, true), ==, -ENOSPC);
	for (uint64_t i = 0; i < count; i++)
		assert_block(&user, layer, 3, i * 2, 1);
	g_assert_cmpint(cache_forget(layer, 0, 2), ==, 0);
	g_assert_cmpint(put(&user, layer, 3, 1, 1, 1, true), ==, 0);
	cache_layer_close(layer, 0);
	layer = cache_layer_new_volatile(cache, "disk");
	g_assert_cmpint(put(&user, layer, 3, 0, 200, 1, true), ==, 0);
	cache_layer_close(layer, 0);
	g_assert_cmpint(cache_close(cache), ==, 0);
	user_clear(&user);
}

static void *sync_until(void *opaque)
{
	struct worker *worker = opaque;

	while (!g_atomic_int_get(&worker->stop))
		(void)cache_sync(worker->cache);
	return NULL;
}

/* Whole segments of pinned blocks are moved while every record is closed at
 * once: each block costs a header too, and still there is an end to it. */
static void test_short_records(void)
{
	g_autofree char *path = new_path();
	struct worker worker = {.cache = open_cache(path, SMALL)};
	struct cache_layer *layer = cache_layer_new_volatile(worker.cache, "disk");
	uint64_t count = 0;

	user_init(&worker.user);
	while (put(&worker.user, layer, 3, count, 50, 1, true) == 0)
		count += 50;
	g_assert_cmpint(pthread_create(&worker.thread, NULL, sync_until, &worker), ==, 0);
	for (unsigned i = 0; i < 40; i++)
		g_assert_cmpint(put(&worker.user, layer, 3, count - 250, 250, 1, true), ==, 0);
	g_atomic_int_set(&worker.stop, 1);
	pthread_join(worker.thread, NULL);
	for (uint64_t i = 0; i < count; i++)
		assert_block(&worker.user, layer, 3, i, 1);
	cache_layer_close(layer, 0);
	g_assert_cmpint(cache_close(worker.cache), ==, 0);
	user_clear(&worker.user);
}

/* Clean blocks may go whenever room is made, hot ones too in its second round. */
static void assert_block_if_kept(struct user *user, struct cache_layer *layer, uint64_t tag, uint64_t block,
				 uint64_t version)
{
	if (read_blocks(user, layer, block, 1).answer == CACHE_MISS)
		return;
	g_assert_cmpint(user->result, ==, 0);
	g_assert_true(is_filled(user->buffer, tag, block, version));
}

/* A log that takes nothing more at the moment: forgetting and closing wait, and
 * the layer keeps what it has. */
static void test_no_room(void)
{
	g_autofree char *path = new_path();
	struct cache *cache = try_open(path, SMALL, 1, NULL);
	struct cache_layer *leaf = open_layer(cache, 1, 11, true);
	struct cache_layer *other = open_layer(cache, 2, 21, true);
	struct cache_layer_status status;
	struct user user;
	uint64_t next = 100;

	user_init(&user);
	fill(user.buffer, 1, 7, 0);
	g_assert_cmpint(cache_put(leaf, 7, 1, user.buffer, false), ==, 1);
	g_assert_cmpint(cache_put(other, 7, 1, user.buffer, false), ==, 1);
	while (cache_put(leaf, next, 1, user.buffer, false) == 1)
		next++;
	g_assert_cmpint(cache_put(leaf, next, 1, user.buffer, false), ==, -EAGAIN);
	while (cache_forget(leaf, 50, 1) == 0)
		;
	g_assert_cmpint(cache_forget(leaf, 7, 1), ==, -EAGAIN);
	cache_layer_get_status(leaf, &status);
	g_assert_cmpint(status.state, ==, CACHE_LAYER_ACTIVE);
	assert_block(&user, leaf, 1, 7, 0); /* which makes it hot */
	assert_block(&user, other, 1, 7, 0);
	g_assert_true(cache_start(cache, NULL));
	cache_layer_close(other, 22);
	forget(&user, leaf, 100, next - 100);
	assert_answer(leaf, 100, CACHE_MISS);
	assert_block_if_kept(&user, leaf, 1, 7, 0);
	cache_layer_close(leaf, 12);
	g_assert_cmpint(cache_close(cache), ==, 0);

	cache = open_cache(path, 0);
	leaf = open_layer(cache, 1, 12, false);
	other = open_layer(cache, 2, 22, false);
	assert_block_if_kept(&user, leaf, 1, 7, 0);
	assert_block_if_kept(&user, other, 1, 7, 0);
	assert_answer(leaf, 100, CACHE_MISS);
	cache_layer_close(leaf, 0);
	cache_layer_close(other, 0);
	g_assert_cmpint(cache_close(cache), ==, 0);
	user_clear(&user);
}

/* Hot blocks outlast a stream of cold ones that is many times the cache. */
static void test_hot(void)
{
	g_autofree char *path = new_path();
	struct cache *cache = open_cache(path, 2 * SMALL);
	struct cache_layer *layer = open_layer(cache, 1, 1, false);
	struct user user;
	unsigned kept = 0;

	user_init(&user);
	g_assert_cmpint(put(&user, layer, 5, 0, 50, 0, false), ==, 0);
	for (uint64_t i = 0; i < 1000; i++) {
		for (unsigned j = 0; j < 50; j++)
			(void)read_blocks(&user, layer, j, 1);
		g_assert_cmpint(put(&user, layer, 5, 1000 + i * 30, 30, 0, false), ==, 0);
	}
	for (unsigned j = 0; j < 50; j++)
		kept += cache_lookup(layer, j, 1).answer == CACHE_HIT;
	g_assert_cmpuint(kept, ==, 50);
	assert_answer(layer, 1000, CACHE_MISS);
	cache_layer_close(layer, 0);
	g_assert_cmpint(cache_close(cache), ==, 0);
	user_clear(&user);
}

static void test_grow(void)
{
	g_autofree char *path = new_path();
	struct cache_status status;
	struct cache *cache;
	struct user user;

	user_init(&user);
	for (unsigned round = 1; round <= 4; round++) {
		struct cache_layer *layer;

		cache = open_cache(path, round * SMALL);
		layer = open_layer(cache, 1, 1, false);
		for (uint64_t i = 0; i < 400; i++) {
			uint64_t block = (uint64_t)g_rand_int_range(user.random, 0, 8000);

			g_assert_cmpint(put(&user, layer, 5, block, 20, 0, false), ==, 0);
			block = (uint64_t)g_rand_int_range(user.random, 0, 8000);
			if (read_blocks(&user, layer, block, 1).answer == CACHE_HIT) {
				g_assert_cmpint(user.result, ==, 0);
				g_assert_true(is_filled(user.buffer, 5, block, 0));
			}
		}
		cache_layer_close(layer, 0);
		cache_get_status(cache, &status);
		g_assert_cmpuint(status.size_bytes, ==, round * SMALL);
		g_assert_cmpint(cache_close(cache), ==, 0);
	}
	g_assert_cmpuint(status.segments, ==, 31);
	user_clear(&user);
}

/* ---- Restart ------------------------------------------------------------- */

static void test_restart(void)
{
	g_autofree char *path = new_path();
	struct cache *cache = open_cache(path, 2 * SMALL);
	struct cache_layer *base = open_layer(cache, 1, 11, false);
	struct cache_layer *leaf = open_layer(cache, 2, 21, true);
	struct cache_layer *other = open_layer(cache, 3, 31, false);
	struct cache_layer *scratch = cache_layer_new_volatile(cache, "scratch");
	struct cache_status status;
	struct user user;

	user_init(&user);
	g_assert_null(open_layer(cache, 2, 21, false));
	g_assert_null(open_layer(cache, 1, 12, false));
	g_assert_true(open_layer(cache, 1, 11, false) == base);
	cache_layer_close(base, 0);
	g_assert_cmpint(put(&user, base, 1, 0, 100, 0, false), ==, 0);
	g_assert_cmpint(put(&user, leaf, 2, 0, 100, 0, false), ==, 0);
	g_assert_cmpint(put(&user, leaf, 2, 50, 10, 1, false), ==, 0);
	g_assert_cmpint(cache_forget(leaf, 80, 10), ==, 0);
	g_assert_cmpint(put(&user, other, 3, 0, 100, 0, false), ==, 0);
	g_assert_cmpint(put(&user, scratch, 4, 0, 100, 0, true), ==, 0);
	cache_layer_close(scratch, 0);
	cache_layer_close(base, 0);
	cache_layer_close(leaf, 22);
	cache_layer_close(other, 0);
	g_assert_cmpint(cache_close(cache), ==, 0);

	cache = open_cache(path, 0);
	cache_get_status(cache, &status);
	g_assert_cmpuint(status.cached_blocks, ==, 290);
	g_assert_cmpuint(status.pinned_blocks, ==, 0);
	base = open_layer(cache, 1, 11, false);
	leaf = open_layer(cache, 2, 22, true);
	other = open_layer(cache, 3, 32, false);
	for (unsigned i = 0; i < 100; i++) {
		assert_block(&user, base, 1, i, 0);
		assert_answer(other, i, CACHE_MISS);
		if (i < 80 || i >= 90)
			assert_block(&user, leaf, 2, i, i >= 50 && i < 60);
		else
			assert_answer(leaf, i, CACHE_MISS);
	}
	cache_layer_close(base, 0);
	cache_layer_close(leaf, 0);
	cache_layer_close(other, 0);
	g_assert_cmpint(cache_close(cache), ==, 0);

	/* The leaf was closed without a stamp. */
	cache = open_cache(path, 0);
	leaf = open_layer(cache, 2, 22, false);
	assert_answer(leaf, 0, CACHE_MISS);
	cache_layer_close(leaf, 0);
	g_assert_cmpint(cache_close(cache), ==, 0);
	user_clear(&user);
}

static void test_refused(void)
{
	g_autofree char *path = new_path();
	struct cache *cache = open_cache(path, SMALL);
	g_autoptr(GError) error = NULL;

	g_assert_null(try_open(path, 0, 1, &error));
	g_assert_cmpint(error->code, ==, EBUSY);
	g_clear_error(&error);
	g_assert_cmpint(cache_close(cache), ==, 0);
	g_assert_null(try_open(path, 0, 2, &error));
	g_assert_nonnull(strstr(error->message, "leafctl cache create --force"));
	g_clear_error(&error);
	g_assert_cmpint(truncate(path, 0), ==, 0);
	g_assert_null(try_open(path, 1 << 20, 1, &error));
	g_clear_error(&error);
	g_assert_true(g_file_set_contents(path, "something else", -1, NULL));
	g_assert_null(try_open(path, SMALL, 1, &error));
	g_clear_error(&error);
	g_assert_null(try_open(directory, SMALL, 1, &error));
	g_clear_error(&error);
	cache = try_open(NULL, SMALL, 1, &error);
	g_assert_no_error(error);
	g_assert_cmpint(cache_close(cache), ==, 0);
}

static bool run(const char *format, const char *argument)
{
	g_autofree char *command = g_strdup_printf(format, argument);
	g_autofree char *errors = NULL;
	int status = 1;

	return g_spawn_command_line_sync(command, NULL, &errors, &status, NULL) && status == 0;
}

/* A sparse cache on a file system that is full, and then is not. */
static void test_full_file_system(void)
{
	g_autofree char *mount_point = g_build_filename(directory, "full", NULL);
	g_autofree char *path = g_build_filename(mount_point, "cache", NULL);
	struct cache_layer *disk;
	struct cache *cache;
	struct user user;
	uint64_t count = 0;

	g_assert_cmpint(mkdir(mount_point, 0700), ==, 0);
	if (!run("mount -t tmpfs -o size=3m none %s", mount_point)) {
		g_test_skip("no tmpfs can be mounted here");
		rmdir(mount_point);
		return;
	}
	user_init(&user);
	cache = open_cache(path, SMALL);
	disk = cache_layer_new_volatile(cache, "disk");
	while (put(&user, disk, 3, count % 500, 1, count, true) == 0)
		count++;
	g_assert_true(wait_for_state(cache, CACHE_SUSPENDED));
	g_assert_true(run("mount -o remount,size=30m %s", mount_point));
	g_assert_true(wait_for_state(cache, CACHE_ACTIVE));
	for (uint64_t i = count; i < count + 500; i++)
		g_assert_cmpint(put(&user, disk, 3, i % 500, 1, i, true), ==, 0);
	for (uint64_t i = count; i < count + 500; i++)
		assert_block(&user, disk, 3, i % 500, i);
	cache_layer_close(disk, 0);
	g_assert_cmpint(cache_close(cache), ==, 0);
	user_clear(&user);
	g_assert_true(run("umount %s", mount_point));
	rmdir(mount_point);
}

/* ---- Damage -------------------------------------------------------------- */

#define DAMAGE_BLOCKS 800

static void flip(const char *path, uint64_t offset)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);
	uint8_t byte;

	g_assert_cmpint(pread(fd, &byte, 1, (off_t)offset), ==, 1);
	byte ^= (uint8_t)(1 << g_test_rand_int_range(0, 8));
	g_assert_cmpint(pwrite(fd, &byte, 1, (off_t)offset), ==, 1);
	close(fd);
}

static void put_for_damage(struct user *user, const char *path)
{
	struct cache *cache = open_cache(path, SMALL);
	struct cache_layer *layer = open_layer(cache, 1, 11, false);

	for (unsigned i = 0; i < DAMAGE_BLOCKS; i += 10)
		g_assert_cmpint(put(user, layer, 1, i, 10, 0, false), ==, 0);
	cache_layer_close(layer, 0);
	g_assert_cmpint(cache_close(cache), ==, 0);
}

/* How many blocks are served; each rightly, or forgotten. */
static unsigned count_served(struct user *user, struct cache_layer *layer)
{
	unsigned served = 0;

	for (unsigned i = 0; i < DAMAGE_BLOCKS; i++) {
		if (read_blocks(user, layer, i, 1).answer == CACHE_MISS)
			continue;
		if (user->result == 0) {
			g_assert_true(is_filled(user->buffer, 1, i, 0));
			served++;
		} else {
			g_assert_cmpint(user->result, ==, -EAGAIN);
			assert_answer(layer, i, CACHE_MISS);
		}
	}
	return served;
}

/* A pinned block that is damaged while nobody looks, and then moved: it stays an
 * error, wherever it is, until it is written again; its neighbours are well. */
static void test_lost(void)
{
	g_autofree char *path = new_path();
	struct cache *cache = open_cache(path, SMALL);
	struct cache_layer *disk = cache_layer_new_volatile(cache, "disk");
	struct cache_status before, now;
	struct user user;

	user_init(&user);
	g_assert_cmpint(put(&user, disk, 3, 0, 100, 1, true), ==, 0);
	g_assert_cmpint(put(&user, disk, 3, 1000, 250, 1, true), ==, 0);
	g_assert_cmpint(cache_sync(cache), ==, 0);
	g_assert_cmpuint(damage_copies(path, 3, 50, 1), ==, 1);
	cache_get_status(cache, &before);
	do {
		g_assert_cmpint(put(&user, disk, 3, 1000, 250, 1, true), ==, 0);
		cache_get_status(cache, &now);
	} while (now.tail_segment < before.tail_segment + 3 && now.tail_segment >= before.tail_segment);
	g_assert_cmpint(read_blocks(&user, disk, 50, 1).answer, ==, CACHE_HIT);
	g_assert_cmpint(user.result, ==, -EIO);
	for (unsigned i = 0; i < 100; i++)
		if (i != 50)
			assert_block(&user, disk, 3, i, 1);
	g_assert_cmpint(put(&user, disk, 3, 50, 1, 2, true), ==, 0);
	assert_block(&user, disk, 3, 50, 2);
	cache_layer_close(disk, 0);
	g_assert_cmpint(cache_close(cache), ==, 0);
	user_clear(&user);
}

static void test_damage(void)
{
	struct user user;

	user_init(&user);
	for (unsigned round = 0; round < 40; round++) {
		g_autofree char *path = new_path();
		struct cache_layer *layer;
		struct cache_status status;
		struct cache *cache;
		unsigned served;

		put_for_damage(&user, path);
		flip(path, CACHE_SEGMENTS_OFFSET + (uint64_t)g_test_rand_int_range(0, 3 << 20));
		cache = open_cache(path, 0);
		layer = open_layer(cache, 1, 11, false);
		served = count_served(&user, layer);
		cache_get_status(cache, &status);
		g_assert_cmpuint(status.cached_blocks, ==, served);
		g_assert_cmpuint(count_served(&user, layer), ==, served);
		g_assert_cmpint(put(&user, layer, 1, 0, 200, 0, false), ==, 0);
		cache_layer_close(layer, 0);
		g_assert_cmpint(cache_close(cache), ==, 0);
		unlink(path);
	}
	user_clear(&user);
}

#ifdef LEAFDISK_FAULTS
/* ---- Faults -------------------------------------------------------------- */

static void test_fault(const void *spec)
{
	g_autofree char *path = new_path();
	struct cache *cache = open_cache(path, 4 * SMALL); /* nothing is reclaimed */
	struct cache_layer *disk = cache_layer_new_volatile(cache, "disk");
	struct cache_layer *leaf = open_layer(cache, 2, 21, true);
	struct cache_layer *base = open_layer(cache, 1, 11, false);
	struct cache_layer_status layer_status;
	struct cache_status status;
	struct user user;
	uint64_t count = 0;

	user_init(&user);
	g_assert_cmpint(put(&user, base, 1, 0, 50, 0, false), ==, 0);
	g_assert_cmpint(put(&user, leaf, 2, 0, 50, 0, false), ==, 0);
	g_assert_cmpint(cache_sync(cache), ==, 0);
	arm(spec);
	while (put(&user, disk, 3, count % 300, 1, 0, true) == 0)
		count++;
	g_assert_true(wait_for_state(cache, CACHE_SUSPENDED));
	cache_get_status(cache, &status);
	g_assert_cmpuint(strlen(status.reason), >, 10);
	g_assert_cmpint(cache_sync(cache), <, 0);
	g_assert_cmpint(put(&user, base, 1, 60, 1, 0, false), ==, -EIO);
	cache_layer_get_status(leaf, &layer_status);
	g_assert_cmpint(layer_status.state, ==, CACHE_LAYER_DEGRADED);
	g_assert_cmpuint(strlen(layer_status.reason), >, 10);
	assert_answer(leaf, 0, CACHE_MISS);
	for (unsigned i = 0; i < MIN(count, 300); i++)
		assert_block(&user, disk, 3, i, 0);

	arm("");
	g_assert_true(wait_for_state(cache, CACHE_ACTIVE));
	g_assert_cmpint(put(&user, base, 1, 60, 1, 0, false), ==, 0);
	g_assert_cmpint(cache_sync(cache), ==, 0);
	cache_layer_get_status(leaf, &layer_status);
	g_assert_cmpint(layer_status.state, ==, CACHE_LAYER_ACTIVE);
	assert_answer(leaf, 0, CACHE_MISS);
	g_assert_cmpint(put(&user, leaf, 2, 7, 1, 0, false), ==, 0);
	for (unsigned i = 0; i < MIN(count, 300); i++)
		assert_block(&user, disk, 3, i, 0);
	for (unsigned i = 0; i < 50; i++)
		if (read_blocks(&user, base, i, 1).answer == CACHE_HIT)
			g_assert_true(user.result == 0 && is_filled(user.buffer, 1, i, 0));
	cache_layer_close(disk, 0);
	cache_layer_close(base, 0);
	cache_layer_close(leaf, 22);
	g_assert_cmpint(cache_close(cache), ==, 0);

	cache = open_cache(path, 0);
	leaf = open_layer(cache, 2, 22, false);
	base = open_layer(cache, 1, 11, false);
	assert_block(&user, leaf, 2, 7, 0);
	assert_answer(leaf, 0, CACHE_MISS);
	assert_block(&user, base, 1, 60, 0);
	cache_layer_close(leaf, 0);
	cache_layer_close(base, 0);
	g_assert_cmpint(cache_close(cache), ==, 0);
	user_clear(&user);
}

static void test_read_fault(void)
{
	g_autofree char *path = new_path();
	struct cache *cache = open_cache(path, 8 * SMALL);
	struct cache_layer *disk = cache_layer_new_volatile(cache, "disk");
	struct cache_layer *base = open_layer(cache, 1, 11, false);
	struct user user;

	user_init(&user);
	g_assert_cmpint(put(&user, disk, 3, 0, 255, 0, true), ==, 0);
	g_assert_cmpint(put(&user, base, 1, 0, 255, 0, false), ==, 0);
	g_assert_cmpint(put(&user, base, 1, 300, 255, 0, false), ==, 0);
	g_assert_cmpint(cache_sync(cache), ==, 0);
	arm("aio.read:EIO");
	g_assert_cmpint(read_blocks(&user, disk, 1, 1).answer, ==, CACHE_HIT);
	g_assert_cmpint(user.result, ==, -EIO);
	g_assert_cmpint(read_blocks(&user, base, 1, 1).answer, ==, CACHE_HIT);
	g_assert_cmpint(user.result, ==, -EAGAIN);
	assert_answer(base, 1, CACHE_MISS);
	arm("");
	assert_block(&user, disk, 3, 1, 0);
	cache_layer_close(disk, 0);
	cache_layer_close(base, 0);
	g_assert_cmpint(cache_close(cache), ==, 0);
	user_clear(&user);
}

static void test_super_fault(void)
{
	g_autofree char *path = new_path();
	struct cache *cache = open_cache(path, SMALL);
	struct cache_layer *disk = cache_layer_new_volatile(cache, "disk");
	struct user user;
	int result;

	user_init(&user);
	arm("cache.super:EIO");
	do
		result = put(&user, disk, 3, (uint64_t)g_test_rand_int_range(0, 300), 1, 0, true);
	while (result == 0);
	g_assert_cmpint(result, ==, -EIO);
	arm("");
	g_assert_true(wait_for_state(cache, CACHE_ACTIVE));
	for (unsigned i = 0; i < 5000; i++)
		g_assert_cmpint(put(&user, disk, 3, i % 300, 1, 0, true), ==, 0);
	cache_layer_close(disk, 0);
	g_assert_cmpint(cache_close(cache), ==, 0);
	user_clear(&user);
}

static void add_fault_tests(void)
{
	g_test_add_data_func("/cache/fault/write", "aio.write:EIO", test_fault);
	g_test_add_data_func("/cache/fault/full", "aio.write:ENOSPC@2", test_fault);
	g_test_add_data_func("/cache/fault/datasync", "aio.datasync:EIO", test_fault);
	g_test_add_func("/cache/fault/read", test_read_fault);
	g_test_add_func("/cache/fault/super", test_super_fault);
}
#else
static void add_fault_tests(void)
{
}
#endif

int main(int argc, char **argv)
{
	int result;

	g_test_init(&argc, &argv, NULL);
	make_directory();
	g_test_add_func("/cache/basic", test_basic);
	g_test_add_func("/cache/zero-limit", test_zero_limit);
	g_test_add_func("/cache/model", test_model);
	g_test_add_func("/cache/threads", test_threads);
	g_test_add_func("/cache/pinned-limit", test_pinned_limit);
	g_test_add_func("/cache/short-records", test_short_records);
	g_test_add_func("/cache/no-room", test_no_room);
	g_test_add_func("/cache/hot", test_hot);
	g_test_add_func("/cache/grow", test_grow);
	g_test_add_func("/cache/restart", test_restart);
	g_test_add_func("/cache/refused", test_refused);
	g_test_add_func("/cache/full-file-system", test_full_file_system);
	g_test_add_func("/cache/lost", test_lost);
	g_test_add_func("/cache/damage", test_damage);
	add_fault_tests();
	result = g_test_run();
	remove_directory();
	return result;
}
