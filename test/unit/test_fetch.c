/* Fetches: a block is fetched once, and what was cancelled is not published. */
#include "layer/fetch.h"

#include <pthread.h>
#include <stdatomic.h>

#include "cache_rig.h"
#include "core/counters.h"

#define TAG 7
#define BLOCKS 64

static struct {
	struct fetches fetches;
	struct cache *cache;
	struct cache_layer *layer;
	struct user user;
	uint8_t *data; /* BLOCKS */
} rig;

/* A fetch, and how often it was woken. */
struct asker {
	struct fetch fetch;
	unsigned woken;
	bool stop;
};

static void rig_begin(void)
{
	g_autofree char *path = new_path();

	fetches_init(&rig.fetches);
	rig.cache = open_cache(path, SMALL);
	rig.layer = open_layer(rig.cache, 1, 1, false);
	user_init(&rig.user);
	rig.data = aligned_alloc(BLOCK_SIZE, BLOCKS * BLOCK_SIZE);
}

static void rig_end(void)
{
	g_assert_true(list_is_empty(&rig.fetches.under_way));
	fetches_clear(&rig.fetches);
	cache_layer_close(rig.layer, 0);
	g_assert_cmpint(cache_close(rig.cache), ==, 0);
	user_clear(&rig.user);
	free(rig.data);
}

static void woken(struct loop_task *task)
{
	struct asker *asker = container_of(task, struct asker, fetch.ended);

	asker->woken++;
	asker->stop = true;
}

static bool begin_on(struct asker *asker, struct loop *loop, uint64_t block, uint64_t blocks)
{
	*asker = (struct asker){.fetch = {.layer = rig.layer, .block = block, .blocks = blocks, .loop = loop}};
	asker->fetch.ended.run = woken;
	return fetch_begin(&rig.fetches, &asker->fetch);
}

static bool begin(struct asker *asker, uint64_t block, uint64_t blocks)
{
	return begin_on(asker, rig.user.loop, block, blocks);
}

/* Ends it with what the image had in VERSION; 0: it failed. */
static void end(struct asker *asker, uint64_t version)
{
	for (uint64_t i = 0; i < asker->fetch.blocks; i++)
		fill(rig.data + i * BLOCK_SIZE, TAG, asker->fetch.block + i, version);
	fetch_end(&rig.fetches, &asker->fetch, version ? rig.data : NULL);
}

/* Runs what was posted so far. */
static void run_posted(void)
{
	struct asker last = {.fetch.ended.run = woken};

	loop_post(rig.user.loop, &last.fetch.ended);
	loop_run(rig.user.loop, &last.stop);
}

static void assert_missing(uint64_t block, uint64_t blocks)
{
	struct cache_extent extent = cache_lookup(rig.layer, block, blocks);

	g_assert_cmpint(extent.answer, ==, CACHE_MISS);
	g_assert_cmpuint(extent.blocks, ==, blocks);
}

static void test_publishes(void)
{
	struct asker asker;

	rig_begin();
	g_assert_true(begin(&asker, 10, 20));
	g_assert_cmpuint(asker.fetch.blocks, ==, 20);
	assert_missing(10, 20);
	end(&asker, 1);
	for (uint64_t block = 10; block < 30; block++)
		assert_block(&rig.user, rig.layer, TAG, block, 1);
	assert_missing(0, 10);
	assert_missing(30, 10);
	rig_end();
}

static void test_failed(void)
{
	struct asker first, second;

	rig_begin();
	g_assert_true(begin(&first, 10, 4));
	g_assert_false(begin(&second, 10, 4));
	end(&first, 0);
	run_posted();
	g_assert_cmpuint(second.woken, ==, 1);
	assert_missing(10, 4);
	g_assert_true(begin(&second, 10, 4));
	end(&second, 1);
	assert_block(&rig.user, rig.layer, TAG, 13, 1);
	rig_end();
}

/* Whoever asks for the first block of what is under way, or one in its midst, waits,
 * and finds it when he is woken, which he is once. */
static void test_second_waits(void)
{
	uint64_t shared = counters.cache_fetches_shared;
	struct asker first, waiting[3];

	rig_begin();
	g_assert_true(begin(&first, 10, 10));
	g_assert_false(begin(&waiting[0], 10, 1));
	g_assert_false(begin(&waiting[1], 15, 1));
	g_assert_false(begin(&waiting[2], 19, 40));
	run_posted();
	for (unsigned i = 0; i < G_N_ELEMENTS(waiting); i++)
		g_assert_cmpuint(waiting[i].woken, ==, 0);
	end(&first, 1);
	assert_block(&rig.user, rig.layer, TAG, 19, 1);
	for (unsigned i = 0; i < 2; i++)
		run_posted();
	for (unsigned i = 0; i < G_N_ELEMENTS(waiting); i++)
		g_assert_cmpuint(waiting[i].woken, ==, 1);
	g_assert_cmpuint(first.woken, ==, 0);
	g_assert_cmpuint(counters.cache_fetches_shared - shared, ==, G_N_ELEMENTS(waiting));
	rig_end();
}

/* One that begins before what is under way goes up to it, up to the first of several. */
static void test_cut(void)
{
	struct asker late, early, cut, rest;

	rig_begin();
	g_assert_true(begin(&late, 30, 10));
	g_assert_true(begin(&early, 20, 5));
	g_assert_true(begin(&cut, 10, 50));
	g_assert_cmpuint(cut.fetch.blocks, ==, 10);
	g_assert_true(begin(&rest, 25, 50));
	g_assert_cmpuint(rest.fetch.blocks, ==, 5);
	end(&cut, 1);
	end(&rest, 1);
	assert_missing(20, 5);
	assert_missing(30, 10);
	end(&early, 1);
	end(&late, 1);
	for (uint64_t block = 10; block < 40; block++)
		assert_block(&rig.user, rig.layer, TAG, block, 1);
	rig_end();
}

/* Of another layer the same numbers are other blocks. */
static void test_layers_apart(void)
{
	struct cache_layer *other;
	struct asker asker, of_other;

	rig_begin();
	other = open_layer(rig.cache, 2, 1, false);
	g_assert_true(begin(&asker, 10, 10));
	of_other.fetch = (struct fetch){.layer = other, .block = 10, .blocks = 10, .loop = rig.user.loop};
	g_assert_true(fetch_begin(&rig.fetches, &of_other.fetch));
	fetch_cancel(&rig.fetches, other, 0, 100);
	end(&of_other, 1);
	end(&asker, 1);
	assert_block(&rig.user, rig.layer, TAG, 10, 1);
	assert_answer(other, 10, CACHE_MISS);
	cache_layer_close(other, 0);
	rig_end();
}

static void test_cancelled(void)
{
	struct asker asker, waiting;

	rig_begin();
	g_assert_true(begin(&asker, 10, 10));
	g_assert_false(begin(&waiting, 12, 2));
	fetch_cancel(&rig.fetches, rig.layer, 19, 30);
	end(&asker, 1);
	assert_missing(0, 40);
	run_posted();
	g_assert_cmpuint(waiting.woken, ==, 1);
	/* Who waited fetches what the image has now, and publishes that. */
	g_assert_true(begin(&waiting, 12, 2));
	end(&waiting, 2);
	assert_block(&rig.user, rig.layer, TAG, 12, 2);
	rig_end();
}

static void test_cancelled_beside(void)
{
	struct asker asker;

	rig_begin();
	g_assert_true(begin(&asker, 10, 10));
	fetch_cancel(&rig.fetches, rig.layer, 0, 10);
	fetch_cancel(&rig.fetches, rig.layer, 20, UINT64_MAX / 4);
	end(&asker, 1);
	assert_block(&rig.user, rig.layer, TAG, 10, 1);
	assert_block(&rig.user, rig.layer, TAG, 19, 1);
	rig_end();
}

/* Of what is cut off nothing is published, it is no longer under way, and a writer
 * there cancels nothing. */
static void test_shortened(void)
{
	struct asker asker, rest;

	rig_begin();
	g_assert_true(begin(&asker, 10, 10));
	fetch_shorten(&rig.fetches, &asker.fetch, 4);
	g_assert_true(begin(&rest, 14, 6));
	fetch_cancel(&rig.fetches, rig.layer, 14, 6);
	end(&asker, 1);
	assert_block(&rig.user, rig.layer, TAG, 13, 1);
	assert_missing(14, 6);
	end(&rest, 1);
	assert_missing(14, 6);
	rig_end();
}

/* Who waited for what is cut off then is woken, once, and may fetch it himself. */
static void test_shortened_while_others_wait(void)
{
	struct asker asker, cut_off, kept;

	rig_begin();
	g_assert_true(begin(&asker, 10, 10));
	g_assert_false(begin(&kept, 11, 1));
	g_assert_false(begin(&cut_off, 18, 2));
	fetch_shorten(&rig.fetches, &asker.fetch, 4);
	run_posted();
	g_assert_cmpuint(cut_off.woken, ==, 1);
	g_assert_cmpuint(kept.woken, ==, 0);
	g_assert_true(begin(&cut_off, 18, 2)); /* while the other is still under way */
	end(&asker, 1);
	run_posted();
	g_assert_cmpuint(cut_off.woken, ==, 0);
	g_assert_cmpuint(kept.woken, ==, 1);
	assert_missing(14, 6);
	end(&cut_off, 1);
	assert_block(&rig.user, rig.layer, TAG, 18, 1);
	rig_end();
}

/* ---- Threads -------------------------------------------------------------- */

#define READERS 3
#define WRITES 4000
#define WRITTEN 8 /* of BLOCKS */

/* What the image has; a version is there before its writer cancels. */
static _Atomic uint64_t versions[BLOCKS];
static atomic_bool writer_is_done;
static atomic_uint fetched;

static void fetch_some(struct user *user)
{
	uint64_t block = (uint64_t)g_rand_int_range(user->random, 0, 2 * WRITTEN);
	struct asker asker;

	if (!begin_on(&asker, user->loop, block, (uint64_t)g_rand_int_range(user->random, 1, 9))) {
		loop_run(user->loop, &asker.stop);
		g_assert_cmpuint(asker.woken, ==, 1);
		return;
	}
	fetch_shorten(&rig.fetches, &asker.fetch, MIN(asker.fetch.blocks, BLOCKS - block));
	for (uint64_t i = 0; i < asker.fetch.blocks; i++)
		fill(user->buffer + i * BLOCK_SIZE, TAG, block + i, versions[block + i]);
	fetch_end(&rig.fetches, &asker.fetch, user->buffer);
	fetched++;
}

static void *read_on(void *opaque)
{
	struct user *user = opaque;

	while (!writer_is_done)
		fetch_some(user);
	return NULL;
}

/* The cache has the block as it was written last, or not at all. */
static void check_one(uint64_t block)
{
	struct cache_extent extent = read_blocks(&rig.user, rig.layer, block, 1);

	if (extent.answer == CACHE_HIT && rig.user.result == 0)
		g_assert_true(is_filled(rig.user.buffer, TAG, block, versions[block]));
}

static void write_one(uint64_t block)
{
	uint64_t version = ++versions[block];

	fetch_cancel(&rig.fetches, rig.layer, block, 1);
	if (g_rand_boolean(rig.user.random))
		forget(&rig.user, rig.layer, block, 1);
	else
		g_assert_cmpint(put(&rig.user, rig.layer, TAG, block, 1, version, false), ==, 0);
	check_one(block);
}

static void start_readers(struct user users[READERS], pthread_t threads[READERS])
{
	for (unsigned i = 0; i < READERS; i++) {
		user_init(&users[i]);
		g_assert_cmpint(pthread_create(&threads[i], NULL, read_on, &users[i]), ==, 0);
	}
}

static void test_writer_among_readers(void)
{
	struct user users[READERS];
	pthread_t threads[READERS];

	rig_begin();
	writer_is_done = false;
	fetched = 0;
	for (unsigned i = 0; i < BLOCKS; i++)
		versions[i] = 1;
	start_readers(users, threads);
	for (unsigned i = 0; i < WRITES || fetched < WRITES; i++) {
		check_one((uint64_t)g_rand_int_range(rig.user.random, 0, WRITTEN));
		write_one((uint64_t)g_rand_int_range(rig.user.random, 0, WRITTEN));
	}
	writer_is_done = true;
	for (unsigned i = 0; i < READERS; i++) {
		pthread_join(threads[i], NULL);
		user_clear(&users[i]);
	}
	for (uint64_t block = 0; block < BLOCKS; block++)
		check_one(block);
	rig_end();
}

int main(int argc, char **argv)
{
	int result;

	g_test_init(&argc, &argv, NULL);
	make_directory();
	g_test_add_func("/fetch/publishes", test_publishes);
	g_test_add_func("/fetch/failed", test_failed);
	g_test_add_func("/fetch/second-waits", test_second_waits);
	g_test_add_func("/fetch/cut", test_cut);
	g_test_add_func("/fetch/layers-apart", test_layers_apart);
	g_test_add_func("/fetch/cancelled", test_cancelled);
	g_test_add_func("/fetch/cancelled-beside", test_cancelled_beside);
	g_test_add_func("/fetch/shortened", test_shortened);
	g_test_add_func("/fetch/shortened-while-others-wait", test_shortened_while_others_wait);
	g_test_add_func("/fetch/writer-among-readers", test_writer_among_readers);
	result = g_test_run();
	remove_directory();
	return result;
}
