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
	result = g_test_run();
	remove_directory();
	return result;
}
