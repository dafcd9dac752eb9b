/* Looks at what is known of a pool's images, for those at what is new alone.
 *
 * A look at what is new in the directory takes over what is known of all else. A thread checks
 * that soon after, and lasts as long as something is unchecked. It asks the store without
 * `scanning`, so it is in nobody's way, and takes the answers of what nobody has looked at
 * meanwhile. PAUSE_NS after the first look one check is made for all that came since; where
 * checks take long they keep the store busy for one part in COST. */
#include "recheck.h"

#include "core/log.h"
#include "core/loop.h"
#include "core/thread.h"
#include "core/time.h"
#include "refresh.h"

#define PAUSE_NS NS_PER_S
#define COST 10

/* ---- One check ---------------------------------------------------------------- */

/* What was to be checked, and when. */
struct check {
	GPtrArray *items;
	struct look_time time;
	uint64_t look; /* at what is new */
};

/* False: there is nothing to be asked. What was listed while the directory's time was not settled is
 * listed again. */
static bool begin(struct disk_pool *pool, struct check *check)
{
	g_autoptr(GError) error = NULL;

	LOCK_GUARD(&pool->scanning);
	if (!pool->unchecked)
		return false;
	if (pool_look_is_due_locked(pool, SCAN_NEW, &error))
		(void)pool_look_locked(pool, SCAN_NEW, &error);
	if (error) {
		log_warning_limited(pool_place(pool)->path, "look", "%s", error->message);
		return false;
	}
	check->time = pool->looked[SCAN_NEW];
	check->look = pool->unchecked;
	check->items = scan_begin_check(pool->known);
	return true;
}

static void note_checked_locked(struct disk_pool *pool, const struct check *check)
{
	lock_assert_mine(&pool->scanning);
	if (pool->unchecked != check->look)
		return;
	pool->looked[SCAN_ALL] = check->time;
	pool->unchecked = 0;
}

static void end(struct disk_pool *pool, const struct check *check)
{
	struct scan_result *result = NULL;
	g_autoptr(GError) error = NULL;

	LOCK_GUARD(&pool->scanning);
	if (scan_end_check(&pool->options, pool->roots, pool->known, check->items, &result, &error))
		note_checked_locked(pool, check);
	else
		log_warning_limited(pool_place(pool)->path, "look", "%s", error->message);
	if (result)
		pool_show_locked(pool, result);
}

static void check_all(struct disk_pool *pool)
{
	struct check check;

	if (!begin(pool, &check))
		return;
	scan_check(check.items, pool->roots, pool->known);
	end(pool, &check);
	g_ptr_array_unref(check.items);
}

/* ---- The thread --------------------------------------------------------------- */

/* False: the thread is to end. */
static bool pause_relock(struct disk_pool *pool)
{
	uint64_t until_ns = loop_now_ns() + MAX(PAUSE_NS, pool->recheck.pause_ns);

	lock_assert_mine(&pool->lock);
	while (!pool->recheck.stop && lock_wait_until(&pool->lock, &pool->recheck.changed, until_ns))
		;
	return !pool->recheck.stop;
}

static void *check_main(void *opaque)
{
	struct disk_pool *pool = opaque;

	LOCK_GUARD(&pool->lock);
	while (pool->recheck.wanted && pause_relock(pool)) {
		uint64_t begun_ns = loop_now_ns();

		pool->recheck.wanted = false;
		lock_let_go(&pool->lock);
		check_all(pool);
		lock_take(&pool->lock);
		pool->recheck.pause_ns = COST * (loop_now_ns() - begun_ns);
	}
	pool->recheck.running = false;
	condition_broadcast(&pool->recheck.changed);
	return NULL;
}

/* Where no thread is to be had, the next look wants one again. */
void pool_recheck_locked(struct disk_pool *pool)
{
	lock_assert_mine(&pool->scanning);
	if (!pool->unchecked)
		return;
	LOCK_GUARD(&pool->lock);
	pool->recheck.wanted = true;
	if (!pool->recheck.running && !pool->recheck.stop)
		pool->recheck.running = thread_spawn(NULL, "leafdisk-check", THREAD_WAITER, check_main, pool) == 0;
}

void pool_stop_rechecking(struct disk_pool *pool)
{
	LOCK_GUARD(&pool->lock);
	pool->recheck.stop = true;
	condition_broadcast(&pool->recheck.changed);
	while (pool->recheck.running)
		lock_wait(&pool->lock, &pool->recheck.changed);
}
