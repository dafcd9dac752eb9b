/* Dirty layers on real cache files: guests, barriers, batches and an image in
 * memory or in a file, which must be at every moment what its guest's disk was
 * at a barrier, whoever dies when. Tests name the fault they are about. */
#include "cache/writeback.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "cache_disk.h"

/* ---- Model ------------------------------------------------------------------- */

static void make_room(struct disk *disks, unsigned count)
{
	GRand *random = disks[0].user->random;

	for (unsigned i = 0; i < count; i++)
		migrate(&disks[i], (unsigned)g_rand_int_range(random, 1, 300), true);
}

/* What the image has, read into the cache as a miss does. */
static void put_clean(struct disk *disk, unsigned block)
{
	if (cache_lookup(disk->layer, block, 1).answer != CACHE_MISS)
		return;
	fill(disk->user->buffer, disk->tag, block, disk->image[block]);
	if (disk->image[block] != 0)
		(void)cache_put(disk->layer, block, 1, disk->user->buffer, false);
}

static void model_step(struct disk *disks, unsigned disk_count)
{
	GRand *random = disks[0].user->random;
	struct disk *disk = &disks[g_rand_int_range(random, 0, (gint32)disk_count)];
	int what = g_rand_int_range(random, 0, 100), result = 0;
	unsigned first, count;

	if (what < 45) {
		step_range(random, what < 5 ? READ_BLOCKS : 8, &first, &count);
		disk_put(disk, first, count, &result);
	} else if (what < 50) {
		/* The same blocks over and over: in place while the record is open. */
		for (unsigned i = 0; i < 20 && result == 0; i++)
			disk_put(disk, 30 + i % 3, 2, &result);
	} else if (what < 57) {
		step_range(random, what < 52 ? DISK_BLOCKS : 20, &first, &count);
		result = disk_zero(disk, first, count);
	} else if (what < 70) {
		result = disk_flush(disk);
	} else if (what < 80) {
		put_clean(disk, (unsigned)g_rand_int_range(random, 0, DISK_BLOCKS));
	} else if (what < 81) {
		cache_layer_set_stuck(disk->layer, g_rand_boolean(random));
	} else if (what < 97) {
		migrate(disk, (unsigned)g_rand_int_range(random, 1, 400), what < 84);
	} else {
		assert_reads(disk);
	}
	if (result == -EAGAIN)
		make_room(disks, disk_count);
	else
		g_assert_cmpint(result, ==, 0);
}

static void put_base(struct user *user, struct cache_layer *base)
{
	uint64_t block = (uint64_t)g_rand_int_range(user->random, 0, 3000);

	if (read_blocks(user, base, block, 1).answer == CACHE_HIT) {
		g_assert_true(user->result == 0 && is_filled(user->buffer, 99, block, 0));
		return;
	}
	fill(user->buffer, 99, block, 0);
	(void)cache_put(base, block, 1, user->buffer, false);
}

static void test_model(const void *size)
{
	unsigned steps = getenv("LEAFDISK_TORTURE") ? 12000 : 6000;
	g_autofree char *path = new_path();
	struct cache *cache = open_cache(path, GPOINTER_TO_SIZE(size));
	struct cache_layer *base = open_layer(cache, 100, 1, false);
	struct disk disks[2];
	struct user user;

	user_init(&user);
	for (unsigned i = 0; i < G_N_ELEMENTS(disks); i++)
		disk_init(&disks[i], cache, &user, i + 1);
	for (unsigned i = 0; i < steps; i++) {
		model_step(disks, G_N_ELEMENTS(disks));
		put_base(&user, base);
	}
	for (unsigned i = 0; i < G_N_ELEMENTS(disks); i++)
		drain(&disks[i]);
	for (unsigned i = 0; i < G_N_ELEMENTS(disks); i++) {
		assert_clean(cache, disks[i].layer);
		g_assert_cmpuint(disks[i].cuts, >, 0);
		disk_clear(&disks[i], 0);
	}
	cache_layer_close(base, 0);
	g_assert_cmpint(cache_close(cache), ==, 0);
	user_clear(&user);
}

/* ---- Space ------------------------------------------------------------------- */

struct migrator {
	pthread_t thread;
	struct cache *cache;
	struct disk *disks;
	unsigned count;
	int stop;
};

/* A disk's image for a migrator that runs beside its guest. */
static void migrate_beside(struct disk *disk, const struct cache_batch_limits *limits)
{
	struct cache_batch *batch;

	g_assert_cmpint(cache_batch_take(disk->layer, limits, &batch, NULL, NULL), ==, 0);
	if (!batch)
		return;
	apply_batch(disk->image, batch, disk->tag);
	assert_image(disk);
	cache_batch_done(batch);
}

/* Only where room is short, as nobody who has no need to would. */
static void *migrator_main(void *opaque)
{
	struct migrator *migrator = opaque;
	struct cache_batch_limits limits = {.data_blocks = 100, .extents = 100};

	while (!g_atomic_int_get(&migrator->stop)) {
		struct cache_status status;

		cache_wait_work(migrator->cache, UINT64_MAX);
		cache_get_status(migrator->cache, &status);
		limits.cut = status.short_of_room;
		for (unsigned i = 0; i < migrator->count && status.short_of_room; i++)
			migrate_beside(&migrator->disks[i], &limits);
	}
	return NULL;
}

/* Far more than the log holds, past a disk that wrote once and never again, one
 * that never flushes, pinned blocks and clean ones. */
static void test_full(void)
{
	g_autofree char *path = new_path();
	struct cache *cache = open_cache(path, SMALL + (2u << 20));
	struct cache_layer *overlay = cache_layer_new_volatile(cache, "overlay");
	struct cache_layer *base = open_layer(cache, 100, 1, false);
	struct migrator migrator = {.cache = cache};
	struct disk disks[3];
	struct user user;

	user_init(&user);
	for (unsigned i = 0; i < G_N_ELEMENTS(disks); i++) {
		disk_init(&disks[i], cache, &user, i + 1);
		disks[i].cut_anywhere = true;
	}
	migrator.disks = disks;
	migrator.count = G_N_ELEMENTS(disks);
	g_assert_cmpint(put(&user, overlay, 50, 0, 250, 1, true), ==, 0);
	put_waiting(&disks[0], 5, 1);
	g_assert_cmpint(pthread_create(&migrator.thread, NULL, migrator_main, &migrator), ==, 0);
	for (unsigned i = 0; i < 12000; i++) {
		unsigned first, count;

		step_range(user.random, 6, &first, &count);
		put_waiting(&disks[1 + i % 2], first, count);
		if (i % 9 == 0)
			flush_waiting(&disks[1]);
		if (i % 7 == 0)
			put_base(&user, base);
	}
	g_atomic_int_set(&migrator.stop, 1);
	cache_kick(cache);
	pthread_join(migrator.thread, NULL);
	for (uint64_t i = 0; i < 250; i++)
		assert_block(&user, overlay, 50, i, 1);
	for (unsigned i = 0; i < G_N_ELEMENTS(disks); i++) {
		g_assert_cmpuint(disks[i].model.at, >, 0);
		drain(&disks[i]);
		disk_clear(&disks[i], 0);
	}
	cache_layer_close(overlay, 0);
	cache_layer_close(base, 0);
	g_assert_cmpint(cache_close(cache), ==, 0);
	user_clear(&user);
}

static unsigned put_until_full(struct disk *disk)
{
	unsigned count = 0;
	int result = 0;

	while (result == 0)
		count += disk_put(disk, count % DISK_BLOCKS, 1, &result);
	g_assert_cmpint(result, ==, -EAGAIN);
	return count;
}

static struct cache_layer *open_numbered(struct cache *cache, unsigned number)
{
	struct cache_layer_key key = {.stamp = 77, .size_bytes = UINT64_C(1) << 40, .name = "one of many"};
	struct cache_layer *layer;
	uint64_t generation = 1;
	int result;

	memcpy(key.identity, &number, sizeof(number));
	layer = cache_layer_open_dirty(cache, &key, &generation, NULL, &result);
	g_assert_nonnull(layer);
	return layer;
}

/* Layers that take what one alone may not. */
struct crowd {
	struct cache_layer *layers[40];
	unsigned count;
};

static void fill_with_crowd(struct crowd *crowd, struct cache *cache, const uint8_t *data)
{
	struct cache_status status;

	for (crowd->count = 0; crowd->count < G_N_ELEMENTS(crowd->layers); crowd->count++) {
		struct cache_layer *layer = open_numbered(cache, 1000 + crowd->count);

		crowd->layers[crowd->count] = layer;
		for (uint64_t i = 0; cache_put(layer, i, 1, data, true) == 1; i++)
			;
	}
	await_settled(cache, &status);
	g_assert_cmpuint(status.free_segments, <=, 3);
}

static void drain_crowd(struct crowd *crowd)
{
	struct cache_batch_limits limits = {.data_blocks = 4096, .extents = 4096, .cut = true};

	for (unsigned i = 0; i < crowd->count; i++) {
		struct cache_batch *batch;

		g_assert_cmpint(cache_batch_take(crowd->layers[i], &limits, &batch, NULL, NULL), ==, 0);
		if (batch)
			cache_batch_done(batch);
		cache_layer_close(crowd->layers[i], 0);
	}
}

/* Nothing dirty leaves the log by itself; what is clean goes round beside it. */
static void test_stays(void)
{
	g_autofree char *path = new_path();
	struct cache *cache = open_cache(path, SMALL);
	struct cache_layer *base = open_layer(cache, 100, 1, false);
	struct cache_status before, after;
	struct crowd crowd;
	struct disk disk;
	struct user user;

	user_init(&user);
	disk_init(&disk, cache, &user, 1);
	put_until_full(&disk);
	fill_with_crowd(&crowd, cache, user.buffer);
	g_assert_cmpint(cache_sync(cache), ==, 0);
	cache_get_status(cache, &before);
	g_assert_true(before.short_of_room);
	g_assert_cmpint(cache_put(base, 1, 1, user.buffer, false), ==, -ENOSPC);
	assert_reads(&disk);
	/* A retry of an image that fails costs no room, however often. */
	for (unsigned i = 0; i < 2000; i++) {
		struct cache_batch_limits limits = {.data_blocks = 10, .extents = 10, .cut = true};
		struct cache_batch *batch;

		g_assert_cmpint(cache_batch_take(disk.layer, &limits, &batch, NULL, NULL), ==, 0);
		g_assert_nonnull(batch);
		cache_batch_free(batch);
	}
	cache_get_status(cache, &after);
	g_assert_cmpuint(after.tail_segment, ==, before.tail_segment);
	g_assert_cmpuint(after.free_segments, ==, before.free_segments);
	drain(&disk);
	drain_crowd(&crowd);
	put_waiting(&disk, 0, 100);
	drain(&disk);
	disk_clear(&disk, 0);
	cache_layer_close(base, 0);
	g_assert_cmpint(cache_close(cache), ==, 0);
	user_clear(&user);
}

/* Takes at most DATA_BLOCKS, which are in one extent, and returns how many they are. */
static uint64_t take_blocks(struct disk *disk, unsigned data_blocks, struct cache_batch **batch)
{
	struct cache_batch_limits limits = {.data_blocks = data_blocks, .extents = 100};

	g_assert_cmpint(cache_batch_take(disk->layer, &limits, batch, NULL, NULL), ==, 0);
	g_assert_nonnull(*batch);
	return (*batch)->data_blocks;
}

/* A batch for which the image has no room gets smaller, down to an epoch, also
 * after a restart; one that the image may have does not. */
static void test_refused(void)
{
	g_autofree char *path = new_path();
	struct cache *cache = open_cache(path, SMALL);
	struct cache_batch *batch;
	struct disk disk;
	struct user user;

	user_init(&user);
	disk_init(&disk, cache, &user, 1);
	for (unsigned i = 0; i < 3; i++) {
		put_waiting(&disk, i * 100, 100);
		flush_waiting(&disk);
	}
	g_assert_cmpuint(take_blocks(&disk, 1000, &batch), ==, 300);
	g_assert_true(cache_batch_refuse(batch));
	g_assert_cmpuint(take_blocks(&disk, 0, &batch), ==, 100);
	g_assert_false(cache_batch_refuse(batch));
	cache_batch_free(batch);
	cache_layer_close(disk.layer, 0);
	g_assert_cmpint(cache_close(cache), ==, 0);
	disk.cache = open_cache(path, SMALL);
	disk.layer = open_dirty(disk.cache, disk.tag, 1, 2);
	/* What is bound to an end goes at least that far; no further is needed. */
	g_assert_cmpuint(take_blocks(&disk, 0, &batch), ==, 100);
	cache_batch_free(batch);
	g_assert_cmpuint(take_blocks(&disk, 200, &batch), ==, 200);
	g_assert_true(cache_batch_refuse(batch));
	g_assert_cmpuint(take_blocks(&disk, 200, &batch), ==, 200);
	/* The image fails in the middle of it. */
	cache_batch_free(batch);
	g_assert_cmpuint(take_blocks(&disk, 1000, &batch), ==, 300);
	g_assert_true(cache_batch_refuse(batch));
	g_assert_cmpuint(take_blocks(&disk, 0, &batch), ==, 200);
	g_assert_false(cache_batch_refuse(batch));
	cache_batch_free(batch);
	drain(&disk);
	assert_clean(disk.cache, disk.layer);
	disk_clear(&disk, 0);
	g_assert_cmpint(cache_close(disk.cache), ==, 0);
	user_clear(&user);
}

/* Every layer has a few dirty blocks, until the log takes no more. A disk that is busy
 * for long suspends the cache for a while (-EIO). */
static void fill_by_turns(struct cache_layer **layers, unsigned count, const uint8_t *data)
{
	int64_t result = 1;

	for (unsigned i = 0; result != -EAGAIN; i += result == 1) {
		if (result == -EIO)
			g_usleep(10 * 1000);
		result = cache_put(layers[i % count], i / count, 1, data, true);
		g_assert_true(result == 1 || result == -EAGAIN || result == -EIO);
	}
}

static int compare_distances(const void *left, const void *right)
{
	struct cache_dirty one, other;

	cache_layer_get_dirty(*(struct cache_layer *const *)left, &one);
	cache_layer_get_dirty(*(struct cache_layer *const *)right, &other);
	return one.distance < other.distance ? -1 : one.distance > other.distance;
}

static int compare_backwards(const void *left, const void *right)
{
	return compare_distances(right, left);
}

/* In the ORDER of what is oldest in each. How many batches went. */
static unsigned migrate_each(struct cache_layer **layers, unsigned count, GCompareFunc order)
{
	struct cache_batch_limits limits = {.data_blocks = 4096, .extents = 4096, .cut = true};
	unsigned batches = 0;

	qsort(layers, count, sizeof(struct cache_layer *), order);
	for (unsigned i = 0; i < count; i++) {
		struct cache_batch *batch;

		g_assert_cmpint(cache_batch_take(layers[i], &limits, &batch, NULL, NULL), ==, 0);
		if (!batch)
			continue;
		cache_batch_done(batch);
		batches++;
	}
	return batches;
}

/* Room for the next batch may be what the reclaim thread has yet to make. */
static void migrate_all(struct cache *cache, struct cache_layer **layers, unsigned count, GCompareFunc order)
{
	gint64 last = g_get_monotonic_time();
	struct cache_status status;

	do {
		if (migrate_each(layers, count, order) > 0)
			last = g_get_monotonic_time();
		else
			g_usleep(1000);
		cache_get_status(cache, &status);
	} while (status.dirty_blocks > 0 && g_get_monotonic_time() < last + PATIENCE_S * G_USEC_PER_SEC);
	g_assert_cmpuint(status.dirty_blocks, ==, 0);
}

/* What each batch needs of the log is there, also when it is full and every
 * segment of it has something of every layer. */
static void test_many_layers(const void *layer_count)
{
	unsigned count = (unsigned)GPOINTER_TO_SIZE(layer_count);
	g_autofree struct cache_layer **layers = g_new(struct cache_layer *, count);
	g_autofree char *path = new_path();
	struct cache *cache = open_cache(path, 2 * SMALL);
	struct cache_status status;
	struct user user;

	user_init(&user);
	for (unsigned i = 0; i < count; i++)
		layers[i] = open_numbered(cache, i);
	for (unsigned round = 0; round < 3; round++) {
		fill_by_turns(layers, count, user.buffer);
		migrate_all(cache, layers, count, compare_distances);
		await_settled(cache, &status);
	}
	for (unsigned i = 0; i < count; i++)
		cache_layer_close(layers[i], 0);
	g_assert_cmpint(cache_close(cache), ==, 0);
	user_clear(&user);
}

/* One block of each, until what is dirty fills the log and nothing is left to be
 * reclaimed. How many have one. */
static unsigned put_one_each(struct cache *cache, struct cache_layer **layers, unsigned count, const uint8_t *data)
{
	unsigned put = 0;

	do {
		while (put < count && cache_put(layers[put], 0, 1, data, true) == 1)
			put++;
	} while (put < count && !is_full(cache));
	return put;
}

/* A batch frees one block, and no layer has another: in each segment there are as
 * many layers as there can be, each of which the log is to say something of. */
static void test_one_block_each(const void *order)
{
	enum { COUNT = 1800 }; /* more than the log holds */
	g_autofree struct cache_layer **layers = g_new(struct cache_layer *, COUNT);
	g_autofree char *path = new_path();
	struct cache *cache = open_cache(path, SMALL + (4u << 20));
	struct cache_status status;
	struct user user;
	unsigned put;

	user_init(&user);
	for (unsigned i = 0; i < COUNT; i++)
		layers[i] = open_numbered(cache, i);
	await_settled(cache, &status);
	put = put_one_each(cache, layers, COUNT, user.buffer);
	g_assert_cmpuint(put, >, 900);
	g_assert_cmpuint(put, <, COUNT);
	migrate_all(cache, layers, COUNT, (GCompareFunc)order);
	for (unsigned i = 0; i < COUNT; i++)
		cache_layer_close(layers[i], 0);
	g_assert_cmpint(cache_close(cache), ==, 0);
	user_clear(&user);
}

/* A part of MAX is for others. */
static void assert_most_of(uint64_t count, uint64_t max)
{
	g_assert_cmpuint(count, >=, max * 4 / 5);
	g_assert_cmpuint(count, <, max);
}

static void test_dirty_max(void)
{
	g_autofree char *path = new_path();
	struct cache *cache = open_cache(path, 2 * SMALL);
	struct cache_dirty dirty;
	struct cache_status status;
	struct disk disk;
	struct user user;

	user_init(&user);
	disk_init(&disk, cache, &user, 1);
	cache_set_limits(cache, 100, 0);
	assert_most_of(put_until_full(&disk), 100);
	cache_get_status(cache, &status);
	assert_most_of(status.dirty_blocks, 100);
	g_assert_cmpuint(status.dirty_blocks_max, ==, 100);
	cache_layer_get_dirty(disk.layer, &dirty);
	g_assert_cmpuint(dirty.share_percent, ==, 100);
	g_assert_cmpint(disk_zero(&disk, 0, 1), ==, -EAGAIN);
	/* More is allowed: who waits hears of it. */
	cache_set_limits(cache, 150, 0);
	wait_for_dirty_room(&user, disk.layer);
	assert_most_of(put_until_full(&disk), 150);
	migrate(&disk, 1000, true);
	drain(&disk);
	wait_for_dirty_room(&user, disk.layer);
	assert_most_of(put_until_full(&disk), 150);
	cache_set_limits(cache, 0, 0);
	put_waiting(&disk, 200, 200);
	drain(&disk);
	disk_clear(&disk, 0);
	g_assert_cmpint(cache_close(cache), ==, 0);
	user_clear(&user);
}

static void test_zero_limit(void)
{
	g_autofree char *path = new_path();
	struct cache *cache = open_cache(path, 2 * SMALL);
	struct disk disk;
	struct user user;
	unsigned count = 0;

	user_init(&user);
	disk_init(&disk, cache, &user, 1);
	while (disk_zero(&disk, count % DISK_BLOCKS, 1) == 0)
		count++;
	assert_most_of(count, ZERO_RANGES_MAX);
	g_assert_cmpint(disk_zero(&disk, 0, 10), ==, -EAGAIN);
	drain(&disk);
	assert_clean(cache, disk.layer);
	wait_for_dirty_room(&user, disk.layer);
	g_assert_cmpint(disk_zero(&disk, 0, 10), ==, 0);
	disk_clear(&disk, 0);
	g_assert_cmpint(cache_close(cache), ==, 0);
	user_clear(&user);
}

/* ---- Shares ------------------------------------------------------------------ */

static uint64_t zero_until_full(struct cache_layer *layer)
{
	uint64_t count = 0;

	while (cache_put_zero(layer, count * 2, 1) == 0)
		count++;
	return count;
}

/* Disks whose images take nothing, one after the other, and one that is well: of COUNT
 * each has less than the one before, and the last one as much as a disk may have of what
 * they leave. */
static void assert_shares(struct disk *disks, unsigned count, uint64_t (*fill)(struct disk *disk), uint64_t max)
{
	uint64_t filled[8], left = max;

	for (unsigned i = 0; i < count; i++) {
		cache_layer_set_stuck(disks[i].layer, i + 1 < count);
		filled[i] = fill(&disks[i]);
		if (i + 1 == count)
			break;
		left -= filled[i];
		g_assert_cmpuint(filled[i], <=, i == 0 ? max / 2 + 1 : filled[i - 1]);
	}
	g_assert_cmpuint(left, >=, max / (2 * count));
	g_assert_cmpuint(filled[count - 1], >=, left / 3);
}

static uint64_t fill_blocks(struct disk *disk)
{
	return put_until_full(disk);
}

static uint64_t fill_zeros(struct disk *disk)
{
	return zero_until_full(disk->layer);
}

static void test_shares(const void *fill)
{
	g_autofree char *path = new_path();
	struct cache *cache = open_cache(path, 8 * SMALL);
	struct cache_batch_limits limits = {.data_blocks = 100000, .extents = 100000, .cut = true};
	struct cache_batch *batch;
	struct disk disks[6];
	struct user user;

	user_init(&user);
	for (unsigned i = 0; i < G_N_ELEMENTS(disks); i++)
		disk_init(&disks[i], cache, &user, i + 1);
	cache_set_limits(cache, 1000, 0);
	assert_shares(disks, G_N_ELEMENTS(disks), fill, fill == fill_blocks ? 1000 : ZERO_RANGES_MAX);
	/* The one that is well goes on once some of it is on its image. */
	g_assert_cmpint(cache_batch_take(disks[5].layer, &limits, &batch, NULL, NULL), ==, 0);
	cache_batch_done(batch);
	wait_for_dirty_room(&user, disks[5].layer);
	for (unsigned i = 0; i < G_N_ELEMENTS(disks); i++)
		disk_clear(&disks[i], 0);
	g_assert_cmpint(cache_close(cache), ==, 0);
	user_clear(&user);
}

/* Who is not written back does not wait for who is. */
static void test_others_do_not_wait(void)
{
	g_autofree char *path = new_path();
	struct cache *cache = open_cache(path, SMALL);
	struct cache_layer *overlay = cache_layer_new_volatile(cache, "overlay");
	struct cache_layer *mirror = open_layer(cache, 100, 1, true);
	struct cache_layer_status status;
	struct crowd crowd;
	struct disk disk;
	struct user user;

	user_init(&user);
	g_assert_cmpint(cache_put(mirror, 1, 1, user.buffer, false), ==, 1);
	disk_init(&disk, cache, &user, 1);
	put_until_full(&disk);
	fill_with_crowd(&crowd, cache, user.buffer);
	g_assert_cmpint(cache_put(mirror, 2, 1, user.buffer, false), ==, -ENOSPC);
	g_assert_cmpint(cache_put(overlay, 1, 1, user.buffer, true), ==, -ENOSPC);
	while (cache_forget(mirror, 1, 1) == 0) {
		cache_layer_get_status(mirror, &status);
		if (status.state == CACHE_LAYER_DEGRADED)
			break;
		g_assert_cmpint(cache_sync(cache), ==, 0);
	}
	g_assert_cmpint(status.state, ==, CACHE_LAYER_DEGRADED);
	/* And comes back by itself. */
	drain(&disk);
	drain_crowd(&crowd);
	do {
		g_usleep(1000);
		cache_layer_get_status(mirror, &status);
	} while (status.state == CACHE_LAYER_DEGRADED);
	g_assert_cmpint(cache_put(mirror, 1, 1, user.buffer, false), ==, 1);
	disk_clear(&disk, 0);
	cache_layer_close(mirror, 0);
	cache_layer_close(overlay, 0);
	g_assert_cmpint(cache_close(cache), ==, 0);
	user_clear(&user);
}

/* With a deadline a flush waits for others, but never longer. */
static void test_flush_deadline(void)
{
	g_autofree char *path = new_path();
	struct cache *cache = open_cache(path, 2 * SMALL);
	struct flushing first, second;
	struct user users[2];
	struct disk disks[2];
	gint64 start;
	int result;

	for (unsigned i = 0; i < 2; i++) {
		user_init(&users[i]);
		disk_init(&disks[i], cache, &users[i], i + 1);
	}
	cache_set_limits(cache, 0, 20 * 1000 * 1000);
	start = g_get_monotonic_time();
	for (unsigned i = 0; i < 50; i++) {
		disk_put(&disks[0], i, 1, &result);
		g_assert_cmpint(start_flush(&first, disks[0].layer, &users[0]), ==, 0);
		/* While that one is under way, or just before, or after. */
		g_usleep((gulong)g_rand_int_range(users[0].random, 0, 30000));
		disk_put(&disks[1], i, 1, &result);
		g_assert_cmpint(start_flush(&second, disks[1].layer, &users[1]), ==, 0);
		loop_run(users[0].loop, &users[0].finished);
		loop_run(users[1].loop, &users[1].finished);
		g_assert_cmpint(first.flush.result | second.flush.result, ==, 0);
	}
	g_assert_cmpint(g_get_monotonic_time() - start, <, 50 * 300 * 1000);
	for (unsigned i = 0; i < 2; i++)
		disk_clear(&disks[i], 0);
	g_assert_cmpint(cache_close(cache), ==, 0);
	for (unsigned i = 0; i < 2; i++)
		user_clear(&users[i]);
}

/* ---- Restart ----------------------------------------------------------------- */

/* Three epochs and a bit, some of them migrated. */
static void put_epochs(struct disk *disk)
{
	put_waiting(disk, 0, 200);
	zero_waiting(disk, 50, 20);
	flush_waiting(disk);
	put_waiting(disk, 40, 20);
	put_waiting(disk, 300, 100);
	flush_waiting(disk);
	zero_waiting(disk, 350, 100);
	put_waiting(disk, 351, 1);
	flush_waiting(disk);
	put_waiting(disk, 10, 5);
	zero_waiting(disk, 12, 1);
}

static void test_restart(void)
{
	g_autofree char *path = new_path();
	struct cache *cache = open_cache(path, SMALL);
	struct cache_layer_found found;
	uint8_t identity[CACHE_ID_BYTES];
	struct disk disk;
	struct user user;

	user_init(&user);
	memset(identity, 1, sizeof(identity));
	g_assert_false(cache_layer_find(cache, identity, &found));
	disk_init(&disk, cache, &user, 1);
	for (uint64_t generation = 2; generation < 12; generation++) {
		struct cache_dirty before, after;

		put_epochs(&disk);
		migrate(&disk, 150, false);
		cache_layer_get_dirty(disk.layer, &before);
		cache_layer_close(disk.layer, 5);
		g_assert_cmpint(cache_close(cache), ==, 0);
		cache = open_cache(path, 0);
		g_assert_true(cache_layer_find(cache, identity, &found));
		g_assert_cmpuint(found.generation, ==, generation - 1);
		g_assert_cmpuint(found.dirty_blocks, ==, before.blocks + before.zeros);
		/* Every other time the pool has not heard of it. */
		disk_reopen(&disk, cache, generation - 1 - generation % 2, generation);
		cache_layer_get_dirty(disk.layer, &after);
		g_assert_cmpuint(after.blocks, ==, before.blocks);
		/* What moved while it was closed left behind what no epoch needs. */
		g_assert_cmpuint(after.slots, <=, before.slots);
		g_assert_cmpuint(after.zeros, ==, before.zeros);
		g_assert_true(after.has_barrier);
		assert_reads(&disk);
		while (migrate(&disk, 1, false))
			;
		assert_reads(&disk);
		if (generation % 3 == 0)
			drain(&disk);
	}
	disk_clear(&disk, 0);
	g_assert_cmpint(cache_close(cache), ==, 0);
	user_clear(&user);
}

/* A copy of the image's block that comes late: a restart does not find it
 * behind what is dirty, or zero. */
static void test_late_copy(void)
{
	g_autofree char *path = new_path();
	struct cache *cache = open_cache(path, SMALL);
	struct disk disk;
	struct user user;

	user_init(&user);
	disk_init(&disk, cache, &user, 1);
	put_waiting(&disk, 50, 1);
	fill(user.buffer, 99, 50, 0);
	g_assert_cmpint(cache_put(disk.layer, 50, 1, user.buffer, false), ==, -EAGAIN);
	g_assert_cmpint(cache_put(disk.layer, 49, 2, user.buffer, false), ==, 1);
	g_assert_cmpint(cache_forget(disk.layer, 49, 1), ==, 0);
	flush_waiting(&disk);
	cache_layer_close(disk.layer, 5);
	g_assert_cmpint(cache_close(cache), ==, 0);
	cache = open_cache(path, SMALL);
	disk_reopen(&disk, cache, 1, 2);
	assert_reads(&disk);
	disk_clear(&disk, 0);
	g_assert_cmpint(cache_close(cache), ==, 0);
	user_clear(&user);
}

struct dumped {
	uint64_t tag;
	uint32_t id;
	struct content content;
	bool seen[DISK_BLOCKS];
};

static bool take_dumped(void *opaque, const struct cache_layer_info *layer, uint64_t block, uint64_t blocks,
			const void *data)
{
	struct dumped *dumped = opaque;

	if (!layer->orphan)
		return true;
	dumped->id = layer->id;
	for (uint64_t i = block; i < block + blocks; i++) {
		g_assert_false(dumped->seen[i]);
		dumped->seen[i] = true;
		dumped->content.blocks[i] = data ? version_of(data) : 0;
		g_assert_true(!data || is_filled(data, dumped->tag, i, version_of(data)));
	}
	return true;
}

/* Drained and closed it is a mirror like any other, of the image's stamp. With
 * dirty blocks it is not, and keeps them, whatever the key says of their owner. */
static void test_becomes_mirror(void)
{
	g_autofree char *path = new_path();
	struct cache_layer_key key = {.stamp = 5, .size_bytes = UINT64_C(1) << 40, .name = "disk", .owned = 1};
	struct cache *cache = open_cache(path, SMALL);
	struct cache_layer *mirror;
	struct disk disk;
	struct user user;
	unsigned hits = 0;

	user_init(&user);
	memset(key.identity, 1, sizeof(key.identity));
	disk_init(&disk, cache, &user, 1);
	put_epochs(&disk);
	cache_layer_close(disk.layer, 5);
	g_assert_null(cache_layer_open(cache, &key, true));
	key.owned = 0;
	g_assert_null(cache_layer_open(cache, &key, true));
	disk_reopen(&disk, cache, 1, 2);
	drain(&disk);
	cache_layer_close(disk.layer, 5);
	g_assert_cmpint(cache_close(cache), ==, 0);
	assert_sound(path);
	cache = open_cache(path, 0);
	mirror = open_layer(cache, 1, 5, false);
	for (unsigned i = 0; i < DISK_BLOCKS; i++) {
		if (cache_lookup(mirror, i, 1).answer == CACHE_MISS)
			continue;
		assert_block(&user, mirror, 1, i, disk.now.blocks[i]);
		hits++;
	}
	g_assert_cmpuint(hits, >, 200);
	cache_layer_close(mirror, 0);
	mirror = open_layer(cache, 1, 6, false);
	g_assert_cmpuint(cache_lookup(mirror, 0, DISK_BLOCKS).blocks, ==, DISK_BLOCKS);
	cache_layer_close(mirror, 0);
	history_free(disk.history);
	g_assert_cmpint(cache_close(cache), ==, 0);
	user_clear(&user);
}

/* What an orphan has, on top of IMAGE, is EXPECTED. */
static void assert_orphan(const char *path, uint64_t tag, const uint64_t *image, const uint64_t *expected)
{
	struct dumped dumped = {.tag = tag};

	g_assert_true(cache_dump(path, NULL, take_dumped, no_finding, &dumped, NULL));
	g_assert_cmpuint(dumped.id, >, 0);
	for (unsigned i = 0; i < DISK_BLOCKS; i++)
		g_assert_cmpuint(dumped.seen[i] ? dumped.content.blocks[i] : image[i], ==, expected[i]);
}

static void count_names(void *opaque, const struct cache_layer_dirty *dirty)
{
	unsigned *count = opaque;

	g_assert_cmpstr(dirty->name, ==, "disk");
	g_assert_cmpuint(dirty->dirty_blocks, >, 0);
	++*count;
}

static unsigned count_dirty_layers(struct cache *cache, bool orphan)
{
	unsigned count = 0;

	cache_layer_foreach_dirty(cache, orphan, count_names, &count);
	return count;
}

/* Round the log a few times. */
static void go_round(struct disk *disk)
{
	for (unsigned i = 0; i < 60; i++) {
		for (unsigned j = 0; j < 100; j += 10)
			put_waiting(disk, j, 10);
		zero_waiting(disk, 600, 50);
		flush_waiting(disk);
		while (migrate(disk, 1000, false))
			;
	}
	assert_reads(disk);
}

/* HOW: while it is open, or found at the next open. */
static void test_orphan(const void *how)
{
	g_autofree char *path = new_path();
	struct cache *cache = open_cache(path, SMALL);
	struct disk lost, disk;
	struct user user;

	user_init(&user);
	disk_init(&lost, cache, &user, 1);
	cache_layer_close(lost.layer, 0);
	disk_reopen(&lost, cache, 1, 10);
	put_epochs(&lost);
	migrate(&lost, 1, false);
	if (how) {
		cache_layer_orphan(lost.layer, CACHE_ORPHAN_TAKEN);
	} else {
		cache_layer_close(lost.layer, 0);
		g_assert_cmpuint(count_dirty_layers(cache, false), ==, 1);
		g_assert_cmpint(cache_close(cache), ==, 0);
		cache = open_cache(path, 0);
	}
	disk_init(&disk, cache, &user, 1);
	disk.tag = 2;
	g_assert_cmpuint(count_dirty_layers(cache, true), ==, 1);
	g_assert_cmpuint(count_dirty_layers(cache, false), ==, 0);
	g_assert_cmpuint(cache_lookup(disk.layer, 0, DISK_BLOCKS).blocks, ==, DISK_BLOCKS);
	disk.tag = 1;
	for (uint64_t generation = 2; generation < 6; generation++) {
		go_round(&disk);
		cache_layer_close(disk.layer, 0);
		g_assert_cmpint(cache_close(cache), ==, 0);
		assert_sound(path);
		assert_orphan(path, 1, lost.image, lost.now.blocks);
		cache = open_cache(path, 0);
		disk_reopen(&disk, cache, generation - 1, generation);
		assert_reads(&disk);
		g_assert_cmpuint(count_dirty_layers(cache, true), ==, 1);
	}
	drain(&disk);
	disk_clear(&disk, 0);
	history_free(lost.history);
	g_assert_cmpint(cache_close(cache), ==, 0);
	user_clear(&user);
}

/* The pool says that this cache has given it up since: nobody wants it. */
static void test_dropped(void)
{
	g_autofree char *path = new_path();
	struct cache *cache = open_cache(path, SMALL);
	struct disk disk;
	struct user user;

	user_init(&user);
	disk_init(&disk, cache, &user, 1);
	put_epochs(&disk);
	cache_layer_close(disk.layer, 0);
	for (unsigned i = 0; i < 2; i++) {
		g_assert_cmpint(cache_close(cache), ==, 0);
		cache = open_cache(path, 0);
		disk.layer = open_dirty(cache, 1, 5, 6);
		g_assert_cmpuint(cache_lookup(disk.layer, 0, DISK_BLOCKS).blocks, ==, DISK_BLOCKS);
		assert_clean(cache, disk.layer);
		g_assert_cmpuint(count_dirty_layers(cache, true), ==, 0);
		cache_layer_close(disk.layer, 0);
	}
	history_free(disk.history);
	g_assert_cmpint(cache_close(cache), ==, 0);
	user_clear(&user);
}

/* A log with as much as one may have of what nobody may write back: others go on beside
 * it, lap after lap. */
static void test_orphan_fills(void)
{
	g_autofree char *path = new_path();
	struct cache *cache = open_cache(path, SMALL);
	struct cache_layer *mirror;
	struct disk lost, disk;
	struct user user;
	int result = 0;

	user_init(&user);
	disk_init(&lost, cache, &user, 1);
	/* No block twice: all of it stays pinned. */
	for (uint64_t i = 0; cache_put(lost.layer, i, 1, user.buffer, true) == 1; i++)
		;
	cache_layer_close(lost.layer, 0);
	disk_init(&disk, cache, &user, 1);
	g_assert_cmpuint(count_dirty_layers(cache, true), ==, 1);
	while (result == 0)
		disk_put(&disk, 0, 100, &result);
	g_assert_cmpint(result, ==, -EAGAIN);
	for (unsigned i = 0; i < 50; i++) {
		for (unsigned done = 0; done < 50; drain(&disk))
			done += disk_put(&disk, i + done, 50 - done, &result);
	}
	drain(&disk);
	mirror = open_layer(cache, 7, 1, true);
	cache_layer_close(mirror, 2);
	disk_clear(&disk, 0);
	history_free(lost.history);
	g_assert_cmpint(cache_close(cache), ==, 0);
	cache = open_cache(path, 0);
	g_assert_cmpuint(count_dirty_layers(cache, true), ==, 1);
	g_assert_cmpint(cache_close(cache), ==, 0);
	user_clear(&user);
}

static void test_abandon(void)
{
	g_autofree char *path = new_path();
	struct cache *cache = open_cache(path, SMALL);
	struct cache_layer_status status;
	struct disk disk, other;
	struct user user;

	user_init(&user);
	disk_init(&disk, cache, &user, 1);
	disk_init(&other, cache, &user, 2);
	put_epochs(&other);
	put_epochs(&disk);
	cache_layer_abandon(disk.layer, "of the test");
	cache_layer_get_status(disk.layer, &status);
	g_assert_cmpstr(status.reason, ==, status.state == CACHE_LAYER_ACTIVE ? "" : "of the test");
	g_assert_cmpuint(cache_lookup(disk.layer, 0, DISK_BLOCKS).blocks, ==, DISK_BLOCKS);
	cache_layer_close(disk.layer, 0);
	drain(&other);
	assert_clean(cache, other.layer);
	go_round(&other);
	disk.layer = open_dirty(cache, 1, 2, 3);
	g_assert_cmpuint(cache_lookup(disk.layer, 0, DISK_BLOCKS).blocks, ==, DISK_BLOCKS);
	disk_clear(&disk, 0);
	disk_clear(&other, 0);
	g_assert_cmpint(cache_close(cache), ==, 0);
	user_clear(&user);
}

/* ---- Faults ------------------------------------------------------------------ */

static void note_lost(void *opaque, uint64_t block)
{
	bool *lost = opaque;

	g_assert_cmpuint(block, <, DISK_BLOCKS);
	lost[block] = true;
}

static int take_lost(struct disk *disk, unsigned data_blocks, struct cache_batch **batch, bool *lost)
{
	struct cache_batch_limits limits = {.data_blocks = data_blocks, .extents = 16};

	memset(lost, 0, DISK_BLOCKS * sizeof(*lost));
	return cache_batch_take(disk->layer, &limits, batch, note_lost, lost);
}

#ifdef LEAFDISK_FAULTS
/* All that was acknowledged leaves a cache that takes nothing more, durable or
 * not; when it is well again the log knows that too. */
static void test_suspended(const void *spec)
{
	g_autofree char *path = new_path();
	struct cache *cache = open_cache(path, 4 * SMALL);
	struct cache_dirty dirty;
	struct disk disks[2];
	struct user user;
	int result = 0;

	user_init(&user);
	for (unsigned i = 0; i < 2; i++) {
		disk_init(&disks[i], cache, &user, i + 1);
		put_epochs(&disks[i]);
	}
	/* One begins in the file and goes on in the buffer of the same segment. */
	for (unsigned i = 0; i < 2; i++)
		cache_layer_close(disks[i].layer, 0);
	g_assert_cmpint(cache_close(cache), ==, 0);
	cache = open_cache(path, 0);
	for (unsigned i = 0; i < 2; i++)
		disk_reopen(&disks[i], cache, 1, 2);
	arm(spec);
	for (unsigned i = 0; result != -EIO; i++) {
		disk_put(&disks[i % 2], i % 500, 7, &result);
		if (result == 0 && i % 9 == 0)
			result = disk_zero(&disks[i % 2], 100 + i % 500, 9);
		if (result == -EAGAIN)
			wait_for_dirty_room(&user, disks[i % 2].layer);
	}
	g_assert_cmpint(result, ==, -EIO);
	g_assert_true(wait_for_state(cache, CACHE_SUSPENDED));
	for (unsigned i = 0; i < 2; i++) {
		g_assert_cmpint(disk_flush(&disks[i]), ==, -EIO);
		assert_reads(&disks[i]);
	}
	/* One leaves while it is suspended, one is taken then and done later. */
	drain(&disks[0]);
	migrate(&disks[1], 1000, true);
	arm("");
	g_assert_true(wait_for_state(cache, CACHE_ACTIVE));
	for (unsigned i = 0; i < 2; i++) {
		zero_waiting(&disks[i], 3, 300);
		put_waiting(&disks[i], 10, 30);
		flush_waiting(&disks[i]);
	}
	drain(&disks[1]);
	assert_reads(&disks[0]);
	for (unsigned i = 0; i < 2; i++)
		cache_layer_close(disks[i].layer, 0);
	g_assert_cmpint(cache_close(cache), ==, 0);
	assert_sound(path);
	cache = open_cache(path, 0);
	disk_reopen(&disks[0], cache, 2, 3);
	cache_layer_get_dirty(disks[0].layer, &dirty);
	g_assert_cmpuint(dirty.slots, ==, 30);
	g_assert_cmpuint(dirty.zeros, ==, 1);
	drain(&disks[0]);
	for (unsigned i = 0; i < 2; i++)
		history_free(disks[i].history);
	cache_layer_close(disks[0].layer, 0);
	g_assert_cmpint(cache_close(cache), ==, 0);
	user_clear(&user);
}

static void test_read_fault(void)
{
	g_autofree char *path = new_path();
	struct cache *cache = open_cache(path, 8 * SMALL);
	bool lost[DISK_BLOCKS];
	struct cache_batch *batch;
	struct disk disk;
	struct user user;

	user_init(&user);
	disk_init(&disk, cache, &user, 1);
	put_waiting(&disk, 0, 100);
	flush_waiting(&disk);
	put_waiting(&disk, 50, 255);
	put_waiting(&disk, 50, 255);
	flush_waiting(&disk);
	arm("aio.read:EIO");
	g_assert_cmpint(take_lost(&disk, 1, &batch, lost), ==, -EIO);
	g_assert_null(batch);
	for (unsigned i = 0; i < DISK_BLOCKS; i++)
		g_assert_false(lost[i]);
	arm("aio.read:EIO@5x1");
	(void)take_lost(&disk, 1, &batch, lost);
	cache_batch_free(batch);
	arm("");
	drain(&disk);
	disk_clear(&disk, 0);
	g_assert_cmpint(cache_close(cache), ==, 0);
	user_clear(&user);
}

static void add_fault_tests(void)
{
	g_test_add_data_func("/cache-dirty/suspended/write", "aio.write:EIO", test_suspended);
	g_test_add_data_func("/cache-dirty/suspended/full", "aio.write:ENOSPC@2", test_suspended);
	g_test_add_data_func("/cache-dirty/suspended/datasync", "aio.datasync:EIO", test_suspended);
	g_test_add_func("/cache-dirty/read-fault", test_read_fault);
}
#else
static void add_fault_tests(void)
{
}
#endif

/* ---- Damage ------------------------------------------------------------------ */

static void test_damage(void)
{
	g_autofree char *path = new_path();
	struct cache *cache = open_cache(path, 4 * SMALL);
	bool lost[DISK_BLOCKS];
	struct cache_batch *batch;
	struct disk disk;
	struct user user;

	user_init(&user);
	disk_init(&disk, cache, &user, 1);
	put_waiting(&disk, 0, 100);
	flush_waiting(&disk);
	put_waiting(&disk, 200, 255);
	put_waiting(&disk, 200, 255);
	flush_waiting(&disk);
	g_assert_cmpuint(damage_copies(path, 1, 50, 1), ==, 1);
	g_assert_cmpint(take_lost(&disk, 1000, &batch, lost), ==, -EIO);
	g_assert_null(batch);
	for (unsigned i = 0; i < DISK_BLOCKS; i++)
		g_assert_cmpint(lost[i], ==, i == 50);
	g_assert_cmpint(read_blocks(&user, disk.layer, 50, 1).answer, ==, CACHE_HIT);
	g_assert_cmpint(user.result, ==, -EIO);
	assert_block(&user, disk.layer, 1, 49, 1);
	/* Written again it is well, and so is a batch that has the new version. */
	put_waiting(&disk, 50, 1);
	flush_waiting(&disk);
	assert_reads(&disk);
	while (migrate(&disk, 1000, false))
		;
	drain(&disk);
	disk_clear(&disk, 0);
	g_assert_cmpint(cache_close(cache), ==, 0);
	user_clear(&user);
}

/* ---- Two who open ---------------------------------------------------------------- */

struct opener {
	pthread_t thread;
	struct cache *cache;
	uint64_t owned;
	struct cache_layer *layer;
	int result;
};

static void *opener_main(void *opaque)
{
	struct opener *opener = opaque;
	struct cache_layer_key key = {
		.stamp = 77, .size_bytes = UINT64_C(1) << 40, .name = "disk", .owned = opener->owned};
	uint64_t generation = opener->owned + 1;

	memset(key.identity, 9, sizeof(key.identity));
	opener->layer = cache_layer_open_dirty(opener->cache, &key, &generation, NULL, &opener->result);
	return NULL;
}

/* The record of the first one's opening is in the log, which nobody writes yet. */
static void await_record(struct cache *cache, uint64_t sequence)
{
	struct cache_status status;

	do {
		g_usleep(1000);
		cache_get_status(cache, &status);
	} while (status.sequence == sequence);
}

static void leave_dirty(const char *path, struct user *user)
{
	struct cache *cache = open_cache(path, SMALL);
	struct cache_layer *layer = open_dirty(cache, 9, 0, 1);

	g_assert_cmpint(put(user, layer, 9, 0, 1, 1, true), ==, 0);
	cache_layer_close(layer, 0);
	g_assert_cmpint(cache_close(cache), ==, 0);
}

/* The second comes while the first waits for what it recorded to be durable. */
static void test_two_open_one(void)
{
	g_autofree char *path = new_path();
	struct opener first = {.owned = 1}, second = {.owned = 1};
	struct cache_status status;
	struct cache *cache;
	struct user user;

	user_init(&user);
	leave_dirty(path, &user);
	cache = first.cache = second.cache = try_open(path, 0, 1, NULL);
	cache_get_status(cache, &status);
	pthread_create(&first.thread, NULL, opener_main, &first);
	await_record(cache, status.sequence);
	pthread_create(&second.thread, NULL, opener_main, &second);
	g_usleep(100000);
	g_assert_true(cache_start(cache, NULL));
	pthread_join(first.thread, NULL);
	pthread_join(second.thread, NULL);
	g_assert_nonnull(first.layer);
	g_assert_null(second.layer);
	g_assert_cmpint(second.result, ==, -EBUSY);
	cache_layer_close(first.layer, 0);
	g_assert_cmpint(cache_close(cache), ==, 0);
	user_clear(&user);
}

int main(int argc, char **argv)
{
	int result;

	g_test_init(&argc, &argv, NULL);
	alarm(DEADLINE_S); /* what waits for ever fails */
	make_directory();
	g_test_add_data_func("/cache-dirty/model/smallest", GSIZE_TO_POINTER(SMALL), test_model);
	g_test_add_data_func("/cache-dirty/model/larger", GSIZE_TO_POINTER(5 * SMALL), test_model);
	g_test_add_func("/cache-dirty/full", test_full);
	g_test_add_func("/cache-dirty/stays", test_stays);
	g_test_add_func("/cache-dirty/refused", test_refused);
	g_test_add_func("/cache-dirty/two-open-one", test_two_open_one);
	g_test_add_data_func("/cache-dirty/many-layers/200", GSIZE_TO_POINTER(200), test_many_layers);
	g_test_add_data_func("/cache-dirty/many-layers/2000", GSIZE_TO_POINTER(2000), test_many_layers);
	g_test_add_data_func("/cache-dirty/one-block-each/oldest-first", compare_distances, test_one_block_each);
	g_test_add_data_func("/cache-dirty/one-block-each/newest-first", compare_backwards, test_one_block_each);
	g_test_add_func("/cache-dirty/dirty-max", test_dirty_max);
	g_test_add_func("/cache-dirty/zero-limit", test_zero_limit);
	g_test_add_data_func("/cache-dirty/shares/blocks", fill_blocks, test_shares);
	g_test_add_data_func("/cache-dirty/shares/zeros", fill_zeros, test_shares);
	g_test_add_func("/cache-dirty/others-do-not-wait", test_others_do_not_wait);
	g_test_add_func("/cache-dirty/flush-deadline", test_flush_deadline);
	g_test_add_func("/cache-dirty/restart", test_restart);
	g_test_add_func("/cache-dirty/late-copy", test_late_copy);
	g_test_add_func("/cache-dirty/becomes-mirror", test_becomes_mirror);
	g_test_add_data_func("/cache-dirty/orphan/found", NULL, test_orphan);
	g_test_add_data_func("/cache-dirty/orphan/open", "open", test_orphan);
	g_test_add_func("/cache-dirty/dropped", test_dropped);
	g_test_add_func("/cache-dirty/orphan-fills", test_orphan_fills);
	g_test_add_func("/cache-dirty/abandon", test_abandon);
	g_test_add_func("/cache-dirty/damage", test_damage);
	add_fault_tests();
	result = g_test_run();
	remove_directory();
	return result;
}
