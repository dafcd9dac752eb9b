/* Dirty blocks that their image does not take, while others go round the log: they move,
 * again and again, and are in the end what the guest wrote, epoch by epoch, wherever the
 * process dies meanwhile. */
#include <string.h>
#include <unistd.h>

#include "cache_disk.h"

#define LOG_BYTES (SMALL + (4u << 20))
/* Each is some seven segments, which puts may fill. */
#define LAPS 5

/* A disk whose image takes nothing, and one that is written back at once. */
struct pair {
	struct cache *cache;
	struct disk stuck;
	struct cache_layer *other;
	struct user user;
	uint64_t version; /* of the other's */
};

static struct cache_layer *open_other(struct cache *cache, uint64_t owned)
{
	return open_dirty(cache, 50, owned, owned + 1);
}

static void pair_init(struct pair *pair, const char *path, uint64_t bytes)
{
	user_init(&pair->user);
	pair->version = 0;
	pair->cache = open_cache(path, bytes);
	disk_init(&pair->stuck, pair->cache, &pair->user, 1);
	pair->other = open_other(pair->cache, 0);
}

static void pair_clear(struct pair *pair)
{
	disk_clear(&pair->stuck, 0);
	cache_layer_close(pair->other, 0);
	g_assert_cmpint(cache_close(pair->cache), ==, 0);
	user_clear(&pair->user);
}

/* Blocks over and over, zeros between them, barriers now and then. */
static void write_epochs(struct disk *disk, unsigned epochs)
{
	GRand *random = disk->user->random;

	for (unsigned i = 0; i < epochs; i++) {
		unsigned first, count;

		step_range(random, 10, &first, &count);
		put_waiting(disk, first, count);
		step_range(random, 20, &first, &count);
		zero_waiting(disk, first, count);
		/* In one record: data behind its zeros, and zeros behind their data. */
		put_waiting(disk, first, 1);
		put_waiting(disk, first, 1);
		zero_waiting(disk, first + count - 1, 1);
		/* So close to the next that the cache keeps one. */
		flush_waiting(disk);
		put_waiting(disk, first, count);
		/* Far enough from the next that the cache keeps both. */
		for (unsigned block = 0; block < 70; block += 10)
			put_waiting(disk, 600 + block, 10);
		flush_waiting(disk);
	}
}

static void write_back(struct pair *pair)
{
	struct cache_batch_limits limits = {.data_blocks = 4096, .extents = 4096, .cut = true};
	struct cache_batch *batch;

	g_assert_cmpint(cache_batch_take(pair->other, &limits, &batch, NULL, NULL), ==, 0);
	if (batch)
		cache_batch_done(batch);
}

/* One put of the other; the reclaim thread may have to make room first. */
static void put_other(struct pair *pair)
{
	uint64_t block = pair->version % DISK_BLOCKS;
	gint64 end = g_get_monotonic_time() + PATIENCE_S * G_USEC_PER_SEC;

	fill(pair->user.buffer, 50, block, pair->version);
	while (cache_put(pair->other, block, 1, pair->user.buffer, true) != 1) {
		write_back(pair);
		g_usleep(100);
		g_assert_cmpint(g_get_monotonic_time(), <, end);
	}
	pair->version++;
}

static void go_round(struct pair *pair, unsigned laps)
{
	for (unsigned i = 0; i < laps * 7 * CACHE_SEGMENT_BLOCKS; i++) {
		put_other(pair);
		if (i % 100 == 0)
			write_back(pair);
	}
}

static void set_stuck(struct pair *pair)
{
	cache_layer_set_stuck(pair->stuck.layer, true);
}

static void reopen(struct pair *pair, const char *path, uint64_t owned)
{
	cache_layer_close(pair->stuck.layer, 0);
	cache_layer_close(pair->other, 0);
	g_assert_cmpint(cache_close(pair->cache), ==, 0);
	assert_sound(path);
	pair->cache = open_cache(path, 0);
	disk_reopen(&pair->stuck, pair->cache, owned, owned + 1);
	pair->other = open_other(pair->cache, owned);
}

/* ---- Round and round -------------------------------------------------------- */

static void test_round(void)
{
	g_autofree char *path = new_path();
	struct cache_status status;
	struct pair pair;

	pair_init(&pair, path, LOG_BYTES);
	write_epochs(&pair.stuck, 3);
	set_stuck(&pair);
	go_round(&pair, LAPS);
	assert_reads(&pair.stuck);
	/* A disk that is stuck goes on for as long as it has room. */
	write_epochs(&pair.stuck, 1);
	go_round(&pair, LAPS);
	assert_reads(&pair.stuck);
	reopen(&pair, path, 1);
	assert_reads(&pair.stuck);
	set_stuck(&pair);
	go_round(&pair, LAPS);
	cache_layer_set_stuck(pair.stuck.layer, false);
	drain(&pair.stuck);
	write_back(&pair);
	assert_clean(pair.cache, pair.stuck.layer);
	go_round(&pair, LAPS);
	assert_reads(&pair.stuck);
	cache_get_status(pair.cache, &status);
	g_assert_cmpint(status.state, ==, CACHE_ACTIVE);
	pair_clear(&pair);
}

static uint64_t tail_of(struct cache *cache)
{
	struct cache_status status;

	cache_get_status(cache, &status);
	return status.tail_segment;
}

static uint64_t head_of(struct cache *cache)
{
	struct cache_status status;

	cache_get_status(cache, &status);
	return status.head_segment;
}

/* Of barriers that follow each other closely the cache keeps one; of a block with a version
 * in each of their epochs only the newest need move then. But after a restart the log shows
 * both, and other ends of epochs may be kept: no batch ends between the two then. */
static void test_close_barriers(void)
{
	const uint64_t segments = 32, early = 8;
	g_autofree char *path = new_path();
	struct pair pair;

	pair_init(&pair, path, (segments + 1) << 20);
	put_waiting(&pair.stuck, 100, 80);
	flush_waiting(&pair.stuck);
	while (head_of(pair.cache) < early)
		put_other(&pair);
	put_waiting(&pair.stuck, 5, 2);
	while (head_of(pair.cache) < segments - 6) /* reclaim begins with fewer than five free */
		put_other(&pair);
	set_stuck(&pair);
	flush_waiting(&pair.stuck);
	/* The first ones move between the two. */
	while (tail_of(pair.cache) == 0) {
		put_other(&pair);
		write_back(&pair);
	}
	g_assert_cmpuint(tail_of(pair.cache), <, early);
	put_waiting(&pair.stuck, 5, 1);
	flush_waiting(&pair.stuck);
	while (tail_of(pair.cache) <= early) {
		put_other(&pair);
		write_back(&pair);
	}
	reopen(&pair, path, 1);
	assert_reads(&pair.stuck);
	while (migrate(&pair.stuck, 1, false))
		;
	drain(&pair.stuck);
	pair_clear(&pair);
}

/* Nobody has it open: its image is gone, hidden or locked. */
static void test_closed(void)
{
	g_autofree char *path = new_path();
	struct pair pair;

	pair_init(&pair, path, LOG_BYTES);
	write_epochs(&pair.stuck, 3);
	cache_layer_close(pair.stuck.layer, 0);
	go_round(&pair, LAPS);
	disk_reopen(&pair.stuck, pair.cache, 1, 2);
	assert_reads(&pair.stuck);
	drain(&pair.stuck);
	pair_clear(&pair);
}

/* A batch is on its way to an image that hangs, and gets there in the end, or not. */
static void hang(bool arrives)
{
	struct cache_batch_limits limits = {.data_blocks = 100, .extents = 100};
	g_autofree char *path = new_path();
	struct cache_batch *batch;
	struct pair pair;

	pair_init(&pair, path, LOG_BYTES);
	write_epochs(&pair.stuck, 4);
	g_assert_cmpint(cache_batch_take(pair.stuck.layer, &limits, &batch, NULL, NULL), ==, 0);
	g_assert_nonnull(batch);
	set_stuck(&pair);
	go_round(&pair, LAPS);
	if (arrives) {
		apply_batch(pair.stuck.image, batch, pair.stuck.tag);
		assert_image(&pair.stuck);
		cache_batch_done(batch);
	} else {
		cache_batch_free(batch);
	}
	assert_reads(&pair.stuck);
	go_round(&pair, LAPS);
	reopen(&pair, path, 1);
	assert_reads(&pair.stuck);
	/* The image may have what was on its way: no batch ends before it. */
	if (!arrives) {
		limits.data_blocks = 0;
		g_assert_cmpint(cache_batch_take(pair.stuck.layer, &limits, &batch, NULL, NULL), ==, 0);
		apply_batch(pair.stuck.image, batch, pair.stuck.tag);
		g_assert_cmpuint(pair.stuck.image[600], >=, 1);
		cache_batch_free(batch);
	}
	drain(&pair.stuck);
	pair_clear(&pair);
}

static void test_hanging_arrives(void)
{
	hang(true);
}

static void test_hanging_is_lost(void)
{
	hang(false);
}

/* Writes of a disk that is stuck, as fast as it may: it stops at its share, and the other
 * goes on. */
static void test_share(void)
{
	g_autofree char *path = new_path();
	struct pair pair;
	int result = 0;

	pair_init(&pair, path, LOG_BYTES);
	set_stuck(&pair);
	for (unsigned i = 0; result == 0; i++) {
		disk_put(&pair.stuck, i % DISK_BLOCKS, 1, &result);
		if (result == 0)
			result = disk_flush(&pair.stuck);
		put_other(&pair);
	}
	g_assert_cmpint(result, ==, -EAGAIN);
	go_round(&pair, LAPS);
	assert_reads(&pair.stuck);
	cache_layer_set_stuck(pair.stuck.layer, false);
	drain(&pair.stuck);
	pair_clear(&pair);
}

/* ---- Crashes ---------------------------------------------------------------- */

#ifdef LEAFDISK_FAULTS
struct crashing {
	const char *path;
	const char *point;
	struct history *history; /* of the disk whose image takes nothing */
};

static void crashing_open(const struct crashing *crashing, struct pair *pair, uint64_t bytes, uint64_t owned)
{
	*pair = (struct pair){.stuck = {.tag = 1, .history = crashing->history}};
	user_init(&pair->user);
	pair->stuck.user = &pair->user;
	pair->cache = open_cache(crashing->path, bytes);
	disk_reopen(&pair->stuck, pair->cache, owned, 1);
	pair->other = open_other(pair->cache, owned);
}

static int crashing_close(struct pair *pair)
{
	int result;

	cache_layer_close(pair->stuck.layer, 0);
	cache_layer_close(pair->other, 0);
	result = cache_close(pair->cache);
	user_clear(&pair->user);
	return result;
}

/* What is dirty when the rounds begin. */
static void write_before(void *opaque)
{
	const struct crashing *crashing = opaque;
	struct pair pair;

	crashing_open(crashing, &pair, LOG_BYTES, 0);
	if (!strcmp(crashing->point, "cache.super")) {
		write_epochs(&pair.stuck, 1);
		put_waiting(&pair.stuck, 300, 250); /* more than half of what an epoch may have */
	} else {
		write_epochs(&pair.stuck, 3);
	}
	g_assert_cmpint(crashing_close(&pair), ==, 0);
}

static void G_GNUC_NORETURN run_round(const struct crashing *crashing, const char *spec)
{
	struct pair pair;

	crashing_open(crashing, &pair, 0, 1);
	set_stuck(&pair);
	arm(spec);
	go_round(&pair, 3);
	arm("");
	_exit(crashing_close(&pair) == 0 ? 0 : 1);
}

/* False: it came to its end before that. */
static bool crash_round(const struct crashing *crashing, const char *spec)
{
	pid_t child = fork_child();
	int status;

	if (child == 0)
		run_round(crashing, spec);
	status = exit_status_of(child);
	g_assert_true(status == 77 || status == 0);
	return status == 77;
}

/* All of it is there, and goes to the image by whole epochs. */
static void look_after(void *opaque)
{
	const struct crashing *crashing = opaque;
	struct history *history = crashing->history;
	struct disk disk = {.tag = 1, .history = history};
	unsigned steps = history->done, barriers = history->barriers, flushed = history->flushed;
	struct user user;

	user_init(&user);
	disk.user = &user;
	assert_sound(crashing->path);
	disk.cache = open_cache(crashing->path, 0);
	advance(&disk.now, history, history->done);
	disk_reopen(&disk, disk.cache, 1, 1);
	assert_reads(&disk);
	/* What the log has twice is one block of the epoch that goes on. */
	cache_layer_set_stuck(disk.layer, true);
	put_waiting(&disk, 0, 50);
	while (migrate(&disk, 1, false))
		;
	drain(&disk);
	cache_layer_close(disk.layer, 0);
	g_assert_cmpint(cache_close(disk.cache), ==, 0);
	history->begun = history->done = steps;
	history->barriers = barriers;
	history->flushed = flushed;
	user_clear(&user);
}

/* Before each write, flush and superblock while blocks move, and again while they move on
 * after that. */
static void test_crash(const void *point)
{
	g_autofree char *path = new_path(), *content = NULL;
	struct crashing crashing = {.path = path, .point = point, .history = history_new()};
	bool crashed = true;
	gsize length;

	run_apart(write_before, &crashing);
	g_assert_true(g_file_get_contents(path, &content, &length, NULL));
	for (unsigned nth = 1; crashed; nth++) {
		g_autofree char *spec = g_strdup_printf("%s:crash@%u", crashing.point, nth);
		g_autofree char *again = g_strdup_printf("aio.write:crash@%u", 1 + nth % 7);

		g_test_message("%s", spec);
		g_assert_true(g_file_set_contents(path, content, (gssize)length, NULL));
		crashed = crash_round(&crashing, spec);
		(void)crash_round(&crashing, again);
		run_apart(look_after, &crashing);
	}
	history_free(crashing.history);
}
#endif

int main(int argc, char **argv)
{
	int result;

	g_test_init(&argc, &argv, NULL);
	alarm(DEADLINE_S); /* what waits for ever fails */
	make_directory();
	add_apart("/cache-moves/round", test_round);
	add_apart("/cache-moves/close-barriers", test_close_barriers);
	add_apart("/cache-moves/closed", test_closed);
	add_apart("/cache-moves/hanging/arrives", test_hanging_arrives);
	add_apart("/cache-moves/hanging/is-lost", test_hanging_is_lost);
	add_apart("/cache-moves/share", test_share);
#ifdef LEAFDISK_FAULTS
	g_test_add_data_func("/cache-moves/crash/write", "aio.write", test_crash);
	g_test_add_data_func("/cache-moves/crash/flush", "aio.datasync", test_crash);
	g_test_add_data_func("/cache-moves/crash/superblock", "cache.super", test_crash);
#endif
	result = g_test_run();
	remove_directory();
	return result;
}
