/* Locks: guards, conditions, and that a wrong order ends the tests' program. */
#include "core/lock.h"

#include "core/loop.h"
#include "core/thread.h"

static struct lock plain = LOCK_INIT(LOCK_RANK_OPEN);
static struct condition changed = CONDITION_INIT;

/* ---- What every build has --------------------------------------------------- */

static bool is_free(struct lock *lock)
{
	bool was_free = lock_try(lock);

	if (was_free)
		lock_let_go(lock);
	return was_free;
}

static void *try_main(void *opaque)
{
	return GINT_TO_POINTER(is_free(opaque));
}

static bool is_free_for_another(struct lock *lock)
{
	pthread_t thread;
	void *was_free;

	g_assert_cmpint(thread_spawn(&thread, "try", THREAD_OTHER, try_main, lock), ==, 0);
	pthread_join(thread, &was_free);
	return GPOINTER_TO_INT(was_free);
}

static bool returns_early(bool early)
{
	LOCK_GUARD(&plain);
	if (early)
		return is_free_for_another(&plain);
	return is_free_for_another(&plain);
}

static void test_guard(void)
{
	g_assert_false(returns_early(true));
	g_assert_true(is_free_for_another(&plain));
	g_assert_false(returns_early(false));
	g_assert_true(is_free_for_another(&plain));
	for (unsigned i = 0; i < 2; i++) {
		LOCK_GUARD(&plain);
		g_assert_false(is_free_for_another(&plain));
		if (i == 0)
			continue;
		break;
	}
	g_assert_true(is_free_for_another(&plain));
}

static unsigned turn;

static void *turn_main(void *opaque)
{
	(void)opaque;
	LOCK_GUARD(&plain);
	turn++;
	condition_broadcast(&changed);
	while (turn < 2)
		lock_wait(&plain, &changed);
	turn++;
	condition_signal(&changed);
	return NULL;
}

static void test_conditions(void)
{
	pthread_t thread;

	g_assert_cmpint(thread_spawn(&thread, "turn", THREAD_OTHER, turn_main, NULL), ==, 0);
	lock_take(&plain);
	while (turn < 1)
		lock_wait(&plain, &changed);
	turn++;
	condition_signal(&changed);
	while (turn < 3)
		g_assert_true(lock_wait_until(&plain, &changed, UINT64_MAX));
	lock_let_go(&plain);
	pthread_join(thread, NULL);
}

static void test_a_wait_ends(void)
{
	uint64_t until_ns = loop_now_ns() + 20 * NS_PER_MS;

	LOCK_GUARD(&plain);
	while (lock_wait_until(&plain, &changed, until_ns))
		;
	g_assert_cmpuint(loop_now_ns(), >=, until_ns);
	g_assert_false(lock_wait_until(&plain, &changed, 0));
}

/* ---- The order --------------------------------------------------------------- */

#ifdef LEAFDISK_FAULTS

static struct lock open_lock = LOCK_INIT(LOCK_RANK_OPEN);
static struct lock cache_lock = LOCK_INIT(LOCK_RANK_CACHE);
static struct lock leaf_lock = LOCK_INIT(LOCK_RANK_LEAF);
static struct lock other_leaf_lock = LOCK_INIT(LOCK_RANK_LEAF);

static void test_in_order(void)
{
	lock_take(&open_lock);
	lock_take(&leaf_lock);
	lock_take(&cache_lock);
	g_assert_true(lock_is_mine(&open_lock) && lock_is_mine(&leaf_lock) && lock_is_mine(&cache_lock));
	lock_let_go(&leaf_lock);
	g_assert_false(lock_is_mine(&leaf_lock));
	lock_let_go(&open_lock);
	lock_let_go(&cache_lock);
	lock_take(&leaf_lock);
	lock_let_go(&leaf_lock);
}

/* It does not wait, so that it cannot be part of a circle. */
static void test_a_try_is_free(void)
{
	LOCK_GUARD(&cache_lock);
	g_assert_true(lock_try(&leaf_lock));
	g_assert_true(lock_is_mine(&leaf_lock));
	lock_let_go(&leaf_lock);
}

/* Across I/O, and across waits. */
static void test_a_long_one_is_held_while_another_waits(void)
{
	LOCK_GUARD(&open_lock);
	LOCK_GUARD(&cache_lock);
	g_assert_false(lock_wait_until(&cache_lock, &changed, 0));
}

static void take_in_wrong_order(void)
{
	lock_take(&cache_lock);
	lock_take(&leaf_lock);
}

static void take_another_of_the_rank(void)
{
	lock_take(&leaf_lock);
	lock_take(&other_leaf_lock);
}

static void take_twice(void)
{
	lock_take(&leaf_lock);
	lock_take(&leaf_lock);
}

static void take_before_one_that_was_tried(void)
{
	g_assert_true(lock_try(&cache_lock));
	lock_take(&leaf_lock);
}

static void take_what_has_no_rank(void)
{
	static struct lock blank;

	lock_take(&blank);
}

static void take_a_long_one_on_a_loop(void)
{
	thread_become(THREAD_LOOP);
	lock_take(&open_lock);
}

static void wait_with_another_held(void)
{
	lock_take(&leaf_lock);
	lock_take(&cache_lock);
	lock_wait_until(&cache_lock, &changed, 0);
}

static void wait_without_the_lock(void)
{
	lock_wait_until(&cache_lock, &changed, 0);
}

static void let_go_of_what_is_not_held(void)
{
	lock_let_go(&cache_lock);
}

static const struct wrong {
	const char *name;
	void (*act)(void);
	const char *complaint;
} wrongs[] = {
	{"order", take_in_wrong_order, "*lock order: LEAF is taken with CACHE held*"},
	{"another-of-the-rank", take_another_of_the_rank, "*lock order: LEAF is taken with LEAF held*"},
	{"twice", take_twice, "*lock order: LEAF is taken with LEAF held*"},
	{"before-a-tried-one", take_before_one_that_was_tried, "*lock order: LEAF is taken with CACHE held*"},
	{"without-a-rank", take_what_has_no_rank, "*lock order: a lock without a rank is taken*"},
	{"long-on-a-loop", take_a_long_one_on_a_loop, "*thread_may_wait*"},
	{"wait-with-another", wait_with_another_held, "*lock order: CACHE waits with LEAF held*"},
	{"wait-without", wait_without_the_lock, "*lock_is_mine*"},
	{"let-go-without", let_go_of_what_is_not_held, "*lock_is_mine*"},
};

static void test_wrong(gconstpointer opaque)
{
	const struct wrong *wrong = opaque;

	if (g_test_subprocess()) {
		wrong->act();
		return;
	}
	g_test_trap_subprocess(NULL, 0, G_TEST_SUBPROCESS_DEFAULT);
	g_test_trap_assert_failed();
	g_test_trap_assert_stderr(wrong->complaint);
}

static void add_order_tests(void)
{
	g_test_add_func("/lock/order/kept", test_in_order);
	g_test_add_func("/lock/order/a-try-is-free", test_a_try_is_free);
	g_test_add_func("/lock/order/long-while-another-waits", test_a_long_one_is_held_while_another_waits);
	for (unsigned i = 0; i < G_N_ELEMENTS(wrongs); i++) {
		g_autofree char *path = g_strconcat("/lock/wrong/", wrongs[i].name, NULL);

		g_test_add_data_func(path, &wrongs[i], test_wrong);
	}
}

#endif

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/lock/guard", test_guard);
	g_test_add_func("/lock/conditions", test_conditions);
	g_test_add_func("/lock/a-wait-ends", test_a_wait_ends);
#ifdef LEAFDISK_FAULTS
	add_order_tests();
#endif
	return g_test_run();
}
