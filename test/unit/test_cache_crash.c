/* Dirty layers whose process dies: what was flushed is there, in order, and the
 * image is never at anything but a barrier. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "cache_disk.h"

/* ---- Crashes ----------------------------------------------------------------- */

/* What is known of a disk, shared with the children. */
struct known {
	struct content disk;  /* where it is now, and was when the child began */
	struct content image; /* where that is */
	uint64_t owned;	      /* as the pool has it */
};

/* A disk whose guest, cache and migration end with their process. */
struct crashing {
	const char *path;
	const char *image_path;
	struct history *history;
	struct known *known;
	guint32 seed;
	bool cuts;
};

static void load_image(const char *path, uint64_t *image)
{
	g_autofree char *content = NULL;
	gsize length = 0;

	memset(image, 0, DISK_BLOCKS * sizeof(*image));
	if (g_file_get_contents(path, &content, &length, NULL)) {
		g_assert_cmpuint(length, ==, DISK_BLOCKS * sizeof(*image));
		memcpy(image, content, length);
	}
}

/* All or nothing. */
static void save_image(const char *path, const uint64_t *image)
{
	g_assert_true(g_file_set_contents(path, (const char *)image, DISK_BLOCKS * sizeof(*image), NULL));
}

struct child {
	struct disk disk;
	const char *image_path;
	bool cuts;
	GRand *random;
};

static void *child_migrates(void *opaque)
{
	struct child *child = opaque;
	struct disk *disk = &child->disk;

	for (;;) {
		struct cache_batch_limits limits = {.extents = 16};
		struct cache_batch *batch;

		limits.data_blocks = (unsigned)g_rand_int_range(child->random, 1, 300);
		limits.cut = child->cuts && g_rand_boolean(child->random);
		cache_wait_work(disk->cache, loop_now_ns() + 1000 * 1000);
		g_assert_cmpint(cache_batch_take(disk->layer, &limits, &batch, NULL, NULL), ==, 0);
		if (!batch || (g_rand_int_range(child->random, 0, 8) == 0 && cache_batch_refuse(batch)))
			continue;
		apply_batch(disk->image, batch, disk->tag);
		save_image(child->image_path, disk->image);
		g_usleep((gulong)g_rand_int_range(child->random, 0, 3000));
		cache_batch_done(batch);
	}
	return NULL;
}

/* An epoch that fills the log cannot be migrated without a cut. */
static void child_step(struct disk *disk)
{
	int what = g_rand_int_range(disk->user->random, 0, 100), result = 0;
	unsigned first, count;

	step_range(disk->user->random, what < 5 ? 100 : 6, &first, &count);
	if (what < 70)
		disk_put(disk, first, count, &result);
	else if (what < 78)
		result = disk_zero(disk, first, count);
	else if (what < 99)
		result = disk_flush(disk);
	else
		g_usleep((gulong)g_rand_int_range(disk->user->random, 0, 20000));
	if (result == -EAGAIN) {
		flush_waiting(disk);
		wait_for_dirty_room(disk->user, disk->layer);
	}
}

static void G_GNUC_NORETURN run_until_killed(struct crashing *crashing)
{
	struct cache *cache = open_cache(crashing->path, SMALL);
	struct child child = {.image_path = crashing->image_path, .cuts = crashing->cuts};
	struct disk *disk = &child.disk;
	uint64_t *owned = &crashing->known->owned;
	struct user user;
	pthread_t thread;

	user_init(&user);
	g_rand_set_seed(user.random, crashing->seed);
	child.random = g_rand_new_with_seed(crashing->seed + 1);
	*disk = (struct disk){.cache = cache, .user = &user, .tag = 1, .history = crashing->history};
	advance(&disk->now, disk->history, disk->history->done);
	load_image(crashing->image_path, disk->image);
	disk_reopen(disk, cache, *owned, *owned + 1);
	__atomic_store_n(owned, *owned + 1, __ATOMIC_SEQ_CST);
	assert_reads(disk);
	g_assert_cmpint(pthread_create(&thread, NULL, child_migrates, &child), ==, 0);
	for (;;)
		child_step(disk);
}

static void end_by_kill(pid_t child)
{
	int status;

	kill(child, SIGKILL);
	g_assert_cmpint(waitpid(child, &status, 0), ==, child);
	g_assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static void kill_child(struct crashing *crashing)
{
	pid_t child = fork_child();

	if (child == 0)
		run_until_killed(crashing);
	g_usleep((gulong)g_test_rand_int_range(5000, 250000));
	end_by_kill(child);
}

static void look_after_crash(void *opaque)
{
	struct crashing *crashing = opaque;
	struct known *known = crashing->known;
	struct history *history = crashing->history;
	struct cache *cache = open_cache(crashing->path, 0);
	struct disk disk = {.cache = cache, .tag = 1, .history = history, .model = known->image};
	int batches = g_test_rand_int_range(0, 6);
	uint64_t blocks[DISK_BLOCKS];
	struct user user;
	unsigned at;

	user_init(&user);
	disk.user = &user;
	disk.cut_anywhere = crashing->cuts;
	load_image(crashing->image_path, disk.image);
	disk_reopen(&disk, cache, known->owned, known->owned + 1);
	known->owned++;
	assert_image(&disk);
	read_all(&disk, blocks);
	at = find_last_state(&known->disk, blocks, history);
	g_assert_cmpuint(at, !=, UINT_MAX);
	g_assert_cmpuint(at, >=, history->flushed);
	truncate_history(history, at);
	advance(&known->disk, history, at);
	disk.now = known->disk;
	while (batches-- > 0 && migrate(&disk, (unsigned)g_test_rand_int_range(1, 200), false))
		;
	if (g_test_rand_int_range(0, 4) == 0)
		drain(&disk);
	assert_reads(&disk);
	save_image(crashing->image_path, disk.image);
	known->image = disk.model;
	cache_layer_close(disk.layer, 0);
	g_assert_cmpint(cache_close(cache), ==, 0);
	assert_sound(crashing->path);
	user_clear(&user);
}

static void test_kill(const void *cuts)
{
	g_autofree char *path = new_path();
	g_autofree char *image_path = new_path();
	struct crashing crashing = {.path = path, .image_path = image_path, .history = history_new(), .cuts = cuts};
	unsigned rounds = getenv("LEAFDISK_TORTURE") ? 1000 : 25;

	crashing.known = shared_memory(sizeof(*crashing.known));
	for (unsigned i = 0; i < rounds && crashing.history->begun < HISTORY_MAX / 2; i++) {
		crashing.seed = (guint32)g_test_rand_int();
		kill_child(&crashing);
		run_apart(look_after_crash, &crashing);
	}
	g_assert_cmpuint(crashing.history->flushed, >, 100);
	g_assert_cmpuint(crashing.known->image.at, >, 100);
	munmap(crashing.known, sizeof(*crashing.known));
	history_free(crashing.history);
}

/* ---- Many layers ------------------------------------------------------------- */

#define LAYERS 450
#define LAYER_BLOCKS 4

/* Versions of the blocks of many layers, and how far who migrates them has come;
 * shared with the child that is killed. */
struct many {
	uint64_t put[LAYERS][LAYER_BLOCKS];
	uint64_t image[LAYERS][LAYER_BLOCKS];
	uint64_t round; /* what is put is this version; from 1 */
	unsigned steps;
	bool full; /* with what is durable */
};

static struct cache_layer *open_one(struct cache *cache, unsigned number, uint64_t round)
{
	g_autofree char *name = g_strdup_printf("%u", number);
	struct cache_layer_key key = {.stamp = 77, .size_bytes = 1 << 20, .name = name, .owned = round - 1};
	unsigned identity = number + 1;
	struct cache_layer *layer;
	int result;

	memcpy(key.identity, &identity, sizeof(identity));
	layer = cache_layer_open_dirty(cache, &key, &round, NULL, &result);
	g_assert_nonnull(layer);
	return layer;
}

static void apply_one(struct many *many, unsigned number, const struct cache_batch *batch)
{
	for (unsigned i = 0; i < batch->extent_count; i++) {
		const struct cache_batch_extent *extent = &batch->extents[i];

		for (uint64_t j = 0; j < extent->blocks; j++) {
			const uint8_t *data = extent->data + j * BLOCK_SIZE;

			g_assert_true(is_filled(data, number, extent->block + j, version_of(data)));
			many->image[number][extent->block + j] = version_of(data);
		}
	}
}

static void take_step(struct many *many)
{
	__atomic_add_fetch(&many->steps, 1, __ATOMIC_SEQ_CST);
}

/* Now and then the image fails, or has no room. */
static void migrate_one(struct many *many, struct cache_layer *layer, unsigned number, GRand *random)
{
	struct cache_batch_limits limits = {.data_blocks = 1, .extents = 16, .cut = true};
	struct cache_batch *batch;
	int what = g_rand_int_range(random, 0, 10);

	g_assert_cmpint(cache_batch_take(layer, &limits, &batch, NULL, NULL), ==, 0);
	take_step(many);
	if (!batch || (what == 0 && cache_batch_refuse(batch)))
		return;
	if (what == 1) {
		cache_batch_free(batch);
		return;
	}
	apply_one(many, number, batch);
	take_step(many);
	cache_batch_done(batch);
	take_step(many);
}

static void migrate_many(struct many *many, struct cache *cache, struct cache_layer **layers, GRand *random)
{
	unsigned first = (unsigned)g_rand_int_range(random, 0, LAYERS);
	struct cache_status status;

	do {
		for (unsigned i = 0; i < LAYERS; i++)
			migrate_one(many, layers[(first + i) % LAYERS], (first + i) % LAYERS, random);
		cache_get_status(cache, &status);
	} while (status.dirty_blocks > 0);
	g_assert_cmpmem(many->image, sizeof(many->image), many->put, sizeof(many->put));
}

/* The same blocks of all in turn, until the log takes no more. */
static void put_many(struct many *many, struct cache *cache, struct cache_layer **layers, uint8_t *buffer)
{
	unsigned failed = 0;

	for (unsigned i = 0; failed < 100 || !is_full(cache);) {
		unsigned number = i % LAYERS, block = i / LAYERS % LAYER_BLOCKS;

		fill(buffer, number, block, many->round);
		if (cache_put(layers[number], block, 1, buffer, true) == 1) {
			many->put[number][block] = many->round;
			i++;
			failed = 0;
			continue;
		}
		g_usleep(1000);
		failed++;
	}
	g_assert_cmpint(cache_sync(cache), ==, 0);
}

static void G_GNUC_NORETURN run_many_until_killed(const char *path, struct many *many)
{
	struct cache *cache = open_cache(path, SMALL);
	struct cache_layer *layers[LAYERS];
	struct user user;

	user_init(&user);
	g_rand_set_seed(user.random, (guint32)many->round);
	for (unsigned i = 0; i < LAYERS; i++)
		layers[i] = open_one(cache, i, many->round);
	migrate_many(many, cache, layers, user.random);
	put_many(many, cache, layers, user.buffer);
	many->steps = 0;
	__atomic_store_n(&many->full, true, __ATOMIC_SEQ_CST);
	migrate_many(many, cache, layers, user.random);
	for (;;)
		pause();
}

/* What a mount would find, on top of the images. */
static bool find_one(void *opaque, const struct cache_layer_info *layer, uint64_t block, uint64_t blocks,
		     const void *data)
{
	uint64_t(*found)[LAYER_BLOCKS] = opaque;
	uint64_t number = g_ascii_strtoull(layer->name, NULL, 10);

	for (uint64_t i = 0; i < blocks; i++)
		found[number][block + i] = version_of((const uint8_t *)data + i * BLOCK_SIZE);
	return true;
}

static void kill_many(const char *path, struct many *many, unsigned steps)
{
	pid_t child = fork_child();
	int status;

	if (child == 0)
		run_many_until_killed(path, many);
	while (!__atomic_load_n(&many->full, __ATOMIC_SEQ_CST) ||
	       __atomic_load_n(&many->steps, __ATOMIC_SEQ_CST) < steps) {
		g_assert_cmpint(waitpid(child, &status, WNOHANG), ==, 0);
		g_usleep(100);
	}
	end_by_kill(child);
}

/* Where room is scarce the records of many layers' batches are shared, and MIGRATED
 * waits: whenever the process dies, nothing durable is lost, and nothing older comes
 * back. */
static void test_scarce(void)
{
	g_autofree char *path = new_path();
	struct many *many = shared_memory(sizeof(*many));
	unsigned rounds = getenv("LEAFDISK_TORTURE") ? 500 : 12;

	for (unsigned i = 0; i < rounds; i++) {
		uint64_t found[LAYERS][LAYER_BLOCKS];

		many->round++;
		many->full = false;
		kill_many(path, many, (unsigned)g_test_rand_int_range(0, 2 * LAYERS));
		assert_sound(path);
		memcpy(found, many->image, sizeof(found));
		g_assert_true(cache_dump(path, NULL, find_one, no_finding, found, NULL));
		g_assert_cmpmem(found, sizeof(found), many->put, sizeof(many->put));
	}
	munmap(many, sizeof(*many));
}

/* ---- What the ancestors got wrong -------------------------------------------- */

/* RUN in a process that ends without closing anything. */
static void in_child(void (*run)(const char *path, void *opaque), const char *path, void *opaque)
{
	pid_t child = fork_child();

	if (child == 0) {
		run(path, opaque);
		_exit(g_test_failed() ? 1 : 0);
	}
	g_assert_cmpint(exit_status_of(child), ==, 0);
}

/* How often the file has the block's content. */
static unsigned count_copies(const char *path, uint64_t block, uint64_t version)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	uint8_t data[BLOCK_SIZE];
	unsigned count = 0;

	for (off_t at = CACHE_SEGMENTS_OFFSET; pread(fd, data, sizeof(data), at) == sizeof(data); at += BLOCK_SIZE)
		count += is_filled(data, 1, block, version);
	close(fd);
	return count;
}

/* Version 1 durable; 2 and 3 in records that are written and known durable by
 * no other. */
static void write_three(const char *path, void *opaque)
{
	struct cache *cache = open_cache(path, SMALL);
	struct flushing flushing[2];
	struct disk disk;
	struct user user;

	(void)opaque;
	user_init(&user);
	disk_init(&disk, cache, &user, 1);
	put_waiting(&disk, 5, 1);
	flush_waiting(&disk);
	cache_set_limits(cache, 0, UINT64_C(3600) * 1000 * 1000 * 1000);
	put_waiting(&disk, 5, 1);
	assert_done(start_flush(&flushing[0], disk.layer, &user));
	put_waiting(&disk, 6, 1);
	assert_done(start_flush(&flushing[1], disk.layer, &user));
	while (count_copies(path, 5, 2) == 0 || count_copies(path, 6, 3) == 0)
		g_usleep(1000);
}

/* Opens it as the next mount does; PUT: with one block of version 4 more. */
static void look_at_three(const char *path, void *put)
{
	struct cache *cache = open_cache(path, 0);
	struct disk disk = {.cache = cache, .tag = 1, .history = history_new()};
	uint64_t generation = put ? 2 : 1;
	struct user user;

	user_init(&user);
	disk.user = &user;
	disk_reopen(&disk, cache, generation, generation + 1);
	assert_block(&user, disk.layer, 1, 5, 1);
	assert_answer(disk.layer, 6, CACHE_MISS);
	if (!put)
		return;
	disk.history->version = 3;
	put_waiting(&disk, 7, 1);
	flush_waiting(&disk);
}

static void look_at_first_and_last(void *path)
{
	struct cache *cache = open_cache(path, 0);
	struct cache_layer *layer = open_dirty(cache, 1, 3, 4);
	struct user user;

	user_init(&user);
	assert_block(&user, layer, 1, 5, 1);
	assert_answer(layer, 6, CACHE_MISS);
	assert_block(&user, layer, 1, 7, 4);
	cache_layer_close(layer, 0);
	g_assert_cmpint(cache_close(cache), ==, 0);
	user_clear(&user);
}

/* dm-lc: a torn record with an intact one behind it, and a second crash: what
 * the intact one has came back. */
static void test_torn_record(void)
{
	g_autofree char *path = new_path();

	in_child(write_three, path, NULL);
	g_assert_cmpuint(damage_copies(path, 1, 5, 2), ==, 1);
	in_child(look_at_three, path, NULL);
	in_child(look_at_three, path, path);
	run_apart(look_at_first_and_last, path);
}

/* Version 1 durable, version 2 in memory only when the process ends, and what
 * has version 1 migrated. */
static void migrate_old(const char *path, void *image)
{
	struct cache *cache = open_cache(path, SMALL);
	struct disk disk;
	struct user user;

	user_init(&user);
	disk_init(&disk, cache, &user, 1);
	put_waiting(&disk, 5, 1);
	flush_waiting(&disk);
	put_waiting(&disk, 5, 1);
	while (disk.image[5] == 0)
		g_assert_true(migrate(&disk, 1000, false));
	memcpy(image, disk.image, sizeof(disk.image));
}

static void look_at_successor(const char *path, void *image)
{
	struct cache *cache = open_cache(path, 0);
	struct disk disk = {.tag = 1};
	uint64_t blocks[DISK_BLOCKS];
	struct user user;

	user_init(&user);
	disk.user = &user;
	memcpy(disk.image, image, sizeof(disk.image));
	g_assert_cmpuint(disk.image[5], ==, 1);
	disk_reopen(&disk, cache, 1, 2);
	read_all(&disk, blocks);
	g_assert_cmpuint(blocks[5], >=, 1);
	cache_layer_close(disk.layer, 0);
	g_assert_cmpint(cache_close(cache), ==, 0);
	user_clear(&user);
}

/* dm-lc: a block was called clean while its successor was in RAM only. */
static void test_successor_in_memory(void)
{
	g_autofree char *path = new_path();
	size_t bytes = DISK_BLOCKS * sizeof(uint64_t);
	uint64_t *image = shared_memory(bytes);

	in_child(migrate_old, path, image);
	in_child(look_at_successor, path, image);
	munmap(image, bytes);
}

int main(int argc, char **argv)
{
	int result;

	g_test_init(&argc, &argv, NULL);
	alarm(DEADLINE_S); /* what waits for ever fails */
	make_directory();
	g_test_add_data_func("/cache-crash/kill/barriers", NULL, test_kill);
	g_test_add_data_func("/cache-crash/kill/cuts", "cuts", test_kill);
	g_test_add_func("/cache-crash/kill/scarce", test_scarce);
	g_test_add_func("/cache-crash/ancestors/torn-record", test_torn_record);
	g_test_add_func("/cache-crash/ancestors/successor-in-memory", test_successor_in_memory);
	result = g_test_run();
	remove_directory();
	return result;
}
