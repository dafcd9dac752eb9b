/* The jobs of a migrator: what batches take of memory is bounded, and shared by their stores;
 * what hung is what its image makes of it afterwards. */
#include "migrate/jobs.h"

#include "cache/writeback.h"
#include "cache_rig.h"
#include "core/time.h"
#include "layer/pool_cache.h"

#define MIB ((uint64_t)1 << 20)
#define ALL_BYTES (256 * MIB)
#define DISKS 100

/* Layers of which nothing is there but what a migrator knows them by. */
struct rig {
	struct pool_cache pool_cache;
	struct jobs jobs;
	struct look look;
	unsigned count;
	struct one {
		struct layer leaf;
		struct chain_link link;
		struct job job;
	} ones[DISKS];
};

static struct rig *rig_new(void)
{
	struct rig *rig = g_new0(struct rig, 1);

	backlogs_init(&rig->pool_cache.backlogs);
	jobs_init(&rig->jobs, &rig->pool_cache.backlogs);
	rig->look.now_ns = loop_now_ns();
	return rig;
}

static void rig_free(struct rig *rig)
{
	backlogs_clear(&rig->pool_cache.backlogs);
	g_free(rig);
}

static struct one *add(struct rig *rig, dev_t store)
{
	struct one *one = &rig->ones[rig->count++];

	g_assert_cmpuint(rig->count, <=, DISKS);
	one->link.store = store;
	one->leaf.link = &one->link;
	one->leaf.pool_cache = &rig->pool_cache;
	list_init(&one->job.link);
	return one;
}

/* Its batch has been under way for as long as a store takes that hangs. */
static bool begin_hung(struct rig *rig, struct one *one)
{
	bool allowed;

	LOCK_GUARD(&rig->pool_cache.backlogs.lock);
	allowed = jobs_allow_locked(&rig->jobs, &rig->look, &one->leaf, WORK_BATCH);
	one->job = (struct job){
		.layer = &one->leaf,
		.store = one->link.store,
		.work = WORK_BATCH,
		.begun_ns = rig->look.now_ns - 10 * NS_PER_S,
		.link = LIST_INIT(one->job.link),
	};
	if (allowed)
		list_append(&rig->jobs.begun, &one->job.link);
	return allowed;
}

static void end(struct rig *rig, struct one *one)
{
	LOCK_GUARD(&rig->pool_cache.backlogs.lock);
	jobs_release_locked(&rig->jobs, &one->job);
	list_remove(&one->job.link);
}

/* True: it has the memory, and hangs with it. */
static bool try_hung(struct rig *rig, dev_t store, uint64_t bytes)
{
	struct one *one = add(rig, store);

	if (!begin_hung(rig, one))
		return false;
	if (jobs_take_memory(&rig->jobs, &one->job, bytes))
		return true;
	end(rig, one);
	g_assert_false(begin_hung(rig, one));
	return false;
}

static uint64_t fill_store(struct rig *rig, dev_t store, uint64_t bytes)
{
	uint64_t taken = 0;

	while (try_hung(rig, store, bytes))
		taken += bytes;
	return taken;
}

/* A store that hangs has most of it, and the next has something still. */
static void test_large_batches(void)
{
	struct rig *rig = rig_new();
	uint64_t first = fill_store(rig, 1, 16 * MIB), all = first;

	g_assert_cmpuint(first, >=, 64 * MIB);
	g_assert_cmpuint(first, <=, ALL_BYTES / 2 + 16 * MIB);
	for (dev_t store = 2; store <= 5; store++) {
		uint64_t taken = fill_store(rig, store, 16 * MIB);

		g_assert_cmpuint(taken, >=, 16 * MIB);
		all += taken;
	}
	g_assert_cmpuint(all, <=, ALL_BYTES);
	rig_free(rig);
}

/* Where they can be chosen small there is some for many more. */
static void test_offers(void)
{
	struct rig *rig = rig_new();
	uint64_t all = 0;

	for (dev_t store = 1; store <= 50; store++) {
		uint64_t bytes = jobs_offer_memory(&rig->jobs);

		g_assert_true(try_hung(rig, store, bytes));
		all += bytes;
	}
	g_assert_cmpuint(all, <=, ALL_BYTES);
	rig_free(rig);
}

/* One that is larger than all goes alone; who has got none begins once it may have it. */
static void test_who_waits(void)
{
	struct rig *rig = rig_new();
	struct one *huge = add(rig, 1), *other = add(rig, 2);

	g_assert_true(begin_hung(rig, huge));
	g_assert_true(begin_hung(rig, other));
	g_assert_true(jobs_take_memory(&rig->jobs, &huge->job, 2 * ALL_BYTES));
	g_assert_false(jobs_take_memory(&rig->jobs, &other->job, MIB));
	end(rig, other);
	g_assert_false(begin_hung(rig, other));
	end(rig, huge);
	g_assert_true(begin_hung(rig, other));
	g_assert_true(jobs_take_memory(&rig->jobs, &other->job, MIB));
	rig_free(rig);
}

static bool is_stuck(const struct one *one)
{
	struct cache_dirty dirty;

	cache_layer_get_dirty(one->leaf.cached, &dirty);
	return dirty.stuck;
}

/* Also where the job came to nothing that anybody has noted. */
static void test_a_hang_that_is_over(void)
{
	struct cache_layer_key key = {.stamp = 1, .size_bytes = MIB, .name = "disk", .identity = "1"};
	g_autofree char *path = new_path();
	struct rig *rig = rig_new();
	struct one *one = add(rig, 1);
	uint64_t generation = 1;
	int result;

	rig->pool_cache.cache = open_cache(path, SMALL);
	one->leaf.cached = cache_layer_open_dirty(rig->pool_cache.cache, &key, &generation, NULL, &result);
	g_assert_nonnull(one->leaf.cached);
	one->leaf.share = SHARE_DIRTY;
	for (unsigned failures = 0; failures < 2; failures++) {
		one->leaf.backlog.failures = failures;
		g_assert_true(begin_hung(rig, one));
		jobs_note_hanging(&rig->jobs, &rig->look);
		g_assert_true(is_stuck(one));
		end(rig, one);
		g_assert_cmpint(is_stuck(one), ==, failures > 0);
	}
	cache_layer_close(one->leaf.cached, 0);
	g_assert_cmpint(cache_close(rig->pool_cache.cache), ==, 0);
	rig_free(rig);
}

int main(int argc, char **argv)
{
	int result;

	g_test_init(&argc, &argv, NULL);
	make_directory();
	g_test_add_func("/jobs/large-batches", test_large_batches);
	g_test_add_func("/jobs/offers", test_offers);
	g_test_add_func("/jobs/who-waits", test_who_waits);
	g_test_add_func("/jobs/a-hang-that-is-over", test_a_hang_that_is_over);
	result = g_test_run();
	remove_directory();
	return result;
}
