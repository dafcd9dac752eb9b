/* What tests of dirty layers share: a guest whose every step is remembered, its
 * disk in the cache, and an image that must be at one of the guest's barriers. */
#ifndef LEAFDISK_TEST_CACHE_DISK_H
#define LEAFDISK_TEST_CACHE_DISK_H

#include <inttypes.h>
#include <sys/mman.h>

#include "apart.h"
#include "cache/offline.h"
#include "cache/writeback.h"
#include "cache_rig.h"

#define DISK_BLOCKS 700
#define HISTORY_MAX (1u << 20)
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
	bool maybe[BARRIERS_MAX];	/* asked for by who migrates, and where an epoch was complete not made */
	struct step steps[HISTORY_MAX];
};

static inline struct history *history_new(void)
{
	return shared_memory(sizeof(struct history));
}

static inline void history_free(struct history *history)
{
	munmap(history, sizeof(*history));
}

/* A disk's blocks as versions; 0: zeros. AT: steps that it has. */
struct content {
	uint64_t blocks[DISK_BLOCKS];
	unsigned at;
};

static inline void apply_step(struct content *content, const struct step *step)
{
	for (unsigned i = 0; i < step->count; i++)
		content->blocks[step->first + i] = step->version;
}

static inline void advance(struct content *content, const struct history *history, unsigned to)
{
	while (content->at < to)
		apply_step(content, &history->steps[content->at++]);
}

/* A barrier of the guest, or far enough from one that the cache may have ended
 * the epoch (EPOCH_BLOCKS BLOCKS or more). */
static inline bool may_end_epoch(const struct history *history, unsigned at, unsigned epoch_blocks)
{
	unsigned barriers = __atomic_load_n(&history->barriers, __ATOMIC_SEQ_CST);
	unsigned low = 0, high = barriers;

	while (low < high) {
		unsigned middle = (low + high) / 2;

		if (history->barrier[middle] < at)
			low = middle + 1;
		else
			high = middle;
	}
	if (low < barriers && history->barrier[low] == at)
		return true;
	while (low > 0 && history->maybe[low - 1])
		low--;
	return at - (low > 0 ? history->barrier[low - 1] : 0) >= epoch_blocks;
}

#define EPOCH_BLOCKS_MAX 4096 /* of src/cache/dirty.c */

/* MODEL goes on to the first state, of those that are allowed, which is BLOCKS;
 * false: there is none up to END. */
static inline bool find_state(struct content *model, const uint64_t *blocks, const struct history *history,
			      unsigned from, unsigned end, unsigned epoch_blocks)
{
	unsigned different = 0;

	advance(model, history, from);
	for (unsigned i = 0; i < DISK_BLOCKS; i++)
		different += model->blocks[i] != blocks[i];
	for (;;) {
		if (different == 0 && (model->at == 0 || may_end_epoch(history, model->at, epoch_blocks)))
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

/* The last state that is BLOCKS: steps that change nothing count as taken. */
static inline unsigned find_last_state(const struct content *from, const uint64_t *blocks,
				       const struct history *history)
{
	struct content model = *from;
	unsigned last = UINT_MAX;

	while (find_state(&model, blocks, history, model.at, history->begun, 0)) {
		last = model.at;
		if (last == history->begun)
			break;
		apply_step(&model, &history->steps[model.at++]);
	}
	return last;
}

/* What the disk lost is forgotten by its history too. */
static inline void truncate_history(struct history *history, unsigned at)
{
	history->begun = history->done = at;
	while (history->barriers > 0 && history->barrier[history->barriers - 1] > at)
		history->barriers--;
}

/* For who looks into a failure: the state nearest to BLOCKS, up to END, and what differs;
 * nothing, where no epoch ends there. */
static inline void tell_nearest(const struct content *from, const uint64_t *blocks, const struct history *history,
				unsigned end)
{
	struct content model = *from, nearest = *from;
	unsigned least = UINT_MAX;

	for (;;) {
		unsigned different = 0;

		for (unsigned i = 0; i < DISK_BLOCKS; i++)
			different += model.blocks[i] != blocks[i];
		if (different < least)
			nearest = model;
		least = MIN(least, different);
		if (model.at >= end)
			break;
		apply_step(&model, &history->steps[model.at++]);
	}
	g_test_message("searched from step %u to %u, flushed %u; nearest is %u, where %u blocks differ", from->at, end,
		       history->flushed, nearest.at, least);
	for (unsigned i = 0, told = 0; i < DISK_BLOCKS && told < 50; i++) {
		if (nearest.blocks[i] == blocks[i])
			continue;
		g_test_message("block %u: %" PRIu64 " instead of %" PRIu64, i, blocks[i], nearest.blocks[i]);
		told++;
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

static inline struct cache_layer *open_dirty(struct cache *cache, uint64_t tag, uint64_t owned, uint64_t generation)
{
	struct cache_layer_key key = {.stamp = 77, .size_bytes = UINT64_C(1) << 40, .name = "disk", .owned = owned};
	struct cache_layer *layer;
	int result;

	memset(key.identity, (int)tag, sizeof(key.identity));
	layer = cache_layer_open_dirty(cache, &key, &generation, NULL, &result);
	if (!layer)
		g_test_message("layer %" PRIu64 ": %s", tag, g_strerror(-result));
	return layer;
}

static inline void disk_init(struct disk *disk, struct cache *cache, struct user *user, uint64_t tag)
{
	*disk = (struct disk){.cache = cache, .user = user, .tag = tag, .history = history_new()};
	disk->layer = open_dirty(cache, tag, 0, 1);
	g_assert_nonnull(disk->layer);
}

static inline void disk_clear(struct disk *disk, uint64_t stamp)
{
	cache_layer_close(disk->layer, stamp);
	history_free(disk->history);
}

static inline void add_step(struct disk *disk, unsigned first, unsigned count, uint64_t version)
{
	g_assert_cmpuint(disk->history->begun, <, HISTORY_MAX);
	disk->history->steps[disk->history->begun] = (struct step){first, count, version};
	__atomic_store_n(&disk->history->begun, disk->history->begun + 1, __ATOMIC_SEQ_CST);
}

static inline void end_steps(struct disk *disk)
{
	advance(&disk->now, disk->history, disk->history->begun);
	__atomic_store_n(&disk->history->done, disk->history->begun, __ATOMIC_SEQ_CST);
}

static inline void wait_for_dirty_room(struct user *user, struct cache_layer *layer)
{
	struct waiting waiting = {.waiter = {.loop = user->loop, .task.run = room_came, .layer = layer}, .user = user};

	user->finished = false;
	cache_wait(cache_layer_cache(layer), &waiting.waiter);
	loop_run(user->loop, &user->finished);
}

/* Puts until there is no room; how many. Every block is a step of its own. */
static inline unsigned disk_put(struct disk *disk, unsigned first, unsigned count, int *result)
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

static inline int disk_zero(struct disk *disk, unsigned first, unsigned count)
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

static inline void flush_came(struct loop_task *task)
{
	container_of(task, struct flushing, flush.task)->user->finished = true;
}

static inline int start_flush(struct flushing *flushing, struct cache_layer *layer, struct user *user)
{
	*flushing = (struct flushing){.flush = {.queue = user->queue, .task.run = flush_came}, .user = user};
	user->finished = false;
	return cache_flush(layer, &flushing->flush);
}

/* 0, -EIO or -EAGAIN. */
static inline int disk_flush(struct disk *disk)
{
	struct history *history = disk->history;
	struct flushing flushing;
	int result;

	g_assert_cmpuint(history->barriers, <, BARRIERS_MAX);
	history->barrier[history->barriers] = history->done;
	history->maybe[history->barriers] = false;
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

/* Reclaim has nothing to do: what comes next is packed as densely as it can be. STATUS
 * is how it is then. */
static inline void await_settled(struct cache *cache, struct cache_status *status)
{
	struct cache_status before = {0};

	for (unsigned still = 0; still < 20; still++, before = *status) {
		g_usleep(5000);
		cache_get_status(cache, status);
		if (status->sequence != before.sequence || status->tail_segment != before.tail_segment)
			still = 0;
	}
}

/* And has nothing left to give, but what is kept back for others. */
static inline bool is_full(struct cache *cache)
{
	struct cache_status status;

	await_settled(cache, &status);
	return status.short_of_room && status.free_segments <= 4;
}

/* ---- Migration --------------------------------------------------------------- */

static inline uint64_t version_of(const uint8_t *data)
{
	uint64_t words[4];

	memcpy(words, data, sizeof(words));
	return words[2];
}

static inline void apply_batch(uint64_t *image, const struct cache_batch *batch, uint64_t tag)
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

static inline void assert_image(struct disk *disk)
{
	unsigned end = __atomic_load_n(&disk->history->begun, __ATOMIC_SEQ_CST);
	struct content before = disk->model;
	struct cache_status status;
	unsigned epoch_blocks;
	bool found;

	cache_get_status(disk->cache, &status);
	epoch_blocks = disk->cut_anywhere ? 0
					  : (unsigned)MIN(EPOCH_BLOCKS_MAX,
							  (status.segments - 4) * (CACHE_SEGMENT_BLOCKS - 1) / 4);
	found = find_state(&disk->model, disk->image, disk->history, 0, end, epoch_blocks);
	if (!found)
		tell_nearest(&before, disk->image, disk->history, end);
	g_assert_true(found);
}

/* False: nothing was to be migrated. Now and then the image fails, or has no
 * room for the batch. */
static inline bool migrate(struct disk *disk, unsigned data_blocks, bool cut)
{
	struct cache_batch_limits limits = {.data_blocks = data_blocks, .extents = 16, .cut = cut};
	struct cache_batch *batch;

	if (cut) {
		disk->history->maybe[disk->history->barriers] = true;
		disk->history->barrier[disk->history->barriers++] = disk->history->done;
		disk->cuts++;
	}
	g_assert_cmpint(cache_batch_take(disk->layer, &limits, &batch, NULL, NULL), ==, 0);
	if (!batch)
		return false;
	if (g_rand_int_range(disk->user->random, 0, 10) == 0) {
		if (g_rand_boolean(disk->user->random) || !cache_batch_refuse(batch))
			cache_batch_free(batch);
		return true;
	}
	apply_batch(disk->image, batch, disk->tag);
	assert_image(disk);
	cache_batch_done(batch);
	return true;
}

/* What the guest reads: the cache, on top of the image. */
static inline void read_all(struct disk *disk, uint64_t *blocks)
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

static inline void assert_reads(struct disk *disk)
{
	uint64_t blocks[DISK_BLOCKS];

	read_all(disk, blocks);
	g_assert_cmpmem(blocks, sizeof(blocks), disk->now.blocks, sizeof(disk->now.blocks));
}

static inline void assert_clean(struct cache *cache, struct cache_layer *layer)
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

static inline void drain(struct disk *disk)
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

static inline void step_range(GRand *random, unsigned most, unsigned *first, unsigned *count)
{
	*first = (unsigned)g_rand_int_range(random, 0, DISK_BLOCKS);
	*count = (unsigned)g_rand_int_range(random, 1, (gint32)most + 1);
	*count = MIN(*count, DISK_BLOCKS - *first);
}

static inline void put_waiting(struct disk *disk, unsigned first, unsigned count)
{
	unsigned done = 0;
	int result;

	while (done < count) {
		done += disk_put(disk, first + done, count - done, &result);
		g_assert_true(result == 0 || result == -EAGAIN);
		if (result == -EAGAIN)
			wait_for_dirty_room(disk->user, disk->layer);
	}
}

static inline void zero_waiting(struct disk *disk, unsigned first, unsigned count)
{
	int result;

	while ((result = disk_zero(disk, first, count)) == -EAGAIN)
		wait_for_dirty_room(disk->user, disk->layer);
	g_assert_cmpint(result, ==, 0);
}

static inline void flush_waiting(struct disk *disk)
{
	int result;

	while ((result = disk_flush(disk)) == -EAGAIN)
		wait_for_dirty_room(disk->user, disk->layer);
	g_assert_cmpint(result, ==, 0);
}

/* The same disk in a cache that was opened again. */
static inline void disk_reopen(struct disk *disk, struct cache *cache, uint64_t owned, uint64_t generation)
{
	disk->cache = cache;
	disk->layer = open_dirty(cache, disk->tag, owned, generation);
	g_assert_nonnull(disk->layer);
}

static inline void assert_done(int result)
{
	g_assert_cmpint(result, ==, 0);
}

static inline void no_finding(void *opaque, const char *sentence)
{
	(void)opaque;
	g_test_message("%s", sentence);
	g_test_fail();
}

static inline void assert_sound(const char *path)
{
	struct cache_check_result result;

	g_assert_true(cache_check(path, no_finding, NULL, &result, NULL));
}

#endif
