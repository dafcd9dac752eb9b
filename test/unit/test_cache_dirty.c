/* Dirty layers on real cache files: guests, barriers, batches and an image in
 * memory or in a file, which must be at every moment what its guest's disk was
 * at a barrier, whoever dies when. Tests name the fault they are about. */
#include "cache/cache.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cache/offline.h"
#include "cache_rig.h"
#include "core/counters.h"
#include "core/log.h"

#define DISK_BLOCKS 700
#define HISTORY_MAX (1u << 20)
#define DEADLINE_S (getenv("LEAFDISK_TORTURE") ? 7200 : 600)
#define BARRIERS_MAX (1u << 17)

/* ---- What a guest did ----------------------------------------------------- */

/* One block that was put, or a zero range (version 0). */
struct step {
	uint32_t first, count;
	uint64_t version;
};

/* All that a disk's guest did, shared with a child that is killed. */
struct history {
	uint64_t version;
	unsigned begun; /* steps that the cache may have */
	unsigned done;	/* that it has taken */
	unsigned flushed;
	unsigned barriers;
	unsigned barrier[BARRIERS_MAX]; /* steps before each */
	struct step steps[HISTORY_MAX];
};

static struct history *history_new(void)
{
	void *memory = mmap(NULL, sizeof(struct history), PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	g_assert_true(memory != MAP_FAILED);
	return memory;
}

static void history_free(struct history *history)
{
	munmap(history, sizeof(*history));
}

/* A disk's blocks as versions; 0: zeros. AT: steps that it has. */
struct content {
	uint64_t blocks[DISK_BLOCKS];
	unsigned at;
};

static void apply_step(struct content *content, const struct step *step)
{
	for (unsigned i = 0; i < step->count; i++)
		content->blocks[step->first + i] = step->version;
}

static void advance(struct content *content, const struct history *history, unsigned to)
{
	while (content->at < to)
		apply_step(content, &history->steps[content->at++]);
}

static bool is_barrier(const struct history *history, unsigned at)
{
	unsigned low = 0, high = history->barriers;

	while (low < high) {
		unsigned middle = (low + high) / 2;

		if (history->barrier[middle] < at)
			low = middle + 1;
		else
			high = middle;
	}
	return low < history->barriers && history->barrier[low] == at;
}

/* MODEL goes on to the first state, of those that are allowed, which is BLOCKS;
 * false: there is none up to END. */
static bool find_state(struct content *model, const uint64_t *blocks, const struct history *history, unsigned from,
		       unsigned end, bool barriers_only)
{
	unsigned different = 0;

	advance(model, history, from);
	for (unsigned i = 0; i < DISK_BLOCKS; i++)
		different += model->blocks[i] != blocks[i];
	for (;;) {
		if (different == 0 && (!barriers_only || model->at == 0 || is_barrier(history, model->at)))
			return true;
		if (model->at >= end)
			return false;
		const struct step *step = &history->steps[model->at++];

		for (unsigned i = step->first; i < step->first + step->count; i++) {
			different -= model->blocks[i] != blocks[i];
			model->blocks[i] = step->version;
			different += model->blocks[i] != blocks[i];
		}
	}
}

/* ---- A disk ----------------------------------------------------------------- */

struct disk {
	struct cache *cache;
	struct cache_layer *layer;
	struct user *user;
	uint64_t tag;
	struct history *history;
	struct content now;   /* what the guest sees */
	struct content model; /* where the image is in the history */
	uint64_t image[DISK_BLOCKS];
	unsigned cuts;
	bool cut_anywhere;
};

static struct cache_layer *open_dirty(struct cache *cache, uint64_t tag, uint64_t owned, uint64_t generation)
{
	struct cache_layer_key key = {.stamp = 77, .size_bytes = UINT64_C(1) << 40, .name = "disk", .owned = owned};
	struct cache_layer *layer;
	int result;

	memset(key.identity, (int)tag, sizeof(key.identity));
	layer = cache_layer_open_dirty(cache, &key, generation, &result);
	if (!layer)
		g_test_message("layer %" PRIu64 ": %s", tag, g_strerror(-result));
	return layer;
}

static void disk_init(struct disk *disk, struct cache *cache, struct user *user, uint64_t tag)
{
	*disk = (struct disk){.cache = cache, .user = user, .tag = tag, .history = history_new()};
	disk->layer = open_dirty(cache, tag, 0, 1);
	g_assert_nonnull(disk->layer);
}

static void disk_clear(struct disk *disk, uint64_t stamp)
{
	cache_layer_close(disk->layer, stamp);
	history_free(disk->history);
}

static void add_step(struct disk *disk, unsigned first, unsigned count, uint64_t version)
{
	g_assert_cmpuint(disk->history->begun, <, HISTORY_MAX);
	disk->history->steps[disk->history->begun] = (struct step){first, count, version};
	__atomic_store_n(&disk->history->begun, disk->history->begun + 1, __ATOMIC_SEQ_CST);
}

static void end_steps(struct disk *disk)
{
	advance(&disk->now, disk->history, disk->history->begun);
	__atomic_store_n(&disk->history->done, disk->history->begun, __ATOMIC_SEQ_CST);
}

static void wait_for_dirty_room(struct user *user, struct cache *cache)
{
	struct waiting waiting = {.waiter = {.loop = user->loop, .task.run = room_came, .dirty = true}, .user = user};

	user->finished = false;
	cache_wait(cache, &waiting.waiter);
	loop_run(user->loop, &user->finished);
}

/* Puts until there is no room; how many. Every block is a step of its own. */
static unsigned disk_put(struct disk *disk, unsigned first, unsigned count, int *result)
{
	uint64_t version = ++disk->history->version;
	unsigned done = 0;

	for (unsigned i = 0; i < count; i++)
		fill(disk->user->buffer + i * BLOCK_SIZE, disk->tag, first + i, version);
	*result = 0;
	/* One by one as steps; the cache may split them as it likes. */
	while (done < count && *result == 0) {
		unsigned begun = disk->history->begun;
		int64_t got;

		for (unsigned i = done; i < count; i++)
			add_step(disk, first + i, 1, version);
		got = cache_put(disk->layer, first + done, count - done, disk->user->buffer + done * BLOCK_SIZE, true);
		if (got < 0)
			*result = (int)got;
		else
			done += (unsigned)got;
		__atomic_store_n(&disk->history->begun, begun + (got < 0 ? 0 : (unsigned)got), __ATOMIC_SEQ_CST);
		end_steps(disk);
	}
	return done;
}

static int disk_zero(struct disk *disk, unsigned first, unsigned count)
{
	int result;

	add_step(disk, first, count, 0);
	result = cache_put_zero(disk->layer, first, count);
	if (result < 0)
		disk->history->begun--;
	end_steps(disk);
	return result;
}

struct flushing {
	struct cache_flush flush;
	struct user *user;
};

static void flush_came(struct loop_task *task)
{
	container_of(task, struct flushing, flush.task)->user->finished = true;
}

static int start_flush(struct flushing *flushing, struct cache_layer *layer, struct user *user)
{
	*flushing = (struct flushing){.flush = {.loop = user->loop, .task.run = flush_came}, .user = user};
	user->finished = false;
	return cache_flush(layer, &flushing->flush);
}

/* 0, -EIO or -EAGAIN. */
static int disk_flush(struct disk *disk)
{
	struct history *history = disk->history;
	struct flushing flushing;
	int result;

	g_assert_cmpuint(history->barriers, <, BARRIERS_MAX);
	history->barrier[history->barriers] = history->done;
	__atomic_store_n(&history->barriers, history->barriers + 1, __ATOMIC_SEQ_CST);
	result = start_flush(&flushing, disk->layer, disk->user);
	if (result < 0) {
		history->barriers--;
		return result;
	}
	loop_run(disk->user->loop, &disk->user->finished);
	if (flushing.flush.result == 0)
		__atomic_store_n(&history->flushed, history->done, __ATOMIC_SEQ_CST);
	return flushing.flush.result;
}

/* ---- Migration --------------------------------------------------------------- */

static uint64_t version_of(const uint8_t *data)
{
	uint64_t words[4];

	memcpy(words, data, sizeof(words));
	return words[2];
}

static void apply_batch(uint64_t *image, const struct cache_batch *batch, uint64_t tag)
{
	uint64_t end = 0, data_blocks = 0;

	for (unsigned i = 0; i < batch->extent_count; i++) {
		const struct cache_batch_extent *extent = &batch->extents[i];

		g_assert_true(i == 0 || extent->block >= end);
		end = extent->block + extent->blocks;
		g_assert_cmpuint(end, <=, DISK_BLOCKS);
		data_blocks += extent->data ? extent->blocks : 0;
		for (uint64_t j = 0; j < extent->blocks; j++) {
			const uint8_t *data = extent->data ? extent->data + j * BLOCK_SIZE : NULL;

			image[extent->block + j] = data ? version_of(data) : 0;
			g_assert_true(!data || is_filled(data, tag, extent->block + j, version_of(data)));
		}
	}
	g_assert_cmpuint(data_blocks, ==, batch->data_blocks);
}

static void assert_image(struct disk *disk)
{
	unsigned end = __atomic_load_n(&disk->history->begun, __ATOMIC_SEQ_CST);

	g_assert_true(find_state(&disk->model, disk->image, disk->history, 0, end, !disk->cut_anywhere));
}

/* False: nothing was to be migrated. Now and then the image fails. */
static bool migrate(struct disk *disk, unsigned data_blocks, bool cut)
{
	struct cache_batch_limits limits = {.data_blocks = data_blocks, .extents = 16, .cut = cut};
	struct cache_batch *batch;

	if (cut) {
		disk->history->barrier[disk->history->barriers++] = disk->history->done;
		disk->cuts++;
	}
	g_assert_cmpint(cache_batch_take(disk->layer, &limits, &batch, NULL, NULL), ==, 0);
	if (!batch)
		return false;
	if (g_rand_int_range(disk->user->random, 0, 10) == 0) {
		cache_batch_free(batch);
		return true;
	}
	apply_batch(disk->image, batch, disk->tag);
	assert_image(disk);
	cache_batch_done(batch);
	return true;
}

/* What the guest reads: the cache, on top of the image. */
static void read_all(struct disk *disk, uint64_t *blocks)
{
	for (unsigned i = 0; i < DISK_BLOCKS; i++) {
		struct cache_extent extent = read_blocks(disk->user, disk->layer, i, 1);

		g_assert_cmpint(disk->user->result, ==, 0);
		blocks[i] = extent.answer == CACHE_MISS	  ? disk->image[i]
			    : extent.answer == CACHE_ZERO ? 0
							  : version_of(disk->user->buffer);
		if (extent.answer == CACHE_HIT)
			g_assert_true(is_filled(disk->user->buffer, disk->tag, i, blocks[i]));
	}
}

static void assert_reads(struct disk *disk)
{
	uint64_t blocks[DISK_BLOCKS];

	read_all(disk, blocks);
	g_assert_cmpmem(blocks, sizeof(blocks), disk->now.blocks, sizeof(disk->now.blocks));
}

static void assert_clean(struct cache *cache, struct cache_layer *layer)
{
	struct cache_status status;
	struct cache_dirty dirty;

	cache_layer_get_dirty(layer, &dirty);
	g_assert_cmpuint(dirty.blocks, ==, 0);
	g_assert_cmpuint(dirty.slots, ==, 0);
	g_assert_cmpuint(dirty.zeros, ==, 0);
	g_assert_cmpuint(dirty.oldest_ns, ==, 0);
	cache_get_status(cache, &status);
	g_assert_cmpuint(status.dirty_blocks, ==, 0);
}

static void drain(struct disk *disk)
{
	struct cache_dirty dirty;

	do {
		migrate(disk, 200, true);
		cache_layer_get_dirty(disk->layer, &dirty);
	} while (dirty.slots > 0 || dirty.zeros > 0);
	assert_image(disk);
	g_assert_cmpmem(disk->image, sizeof(disk->image), disk->now.blocks, sizeof(disk->now.blocks));
	assert_reads(disk);
}

/* ---- Model ------------------------------------------------------------------- */

static void make_room(struct disk *disks, unsigned count)
{
	GRand *random = disks[0].user->random;

	for (unsigned i = 0; i < count; i++)
		migrate(&disks[i], (unsigned)g_rand_int_range(random, 1, 300), true);
}

static void step_range(GRand *random, unsigned most, unsigned *first, unsigned *count)
{
	*first = (unsigned)g_rand_int_range(random, 0, DISK_BLOCKS);
	*count = (unsigned)g_rand_int_range(random, 1, (gint32)most + 1);
	*count = MIN(*count, DISK_BLOCKS - *first);
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
	g_autofree char *path = new_path();
	struct cache *cache = open_cache(path, GPOINTER_TO_SIZE(size));
	struct cache_layer *base = open_layer(cache, 100, 1, false);
	struct disk disks[2];
	struct user user;

	user_init(&user);
	for (unsigned i = 0; i < G_N_ELEMENTS(disks); i++)
		disk_init(&disks[i], cache, &user, i + 1);
	for (unsigned i = 0; i < 12000; i++) {
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

static void put_waiting(struct disk *disk, unsigned first, unsigned count)
{
	unsigned done = 0;
	int result;

	while (done < count) {
		done += disk_put(disk, first + done, count - done, &result);
		g_assert_true(result == 0 || result == -EAGAIN);
		if (result == -EAGAIN)
			wait_for_dirty_room(disk->user, disk->cache);
	}
}

static void zero_waiting(struct disk *disk, unsigned first, unsigned count)
{
	int result;

	while ((result = disk_zero(disk, first, count)) == -EAGAIN)
		wait_for_dirty_room(disk->user, disk->cache);
	g_assert_cmpint(result, ==, 0);
}

static void flush_waiting(struct disk *disk)
{
	int result;

	while ((result = disk_flush(disk)) == -EAGAIN)
		wait_for_dirty_room(disk->user, disk->cache);
	g_assert_cmpint(result, ==, 0);
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

/* Nothing dirty leaves the log by itself; what is clean goes round beside it. */
static void test_stays(void)
{
	g_autofree char *path = new_path();
	struct cache *cache = open_cache(path, SMALL);
	struct cache_layer *base = open_layer(cache, 100, 1, false);
	struct cache_status before, after;
	struct disk disk;
	struct user user;

	user_init(&user);
	disk_init(&disk, cache, &user, 1);
	put_until_full(&disk);
	g_assert_cmpint(cache_sync(cache), ==, 0);
	cache_get_status(cache, &before);
	g_assert_true(before.short_of_room);
	g_assert_cmpint(cache_put(base, 1, 1, user.buffer, false), ==, -EAGAIN);
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
	put_waiting(&disk, 0, 100);
	disk_clear(&disk, 0);
	cache_layer_close(base, 0);
	g_assert_cmpint(cache_close(cache), ==, 0);
	user_clear(&user);
}

static void test_dirty_max(void)
{
	g_autofree char *path = new_path();
	struct cache *cache = open_cache(path, 2 * SMALL);
	struct cache_status status;
	struct disk disk;
	struct user user;

	user_init(&user);
	disk_init(&disk, cache, &user, 1);
	cache_set_limits(cache, 100, 0);
	g_assert_cmpuint(put_until_full(&disk), ==, 100);
	cache_get_status(cache, &status);
	g_assert_cmpuint(status.dirty_blocks, ==, 100);
	g_assert_cmpuint(status.dirty_blocks_max, ==, 100);
	g_assert_cmpint(disk_zero(&disk, 0, 1), ==, -EAGAIN);
	/* More is allowed: who waits hears of it. */
	cache_set_limits(cache, 150, 0);
	wait_for_dirty_room(&user, cache);
	g_assert_cmpuint(put_until_full(&disk), ==, 150);
	migrate(&disk, 1000, true);
	drain(&disk);
	wait_for_dirty_room(&user, cache);
	g_assert_cmpuint(put_until_full(&disk), ==, 150);
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

	user_init(&user);
	disk_init(&disk, cache, &user, 1);
	for (unsigned i = 0; i < ZERO_RANGES_MAX; i++)
		g_assert_cmpint(disk_zero(&disk, i % DISK_BLOCKS, 1), ==, 0);
	g_assert_cmpint(disk_zero(&disk, 0, 10), ==, -EAGAIN);
	drain(&disk);
	assert_clean(cache, disk.layer);
	wait_for_dirty_room(&user, cache);
	g_assert_cmpint(disk_zero(&disk, 0, 10), ==, 0);
	disk_clear(&disk, 0);
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

/* The same disk in a cache that was opened again. */
static void disk_reopen(struct disk *disk, struct cache *cache, uint64_t owned, uint64_t generation)
{
	disk->cache = cache;
	disk->layer = open_dirty(cache, disk->tag, owned, generation);
	g_assert_nonnull(disk->layer);
}

static void assert_done(int result)
{
	g_assert_cmpint(result, ==, 0);
}

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
		g_assert_cmpuint(after.slots, ==, before.slots);
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

static void no_finding(void *opaque, const char *sentence)
{
	(void)opaque;
	g_test_message("%s", sentence);
	g_test_fail();
}

static void assert_sound(const char *path)
{
	struct cache_check_result result;

	g_assert_true(cache_check(path, no_finding, NULL, &result, NULL));
}

/* Drained and closed it is a mirror like any other, of the image's stamp. With
 * dirty blocks it is not, to whom the pool says that they are good. */
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

static void count_names(void *opaque, const char *name, uint64_t dirty_blocks)
{
	unsigned *count = opaque;

	g_assert_cmpstr(name, ==, "disk");
	g_assert_cmpuint(dirty_blocks, >, 0);
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
		cache_layer_orphan(lost.layer);
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

/* A log full of what nobody may write back: an error, and nobody waits for ever. */
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
	g_assert_cmpint(result, ==, -ENOSPC);
	wait_for_dirty_room(&user, cache);
	g_assert_cmpint(disk_zero(&disk, 0, 1), ==, -ENOSPC);
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
			wait_for_dirty_room(&user, cache);
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
	arm("cache.read:EIO");
	g_assert_cmpint(take_lost(&disk, 1, &batch, lost), ==, -EIO);
	g_assert_null(batch);
	for (unsigned i = 0; i < DISK_BLOCKS; i++)
		g_assert_cmpint(lost[i], ==, i < 100);
	arm("cache.read:EIO@5x1");
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

/* ---- Crashes ----------------------------------------------------------------- */

/* A disk whose guest, cache and migration end with their process. */
struct crashing {
	const char *path;
	const char *image_path;
	struct history *history;
	uint64_t *image;
	uint64_t owned; /* as the pool has it; shared with the child */
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
		if (!batch)
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
		wait_for_dirty_room(disk->user, disk->cache);
	}
}

static void G_GNUC_NORETURN run_until_killed(struct crashing *crashing, uint64_t *owned)
{
	struct cache *cache = open_cache(crashing->path, SMALL);
	struct child child = {.image_path = crashing->image_path, .cuts = crashing->cuts};
	struct disk *disk = &child.disk;
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

static void kill_child(struct crashing *crashing, uint64_t *owned)
{
	pid_t child = fork();
	int status;

	g_assert_cmpint(child, >=, 0);
	if (child == 0)
		run_until_killed(crashing, owned);
	g_usleep((gulong)g_test_rand_int_range(5000, 250000));
	kill(child, SIGKILL);
	g_assert_cmpint(waitpid(child, &status, 0), ==, child);
	g_assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

/* The last state that is BLOCKS: steps that change nothing count as taken. */
static unsigned find_last_state(const struct content *from, const uint64_t *blocks, const struct history *history)
{
	struct content model = *from;
	unsigned last = UINT_MAX;

	while (find_state(&model, blocks, history, model.at, history->begun, false)) {
		last = model.at;
		if (last == history->begun)
			break;
		apply_step(&model, &history->steps[model.at++]);
	}
	return last;
}

/* What the disk lost is forgotten by its history too. */
static void truncate_history(struct history *history, unsigned at)
{
	history->begun = history->done = at;
	while (history->barriers > 0 && history->barrier[history->barriers - 1] > at)
		history->barriers--;
}

/* BASE: where the disk was when the child began, and is now. MODEL: the image. */
static void look_after_crash(struct crashing *crashing, struct content *base, struct content *model, uint64_t *owned,
			     struct user *user)
{
	struct history *history = crashing->history;
	struct cache *cache = open_cache(crashing->path, 0);
	struct disk disk = {.cache = cache, .user = user, .tag = 1, .history = history, .model = *model};
	int batches = g_test_rand_int_range(0, 6);
	uint64_t blocks[DISK_BLOCKS];
	unsigned at;

	disk.cut_anywhere = crashing->cuts;
	load_image(crashing->image_path, disk.image);
	disk_reopen(&disk, cache, *owned, *owned + 1);
	++*owned;
	assert_image(&disk);
	read_all(&disk, blocks);
	at = find_last_state(base, blocks, history);
	g_assert_cmpuint(at, !=, UINT_MAX);
	g_assert_cmpuint(at, >=, history->flushed);
	truncate_history(history, at);
	advance(base, history, at);
	disk.now = *base;
	while (batches-- > 0 && migrate(&disk, (unsigned)g_test_rand_int_range(1, 200), false))
		;
	if (g_test_rand_int_range(0, 4) == 0)
		drain(&disk);
	assert_reads(&disk);
	save_image(crashing->image_path, disk.image);
	*model = disk.model;
	cache_layer_close(disk.layer, 0);
	g_assert_cmpint(cache_close(cache), ==, 0);
	assert_sound(crashing->path);
}

static void test_kill(const void *cuts)
{
	g_autofree char *path = new_path();
	g_autofree char *image_path = new_path();
	struct crashing crashing = {.path = path, .image_path = image_path, .history = history_new(), .cuts = cuts};
	uint64_t *owned = mmap(NULL, sizeof(*owned), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct content *base = g_new0(struct content, 1), *model = g_new0(struct content, 1);
	unsigned rounds = getenv("LEAFDISK_TORTURE") ? 1000 : 25;
	struct user user;

	user_init(&user);
	for (unsigned i = 0; i < rounds && crashing.history->begun < HISTORY_MAX / 2; i++) {
		crashing.seed = (guint32)g_test_rand_int();
		kill_child(&crashing, owned);
		look_after_crash(&crashing, base, model, owned, &user);
	}
	g_assert_cmpuint(crashing.history->flushed, >, 100);
	g_assert_cmpuint(model->at, >, 100);
	g_free(base);
	g_free(model);
	munmap(owned, sizeof(*owned));
	history_free(crashing.history);
	user_clear(&user);
}

/* ---- What the ancestors got wrong -------------------------------------------- */

/* RUN in a process that ends without closing anything. */
static void in_child(void (*run)(const char *path, void *opaque), const char *path, void *opaque)
{
	pid_t child = fork();
	int status;

	g_assert_cmpint(child, >=, 0);
	if (child == 0) {
		run(path, opaque);
		_exit(0);
	}
	g_assert_cmpint(waitpid(child, &status, 0), ==, child);
	g_assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
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

/* dm-lc: a torn record with an intact one behind it, and a second crash: what
 * the intact one has came back. */
static void test_torn_record(void)
{
	g_autofree char *path = new_path();
	struct cache *cache;
	struct cache_layer *layer;
	struct user user;

	in_child(write_three, path, NULL);
	g_assert_cmpuint(damage_copies(path, 1, 5, 2), ==, 1);
	in_child(look_at_three, path, NULL);
	in_child(look_at_three, path, path);
	user_init(&user);
	cache = open_cache(path, 0);
	layer = open_dirty(cache, 1, 3, 4);
	assert_block(&user, layer, 1, 5, 1);
	assert_answer(layer, 6, CACHE_MISS);
	assert_block(&user, layer, 1, 7, 4);
	cache_layer_close(layer, 0);
	g_assert_cmpint(cache_close(cache), ==, 0);
	user_clear(&user);
}

/* Version 1 durable, version 2 in memory only when the process ends, and what
 * has version 1 migrated. */
static void migrate_old(const char *path, void *opaque)
{
	struct cache *cache = open_cache(path, SMALL);
	uint64_t *image = opaque;
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

/* dm-lc: a block was called clean while its successor was in RAM only. */
static void test_successor_in_memory(void)
{
	g_autofree char *path = new_path();
	size_t bytes = DISK_BLOCKS * sizeof(uint64_t);
	uint64_t *image = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct cache *cache;
	struct disk disk = {.tag = 1};
	struct user user;
	uint64_t blocks[DISK_BLOCKS];

	in_child(migrate_old, path, image);
	user_init(&user);
	cache = open_cache(path, 0);
	disk.user = &user;
	memcpy(disk.image, image, bytes);
	g_assert_cmpuint(image[5], ==, 1);
	disk_reopen(&disk, cache, 1, 2);
	read_all(&disk, blocks);
	g_assert_cmpuint(blocks[5], >=, 1);
	cache_layer_close(disk.layer, 0);
	g_assert_cmpint(cache_close(cache), ==, 0);
	munmap(image, bytes);
	user_clear(&user);
}

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
	g_test_add_func("/cache-dirty/dirty-max", test_dirty_max);
	g_test_add_func("/cache-dirty/zero-limit", test_zero_limit);
	g_test_add_func("/cache-dirty/flush-deadline", test_flush_deadline);
	g_test_add_func("/cache-dirty/restart", test_restart);
	g_test_add_func("/cache-dirty/becomes-mirror", test_becomes_mirror);
	g_test_add_data_func("/cache-dirty/orphan/found", NULL, test_orphan);
	g_test_add_data_func("/cache-dirty/orphan/open", "open", test_orphan);
	g_test_add_func("/cache-dirty/dropped", test_dropped);
	g_test_add_func("/cache-dirty/orphan-fills", test_orphan_fills);
	g_test_add_func("/cache-dirty/abandon", test_abandon);
	g_test_add_func("/cache-dirty/damage", test_damage);
	g_test_add_data_func("/cache-dirty/kill/barriers", NULL, test_kill);
	g_test_add_data_func("/cache-dirty/kill/cuts", "cuts", test_kill);
	g_test_add_func("/cache-dirty/ancestors/torn-record", test_torn_record);
	g_test_add_func("/cache-dirty/ancestors/successor-in-memory", test_successor_in_memory);
	add_fault_tests();
	result = g_test_run();
	remove_directory();
	return result;
}
