/* Background work: loop_offload_step(), loop_offload_wait(), and the threads behind them.
 *
 * Two kinds, each with one queue of what may begin, first in first out:
 *
 *     steps     STEPS threads: a step waits for the kernel alone, so with all of
 *               them occupied the rest waits its turn
 *     waiters   as many as there is work, as each may wait for another's end
 *
 * A file that hangs must not take the threads that others need for their steps. So
 *   1. how many steps of a file run depends on how many more of its store could
 *      (core/shares.h): one file alone has half of STEPS;
 *   2. while steps wait, a thread that has been in one for STUCK_NS counts no more,
 *      and the pool may have another for it: whatever hangs, there are STEPS threads
 *      besides;
 *   3. up to THREADS_MAX, of which a store that hangs with all its files has half at most.
 * The watch, a thread that lives while steps wait, does the second.
 *
 * Threads beyond STEPS, and all waiters but one, end when they find nothing to do
 * for IDLE_NS. With as many threads as slots are held nobody waits for want of one.
 *
 * Where the kernel gives no more threads, work waits in the queue for one of
 * those that exist, and every submission asks the kernel again. For steps that
 * is as ever. Waiters then take work in the order that it came in, so whoever
 * waits for work that was submitted before his own waits for what is running.
 */
#include "core/workers.h"

#include <limits.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

#include "core/error.h"
#include "core/fault.h"
#include "core/lock.h"
#include "core/log.h"
#include "core/loop.h"
#include "core/shares.h"
#include "core/thread.h"
#include "core/time.h"

#define STEPS 15
#define THREADS_MAX 256
#define STUCK_NS (50 * NS_PER_MS)
#define IDLE_NS (10 * NS_PER_S)

struct workers {
	const char *name;
	enum thread_kind kind;
	unsigned keep; /* threads that stay */
	struct lock lock;
	struct condition more;
	struct shares shares; /* as many as threads may be, and of steps those of a store */
	struct list queue;    /* what has a slot, and no thread yet */
	struct list busy;     /* threads, in the order in which they began their work */
	enum { WATCH_NONE, WATCH_STARTING, WATCH_SLEEPS, WATCH_TICKS } watch;
	struct condition waits; /* for the watch, when it sleeps */
	unsigned threads;
	unsigned starting; /* asked of the kernel, and not counted yet */
	atomic_flag warned;
};

static uint64_t store_of(const void *file)
{
	return file ? ((const struct loop_file *)file)->store : 0;
}

static struct workers steps = {
	.name = "leafdisk-step",
	.kind = THREAD_STEP,
	.keep = STEPS,
	.lock = LOCK_INIT(LOCK_RANK_WORKERS),
	.more = CONDITION_INIT,
	.shares = SHARES_INIT_GROUPS(steps.shares, THREADS_MAX, STEPS, store_of),
	.queue = LIST_INIT(steps.queue),
	.busy = LIST_INIT(steps.busy),
	.waits = CONDITION_INIT,
	.warned = ATOMIC_FLAG_INIT,
};

static struct workers waiters = {
	.name = "leafdisk-wait",
	.kind = THREAD_WAITER,
	.keep = 1,
	.lock = LOCK_INIT(LOCK_RANK_WORKERS),
	.more = CONDITION_INIT,
	.shares = SHARES_INIT(waiters.shares, UINT_MAX),
	.queue = LIST_INIT(waiters.queue),
	.busy = LIST_INIT(waiters.busy),
	.waits = CONDITION_INIT,
	.warned = ATOMIC_FLAG_INIT,
};

/* A thread that is in a work. */
struct worker {
	struct list link;
	uint64_t since_ns;
	bool stuck;
};

/* WORK may begin: it has a slot, and waits for a thread. */
static void admit_locked(struct workers *workers, struct loop_work *work)
{
	lock_assert_mine(&workers->lock);
	work->share = shares_take(&workers->shares, work->file);
	list_append(&workers->queue, &work->link);
	condition_signal(&workers->more);
}

static void admit_waiting_locked(struct workers *workers)
{
	const void *file;
	struct list *node;

	lock_assert_mine(&workers->lock);
	while ((node = shares_next(&workers->shares, &file)))
		admit_locked(workers, container_of(node, struct loop_work, link));
}

/* True: nothing came for a while, and there are threads enough. One that runs
 * before it is counted waits for longer. */
static bool is_spare_relock(struct workers *workers)
{
	lock_assert_mine(&workers->lock);
	if (workers->threads <= workers->keep) {
		lock_wait(&workers->lock, &workers->more);
		return false;
	}
	return !lock_wait_until(&workers->lock, &workers->more, loop_now_ns() + IDLE_NS) &&
	       list_is_empty(&workers->queue) && workers->threads > workers->keep;
}

static void finish_locked(struct workers *workers, struct worker *worker, struct share *share)
{
	lock_assert_mine(&workers->lock);
	list_remove(&worker->link);
	workers->shares.group_slots -= worker->stuck;
	worker->stuck = false;
	shares_put(&workers->shares, share);
	admit_waiting_locked(workers);
}

static struct loop_work *begin_locked(struct workers *workers, struct worker *worker, struct list *node)
{
	lock_assert_mine(&workers->lock);
	worker->since_ns = loop_now_ns();
	list_append(&workers->busy, &worker->link);
	return container_of(node, struct loop_work, link);
}

/* Whether another thread is wanted, which `starting` then counts. */
static bool wants_thread_locked(struct workers *workers)
{
	lock_assert_mine(&workers->lock);
	if (workers->shares.held <= workers->threads + workers->starting)
		return false;
	workers->starting++;
	return true;
}

static void *worker_main(void *opaque);

static int spawn(struct workers *workers, const char *name, void *(*main)(void *opaque))
{
	int result = fault_hit("workers.thread", name);

	if (result == 0)
		result = thread_spawn(NULL, name, workers->kind, main, workers);
	if (result < 0 && !atomic_flag_test_and_set(&workers->warned))
		log_warning("cannot start a background thread: %s; going on with fewer", g_strerror(-result));
	return result;
}

static int create_thread(struct workers *workers)
{
	return spawn(workers, workers->name, worker_main);
}

/* The first is made under the lock: once there is one there always is. */
static int ensure_locked(struct workers *workers)
{
	int result = workers->threads ? 0 : create_thread(workers);

	lock_assert_mine(&workers->lock);
	if (workers->threads == 0 && result == 0)
		workers->threads = 1;
	return result;
}

/* Makes sure that one thread exists. 0 or a negative errno. */
static int ensure(struct workers *workers)
{
	LOCK_GUARD(&workers->lock);
	return ensure_locked(workers);
}

/* `starting` counts the new one already. */
static void start_another(struct workers *workers)
{
	int result = create_thread(workers);

	LOCK_GUARD(&workers->lock);
	workers->starting--;
	workers->threads += result == 0;
}

/* The next work; SHARE is the last one's, or NULL. NULL: the thread is to end, and
 * is counted no more. */
static struct loop_work *take(struct workers *workers, struct worker *worker, struct share *share)
{
	struct loop_work *work = NULL;
	struct list *node;
	bool spare = false, start;

	lock_take(&workers->lock);
	if (share)
		finish_locked(workers, worker, share);
	while (!(node = list_pop(&workers->queue)) && !spare)
		spare = is_spare_relock(workers);
	if (node)
		work = begin_locked(workers, worker, node);
	else
		workers->threads--;
	start = wants_thread_locked(workers);
	lock_let_go(&workers->lock);
	if (start)
		start_another(workers);
	return work;
}

/* The work belongs to its loop from the post on, which may free it. Without a
 * loop it is nobody's once it runs. */
static void *worker_main(void *opaque)
{
	struct workers *workers = opaque;
	struct worker self = {.link = LIST_INIT(self.link)};
	struct share *share = NULL;
	struct loop_work *work;

	while ((work = take(workers, &self, share))) {
		struct loop *loop = work->loop;

		share = work->share;
		work->work(work);
		if (loop)
			loop_post(loop, &work->task);
	}
	return NULL;
}

/* Threads that have been in one step for long count no more. */
static void find_stuck_locked(struct workers *workers)
{
	uint64_t before_ns = loop_now_ns() - STUCK_NS;

	lock_assert_mine(&workers->lock);
	list_foreach(node, &workers->busy)
	{
		struct worker *worker = container_of(node, struct worker, link);

		if (worker->since_ns > before_ns || workers->shares.group_slots >= THREADS_MAX)
			return;
		if (worker->stuck)
			continue;
		worker->stuck = true;
		workers->shares.group_slots++;
	}
}

/* Waits: for the next look while steps wait, else until some do. False: none have for a while. */
static bool watch_wait_relock(struct workers *workers)
{
	bool waits = shares_somebody_waits(&workers->shares);

	lock_assert_mine(&workers->lock);
	workers->watch = waits ? WATCH_TICKS : WATCH_SLEEPS;
	return lock_wait_until(&workers->lock, &workers->waits, loop_now_ns() + (waits ? STUCK_NS : IDLE_NS)) ||
	       waits || shares_somebody_waits(&workers->shares);
}

static void *watch_main(void *opaque)
{
	struct workers *workers = opaque;

	lock_take(&workers->lock);
	while (watch_wait_relock(workers)) {
		if (!shares_somebody_waits(&workers->shares))
			continue;
		find_stuck_locked(workers);
		admit_waiting_locked(workers);
		while (wants_thread_locked(workers)) {
			lock_let_go(&workers->lock);
			start_another(workers);
			lock_take(&workers->lock);
		}
	}
	workers->watch = WATCH_NONE;
	lock_let_go(&workers->lock);
	return NULL;
}

/* WORK cannot begin yet. True: nobody watches, and who asked starts the watch. */
static bool wait_locked(struct workers *workers, struct loop_work *work)
{
	bool none = workers->watch == WATCH_NONE;

	lock_assert_mine(&workers->lock);
	shares_wait(&workers->shares, work->file, &work->link);
	if (workers->watch == WATCH_SLEEPS)
		condition_signal(&workers->waits);
	if (none)
		workers->watch = WATCH_STARTING;
	return none;
}

/* Without a watch a step still has its turn when another ends; the next that
 * waits asks again. */
static void start_watch(struct workers *workers)
{
	if (spawn(workers, "leafdisk-watch", watch_main) == 0)
		return;
	LOCK_GUARD(&workers->lock);
	workers->watch = WATCH_NONE;
}

/* Queues WORK, whose loop is set: its work() runs on a background thread, then
 * its task is posted to its loop, if that is not NULL. False, and nothing is queued: there is no
 * thread, and none can be had. Never blocks; allocates next to nothing, and only
 * to start a thread. */
static bool submit(struct workers *workers, struct loop_work *work)
{
	bool watch = false, start;

	lock_take(&workers->lock);
	if (ensure_locked(workers) < 0) {
		lock_let_go(&workers->lock);
		return false;
	}
	if (shares_may_begin(&workers->shares, work->file))
		admit_locked(workers, work);
	else
		watch = wait_locked(workers, work);
	start = wants_thread_locked(workers);
	lock_let_go(&workers->lock);
	if (start)
		start_another(workers);
	if (watch)
		start_watch(workers);
	return true;
}

static void work_done(struct loop_task *task)
{
	struct loop_work *work = container_of(task, struct loop_work, task);

	work->done(work);
}

/* On a thread that may block, in a turn of its own: whoever handed it out may
 * have held a lock. */
static void work_here(struct loop_task *task)
{
	struct loop_work *work = container_of(task, struct loop_work, task);

	work->work(work);
	work->done(work);
}

/* No thread at all is to be had only in a program that did not make sure of
 * one: it has no loop that must not block. */
static void offload(struct workers *workers, struct loop *loop, struct loop_work *work)
{
	work->loop = loop;
	work->task.run = work_done;
	if (workers && submit(workers, work))
		return;
	g_assert(thread_may_block());
	work->task.run = work_here;
	loop_post(loop, &work->task);
}

void loop_offload_step(struct loop *loop, struct loop_work *work)
{
	offload(loop_runs_steps_here(loop) ? NULL : &steps, loop, work);
}

void loop_offload_wait(struct loop *loop, struct loop_work *work)
{
	work->file = NULL; /* there is a thread for each */
	offload(&waiters, loop, work);
}

static void offload_apart(struct workers *workers, struct loop_work *work)
{
	work->loop = NULL;
	if (submit(workers, work))
		return;
	g_assert(thread_may_block());
	work->work(work);
}

void loop_offload_step_apart(struct loop_work *work)
{
	offload_apart(&steps, work);
}

void loop_offload_wait_apart(struct loop_work *work)
{
	work->file = NULL;
	offload_apart(&waiters, work);
}

bool loop_start_workers(GError **error)
{
	int result = ensure(&steps);

	if (result == 0)
		result = ensure(&waiters);
	return result == 0 || error_set_errno(error, -result, "cannot start a background thread");
}
