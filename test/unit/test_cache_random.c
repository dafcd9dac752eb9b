/* Random lives of a dirty cache log: two disks whose images take batches, refuse, tear or lose
 * them, and another that fills the log; disks closed and opened again; an end in order, by a
 * crash or by a loss of power. What was flushed is there afterwards, and each image is where
 * an epoch ends; one that was torn, once it has the whole of a batch.
 *
 * With --seed all that is done is done again; how far the cache's own threads are meanwhile
 * is up to the machine. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "cache_disk.h"
#include "core/trace.h"

#define DISKS 2
#define TEARS 1 /* the disk whose image may have a part of a batch */
#define OTHER 50
#define CRASH_STATUS 77
#define LIVES (getenv("LEAFDISK_TORTURE") ? 60 : 7) /* of one log */
#define LOGS (getenv("LEAFDISK_TORTURE") ? 2 : 1)

/* ---- What outlives a process ------------------------------------------------- */

/* MODEL: where the image is, or was before it was TORN. */
struct saved {
	uint64_t image[DISK_BLOCKS];
	struct content model;
	bool torn;
};

/* BASE: what the disk is when a process begins. */
struct outside {
	struct history *history;
	struct content base;
	struct saved saved[2];
	unsigned valid; /* of the two */
};

/* Shared with the children. */
struct world {
	struct outside disks[DISKS];
	uint64_t owned; /* as the pool has it */
};

static struct world *world_new(void)
{
	struct world *world = mmap(NULL, sizeof(*world), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	g_assert_true(world != MAP_FAILED);
	for (unsigned k = 0; k < DISKS; k++)
		world->disks[k].history = history_new();
	return world;
}

static void world_free(struct world *world)
{
	for (unsigned k = 0; k < DISKS; k++)
		history_free(world->disks[k].history);
	munmap(world, sizeof(*world));
}

/* ---- A process ---------------------------------------------------------------- */

/* What a child is to do. */
struct plan {
	struct world *world;
	const char *path;
	uint64_t bytes;
	guint32 seed;
	const char *faults;
	bool traced;
	unsigned steps;
};

struct life {
	struct world *world;
	struct cache *cache;
	struct disk disks[DISKS];
	bool closed[DISKS];
	struct cache_batch *held[DISKS]; /* on its way to an image that hangs */
	struct cache_layer *other;
	uint64_t version;  /* of the other's */
	unsigned left_out; /* kinds of steps, bit by bit */
	struct user user;
};

static unsigned below(struct life *life, unsigned end)
{
	return (unsigned)g_rand_int_range(life->user.random, 0, (gint32)end);
}

static struct saved *saved_of(struct life *life, unsigned k)
{
	return &life->world->disks[k].saved[life->world->disks[k].valid];
}

/* All or nothing. */
static void save(struct life *life, unsigned k, bool torn)
{
	struct outside *outside = &life->world->disks[k];
	struct saved *saved = &outside->saved[!outside->valid];

	memcpy(saved->image, life->disks[k].image, sizeof(saved->image));
	saved->model = life->disks[k].model;
	saved->torn = torn;
	__atomic_store_n(&outside->valid, !outside->valid, __ATOMIC_SEQ_CST);
}

/* In a log that is full of what is dirty of those who are closed yet there is room once that
 * has moved. */
static struct cache_layer *open_in_the_end(struct life *life, uint64_t tag)
{
	gint64 end = g_get_monotonic_time() + PATIENCE_S * G_USEC_PER_SEC;
	struct cache_layer *layer;

	while (!(layer = open_dirty(life->cache, tag, life->world->owned, life->world->owned + 1))) {
		g_assert_cmpint(g_get_monotonic_time(), <, end);
		g_usleep(10 * 1000);
	}
	return layer;
}

static void open_disk(struct life *life, unsigned k)
{
	life->disks[k].cache = life->cache;
	life->disks[k].layer = open_in_the_end(life, k + 1);
	life->closed[k] = false;
}

static void life_begin(struct life *life, const struct plan *plan)
{
	*life = (struct life){.world = plan->world};
	user_init(&life->user);
	g_rand_set_seed(life->user.random, plan->seed);
	life->cache = open_cache(plan->path, 0);
	for (unsigned k = 0; k < DISKS; k++) {
		struct outside *outside = &life->world->disks[k];

		life->disks[k] = (struct disk){
			.user = &life->user, .tag = k + 1, .history = outside->history, .now = outside->base};
		memcpy(life->disks[k].image, saved_of(life, k)->image, sizeof(life->disks[k].image));
		life->disks[k].model = saved_of(life, k)->model;
		open_disk(life, k);
	}
	life->other = open_in_the_end(life, OTHER);
	life->world->owned++;
}

static void life_end(struct life *life)
{
	for (unsigned k = 0; k < DISKS; k++) {
		cache_batch_free(life->held[k]);
		if (!life->closed[k])
			cache_layer_close(life->disks[k].layer, 0);
	}
	cache_layer_close(life->other, 0);
	g_assert_cmpint(cache_close(life->cache), ==, 0);
	user_clear(&life->user);
}

/* ---- Batches ------------------------------------------------------------------ */

/* Where room is scarce the epochs of all disks are cut. */
static void note_cut(struct life *life)
{
	for (unsigned k = 0; k < DISKS; k++) {
		struct history *history = life->disks[k].history;

		if (history->barriers > 0 && history->barrier[history->barriers - 1] == history->done)
			continue;
		g_assert_cmpuint(history->barriers, <, BARRIERS_MAX);
		history->maybe[history->barriers] = true;
		history->barrier[history->barriers++] = history->done;
	}
}

/* Of a batch; half of them are one epoch. */
static unsigned pick_size(struct life *life, unsigned end)
{
	return below(life, 2) == 0 ? 1 : below(life, end);
}

static struct cache_batch *take(struct life *life, struct cache_layer *layer, unsigned data_blocks, unsigned extents,
				bool cut)
{
	struct cache_batch_limits limits = {.data_blocks = data_blocks, .extents = extents, .cut = cut};
	struct cache_batch *batch;

	if (cut)
		note_cut(life);
	g_assert_cmpint(cache_batch_take(layer, &limits, &batch, NULL, NULL), ==, 0);
	return batch;
}

static void apply_whole(struct life *life, unsigned k, const struct cache_batch *batch)
{
	struct disk *disk = &life->disks[k];

	apply_batch(disk->image, batch, disk->tag);
	assert_image(disk);
	save(life, k, false);
}

/* Some of the batch; the image is at no epoch's end then. */
static void apply_part(struct life *life, unsigned k, const struct cache_batch *batch)
{
	struct cache_batch part = *batch;

	part.extent_count = below(life, batch->extent_count + 1);
	part.data_blocks = 0;
	for (unsigned i = 0; i < part.extent_count; i++)
		part.data_blocks += part.extents[i].data ? part.extents[i].blocks : 0;
	apply_batch(life->disks[k].image, &part, life->disks[k].tag);
	save(life, k, true);
}

/* Of an image that is torn nobody knows that it has nothing of a batch. */
static void finish(struct life *life, unsigned k, struct cache_batch *batch)
{
	unsigned what = below(life, 10);

	if (what < 2 && !saved_of(life, k)->torn && cache_batch_refuse(batch))
		return;
	if (what == 3 && k == TEARS)
		apply_part(life, k, batch);
	else if (what >= 3)
		apply_whole(life, k, batch);
	if (what >= 5)
		cache_batch_done(batch);
	else
		cache_batch_free(batch);
}

static void write_back_other(struct life *life, bool cut)
{
	struct cache_batch *batch;

	cache_end_epoch(life->other);
	batch = take(life, life->other, 4096, 4096, cut);
	if (batch)
		cache_batch_done(batch);
}

/* ---- Steps -------------------------------------------------------------------- */

static void set_all_stuck(struct life *life)
{
	for (unsigned k = 0; k < DISKS; k++)
		if (!life->closed[k])
			cache_layer_set_stuck(life->disks[k].layer, true);
}

static void put_other(struct life *life)
{
	gint64 end = g_get_monotonic_time() + PATIENCE_S * G_USEC_PER_SEC;
	uint64_t block = life->version % DISK_BLOCKS;

	fill(life->user.buffer, OTHER, block, life->version);
	while (cache_put(life->other, block, 1, life->user.buffer, true) != 1) {
		write_back_other(life, true);
		set_all_stuck(life);
		g_usleep(100);
		g_assert_cmpint(g_get_monotonic_time(), <, end);
	}
	life->version++;
}

/* Now and then so much that the log goes round. */
static void fill_log(struct life *life)
{
	unsigned count = below(life, below(life, 6) == 0 ? 2000 : 200);

	for (unsigned i = 0; i < count; i++) {
		put_other(life);
		if (i % 60 == 0)
			write_back_other(life, false);
	}
}

/* Mostly few blocks, half of them always the same. */
static void pick_range(struct life *life, unsigned most, unsigned *first, unsigned *count)
{
	step_range(life->user.random, below(life, 8) == 0 ? most : 6, first, count);
	if (below(life, 2) == 0)
		return;
	*first %= 8;
	*count = MIN(*count, 8);
}

static int step_put(struct life *life, unsigned k)
{
	unsigned first, count;
	int result;

	pick_range(life, 100, &first, &count);
	disk_put(&life->disks[k], first, count, &result);
	return result;
}

static int step_zero(struct life *life, unsigned k)
{
	unsigned first, count;

	pick_range(life, 200, &first, &count);
	return disk_zero(&life->disks[k], first, count);
}

static int step_flush(struct life *life, unsigned k)
{
	return disk_flush(&life->disks[k]);
}

static int step_stuck(struct life *life, unsigned k)
{
	cache_layer_set_stuck(life->disks[k].layer, below(life, 3) != 0);
	return 0;
}

static int step_batch(struct life *life, unsigned k)
{
	struct cache_batch *batch = g_steal_pointer(&life->held[k]);
	unsigned data_blocks, extents;
	bool hangs;

	if (!batch) {
		data_blocks = pick_size(life, 300);
		extents = 4 + below(life, 60);
		batch = take(life, life->disks[k].layer, data_blocks, extents, below(life, 3) == 0);
		hangs = below(life, 4) == 0;
	} else {
		hangs = below(life, 3) != 0;
	}
	if (hangs)
		life->held[k] = batch;
	else if (batch)
		finish(life, k, batch);
	return 0;
}

static int step_read(struct life *life, unsigned k)
{
	assert_reads(&life->disks[k]);
	return 0;
}

static int step_close(struct life *life, unsigned k)
{
	if (life->held[k])
		return 0;
	cache_layer_close(life->disks[k].layer, 0);
	life->closed[k] = true;
	return 0;
}

/* One that is closed is opened for each of a flush. */
static void take_step(struct life *life)
{
	static const struct {
		unsigned below;
		int (*run)(struct life *life, unsigned k);
	} steps[] = {{33, step_put},   {43, step_zero}, {63, step_flush}, {70, step_stuck},
		     {85, step_batch}, {86, step_read}, {88, step_close}};
	unsigned k = below(life, DISKS), what = below(life, 100);
	const unsigned last = G_N_ELEMENTS(steps) - 1;
	unsigned i = 0;
	int result;

	while (i <= last && what >= steps[i].below)
		i++;
	if (i > last) {
		fill_log(life);
	} else if (life->left_out & 1u << i) {
		return;
	} else if (!life->closed[k]) {
		result = steps[i].run(life, k);
		g_assert_true(result == 0 || result == -EAGAIN);
	} else if (steps[i].run == step_flush) {
		open_disk(life, k);
	}
}

static void live(const struct plan *plan)
{
	struct life life;

	life_begin(&life, plan);
	for (unsigned k = 0; k < DISKS; k++)
		assert_reads(&life.disks[k]);
	/* Lives without batches, or without flushes, come elsewhere than those that have all. */
	life.left_out = below(&life, 256) & below(&life, 256) & ~1u;
	arm(plan->faults);
	for (unsigned i = 0; i < plan->steps; i++)
		take_step(&life);
	arm("");
	if (below(&life, 2) == 0)
		_exit(CRASH_STATUS);
	life_end(&life);
}

/* ---- And after it -------------------------------------------------------------- */

/* The disk goes on from what it has; no less than what was flushed. */
static void find_out(struct life *life, unsigned k)
{
	struct outside *outside = &life->world->disks[k];
	struct history *history = outside->history;
	uint64_t blocks[DISK_BLOCKS];
	struct content flushed;
	unsigned at;

	read_all(&life->disks[k], blocks);
	at = find_last_state(&outside->base, blocks, history);
	if (at == UINT_MAX || at < history->flushed) {
		flushed = outside->base;
		advance(&flushed, history, history->flushed);
		tell_nearest(&flushed, blocks, history, history->begun);
	}
	g_assert_cmpuint(at, !=, UINT_MAX);
	g_assert_cmpuint(at, >=, history->flushed);
	truncate_history(history, at);
	advance(&outside->base, history, at);
	life->disks[k].now = outside->base;
}

/* False: nothing was to be migrated. */
static bool write_back(struct life *life, unsigned k, unsigned data_blocks, bool cut)
{
	struct cache_batch *batch = take(life, life->disks[k].layer, data_blocks, 16, cut);

	if (!batch)
		return false;
	apply_whole(life, k, batch);
	cache_batch_done(batch);
	return true;
}

static void write_back_all(struct life *life, unsigned k)
{
	struct disk *disk = &life->disks[k];
	struct cache_dirty dirty;

	do {
		write_back(life, k, 200, true);
		cache_layer_get_dirty(disk->layer, &dirty);
	} while (dirty.slots > 0 || dirty.zeros > 0);
	g_assert_cmpmem(disk->image, sizeof(disk->image), disk->now.blocks, sizeof(disk->now.blocks));
}

static void look_after(const struct plan *plan)
{
	struct life life;

	assert_sound(plan->path);
	life_begin(&life, plan);
	for (unsigned k = 0; k < DISKS; k++) {
		unsigned batches = below(&life, 2) == 0 ? below(&life, 60) : 0, most = pick_size(&life, 200);

		find_out(&life, k);
		while (batches-- > 0 && write_back(&life, k, most, false))
			;
		if (below(&life, 6) == 0)
			write_back_all(&life, k);
		assert_reads(&life.disks[k]);
	}
	life_end(&life);
}

static void create(const struct plan *plan)
{
	g_assert_cmpint(cache_close(open_cache(plan->path, plan->bytes)), ==, 0);
}

/* In a process of its own; whether it came to its end. */
static bool run(void (*main)(const struct plan *plan), const struct plan *plan)
{
	pid_t child = fork_child();
	int status;

	if (child == 0) {
		if (plan->traced)
			g_setenv("LEAFDISK_TRACE", directory, true);
		main(plan);
		_exit(g_test_failed() ? 1 : 0);
	}
	status = exit_status_of(child);
	g_assert_true(status == CRASH_STATUS || status == 0);
	return status == 0;
}

/* ---- A loss of power ------------------------------------------------------------ */

#define SECTOR 512

struct record {
	char type;
	uint64_t offset;
	uint32_t length;
	const char *data;
};

/* False at the end, or where the last one is cut off. */
static bool next_record(const char **at, const char *end, struct record *record)
{
	struct trace_record_ondisk ondisk;
	size_t bytes = sizeof(ondisk), left = (size_t)(end - *at);

	if (left < bytes)
		return false;
	memcpy(&ondisk, *at, bytes);
	*record = (struct record){ondisk.type, le64_get(ondisk.offset), le32_get(ondisk.length), NULL};
	bytes += le32_get(ondisk.name_bytes);
	if (left < bytes || left - bytes < record->length)
		return false;
	record->data = *at + bytes;
	*at = record->data + record->length;
	return true;
}

/* Up to where all is durable: the begin of the last flush that is over. Of several that are
 * under way the latest is taken for it: a durable write and a superblock are flushed while
 * the log's datasync goes on, of which there is one at a time. */
static const char *find_sure(const char *trace, const char *end)
{
	g_autoptr(GQueue) begun = g_queue_new();
	const char *at = trace, *sure = trace, *flushed;
	struct record record;

	while (next_record(&at, end, &record)) {
		if (record.type == TRACE_BEGIN)
			g_queue_push_tail(begun, (void *)(uintptr_t)at);
		if (record.type != TRACE_FLUSHED)
			continue;
		flushed = g_queue_pop_tail(begun);
		sure = MAX(sure, flushed);
	}
	return sure;
}

static void place(char *content, gsize length, const struct record *record, GRand *torn)
{
	g_assert_cmpuint(record->offset + record->length, <=, length);
	for (uint32_t done = 0; done < record->length; done += SECTOR)
		if (!torn || g_rand_boolean(torn))
			memcpy(content + record->offset + done, record->data + done,
			       MIN(SECTOR, record->length - done));
}

/* CONTENT, as it was before, becomes what the storage may have: of what is not sure each
 * write is there, missing or torn. How many there are is up to the machine. */
static void lose_power(char *content, gsize length)
{
	g_autofree char *path = g_build_filename(directory, "trace.bin", NULL), *trace = NULL;
	g_autoptr(GRand) random = g_rand_new_with_seed((guint32)g_test_rand_int());
	int kept = g_rand_int_range(random, 0, 4); /* of three */
	const char *at, *end, *sure;
	struct record record;
	gsize bytes;

	g_assert_true(g_file_get_contents(path, &trace, &bytes, NULL));
	g_assert_cmpint(unlink(path), ==, 0);
	at = trace;
	end = trace + bytes;
	sure = find_sure(trace, end);
	while (next_record(&at, end, &record)) {
		if (record.type != TRACE_WRITE)
			continue;
		if (at <= sure || g_rand_int_range(random, 0, 3) < kept)
			place(content, length, &record, NULL);
		else if (g_rand_boolean(random))
			place(content, length, &record, random);
	}
}

/* ---- Lives ---------------------------------------------------------------------- */

/* A crash at some write, flush or superblock, or none. */
static char *pick_faults(void)
{
	static const char *const points[] = {"aio.write", "aio.datasync", "cache.super"};
	int point = g_test_rand_int_range(0, 2 * G_N_ELEMENTS(points)), nth = g_test_rand_int_range(1, 60);

#ifdef LEAFDISK_FAULTS
	if (point < (int)G_N_ELEMENTS(points))
		return g_strdup_printf("%s:crash@%d", points[point], nth);
#endif
	return g_strdup("");
}

static void live_once(struct plan *plan)
{
	g_autofree char *faults = pick_faults(), *content = NULL;
	gsize length;

	plan->seed = (guint32)g_test_rand_int();
	plan->steps = (unsigned)g_test_rand_int_range(50, plan->traced ? 400 : 1500);
	plan->faults = faults;
	g_test_message("%u steps, %s", plan->steps, *faults ? faults : "no fault");
	if (!plan->traced) {
		run(live, plan);
		return;
	}
	g_assert_true(g_file_get_contents(plan->path, &content, &length, NULL));
	run(live, plan);
	lose_power(content, length);
	g_assert_true(g_file_set_contents(plan->path, content, (gssize)length, NULL));
}

static void live_on(struct plan *plan)
{
	struct plan look = *plan;

	look.traced = false;
	run(create, &look);
	for (unsigned i = 0; i < LIVES; i++) {
		live_once(plan);
		look.seed = (guint32)g_test_rand_int();
		run(look_after, &look);
	}
	for (unsigned k = 0; k < DISKS; k++)
		g_assert_cmpuint(plan->world->disks[k].history->begun, >, 0);
}

static void test_lives(const void *traced)
{
	for (unsigned i = 0; i < LOGS; i++) {
		g_autofree char *path = new_path();
		struct plan plan = {.path = path, .world = world_new(), .faults = "", .traced = traced};

		plan.bytes = SMALL + ((uint64_t)g_test_rand_int_range(1, 6) << 20);
		live_on(&plan);
		world_free(plan.world);
		unlink(path);
	}
}

int main(int argc, char **argv)
{
	int result;

	g_test_init(&argc, &argv, NULL);
	alarm(DEADLINE_S); /* what waits for ever fails */
	make_directory();
	g_test_add_data_func("/cache-random/crash", NULL, test_lives);
#ifdef LEAFDISK_FAULTS
	g_test_add_data_func("/cache-random/power-loss", "traced", test_lives);
#endif
	result = g_test_run();
	remove_directory();
	return result;
}
