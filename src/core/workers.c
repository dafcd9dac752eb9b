/* Background work: loop_offload_step(), loop_offload_wait(), and the threads behind them.
 *
 * Two kinds, each with one queue, first in first out, linked through the work's
 * own task (which is on no other list until the work is done):
 *
 *     steps     up to STEPS_MAX threads, which stay: a step waits for the
 *               kernel alone, so with all of them occupied the rest waits its
 *               turn
 *     waiters   as many as there is work, as each may wait for another's end;
 *               those that find nothing to do for IDLE_SECONDS end, all but one
 *
 * A thread is `idle` from the moment it looks for work until it has taken some:
 * with no more queued than idle nobody waits for want of a thread.
 *
 * Where the kernel gives no more threads, work waits in the queue for one of
 * those that exist, and every submission asks the kernel again. For steps that
 * is as ever. Waiters then take work in the order that it came in, so whoever
 * waits for work that was submitted before his own waits for what is running.
 *
 * POSIX locks, not GLib's: the thread sanitizer understands them. */
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
#include "core/thread.h"

#define STEPS_MAX 8
#define IDLE_SECONDS 10

struct workers {
	const char *name;
	enum thread_kind kind;
	unsigned threads_max;
	struct lock lock;
	pthread_cond_t more;
	struct loop_task *head;
	struct loop_task **tail;
	unsigned queued;
	unsigned idle;
	unsigned threads;
	unsigned starting; /* asked of the kernel, and not counted yet */
	atomic_flag warned;
};

static struct workers steps = {
	.name = "leafdisk-step",
	.kind = THREAD_STEP,
	.threads_max = STEPS_MAX,
	.lock = LOCK_INIT,
	.more = PTHREAD_COND_INITIALIZER,
	.tail = &steps.head,
	.warned = ATOMIC_FLAG_INIT,
};

static struct workers waiters = {
	.name = "leafdisk-wait",
	.kind = THREAD_WAITER,
	.threads_max = UINT_MAX,
	.lock = LOCK_INIT,
	.more = PTHREAD_COND_INITIALIZER,
	.tail = &waiters.head,
	.warned = ATOMIC_FLAG_INIT,
};

static void push_locked(struct workers *workers, struct loop_work *work)
{
	lock_assert_mine(&workers->lock);
	work->task.next = NULL;
	*workers->tail = &work->task;
	workers->tail = &work->task.next;
	workers->queued++;
}

static struct loop_work *pop_locked(struct workers *workers)
{
	struct loop_task *task = workers->head;

	lock_assert_mine(&workers->lock);
	if (!task)
		return NULL;
	workers->head = task->next;
	if (!workers->head)
		workers->tail = &workers->head;
	workers->queued--;
	return container_of(task, struct loop_work, task);
}

/* True: nothing came for a while, and there is another thread. One that runs
 * before it is counted waits for longer. */
static bool is_spare_relock(struct workers *workers)
{
	struct timespec until;

	lock_assert_mine(&workers->lock);
	if (workers->threads_max != UINT_MAX || workers->threads <= 1) {
		lock_wait(&workers->lock, &workers->more);
		return false;
	}
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += IDLE_SECONDS;
	return lock_wait_until(&workers->lock, &workers->more, &until) != 0 && !workers->head && workers->threads > 1;
}

/* NULL: the thread is to end, and is counted no more. */
static struct loop_work *take(struct workers *workers)
{
	struct loop_work *work;
	bool spare = false;

	lock_take(&workers->lock);
	workers->idle++;
	while (!(work = pop_locked(workers)) && !spare)
		spare = is_spare_relock(workers);
	workers->idle--;
	if (!work)
		workers->threads--;
	lock_let_go(&workers->lock);
	return work;
}

/* The work belongs to its loop from the post on, which may free it. Without a
 * loop it is nobody's once it runs. */
static void *worker_main(void *opaque)
{
	struct workers *workers = opaque;
	struct loop_work *work;

	while ((work = take(workers))) {
		struct loop *loop = work->loop;

		work->work(work);
		if (loop)
			loop_post(loop, &work->task);
	}
	return NULL;
}

static int create_thread(struct workers *workers)
{
	int result = fault_hit("workers.thread", workers->name);

	if (result == 0)
		result = thread_spawn(NULL, workers->name, workers->kind, worker_main, workers);
	if (result < 0 && !atomic_flag_test_and_set(&workers->warned))
		log_warning("cannot start a background thread: %s; going on with fewer", g_strerror(-result));
	return result;
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
	int result;

	lock_take(&workers->lock);
	result = ensure_locked(workers);
	lock_let_go(&workers->lock);
	return result;
}

/* `starting` counts the new one already. */
static void start_another(struct workers *workers)
{
	int result = create_thread(workers);

	lock_take(&workers->lock);
	workers->starting--;
	workers->threads += result == 0;
	lock_let_go(&workers->lock);
}

/* Queues WORK, whose loop is set: its work() runs on a background thread, then
 * its task is posted to its loop, if that is not NULL. False, and nothing is queued: there is no
 * thread, and none can be had. Never blocks; allocates next to nothing, and only
 * to start a thread. */
static bool submit(struct workers *workers, struct loop_work *work)
{
	bool start;

	lock_take(&workers->lock);
	if (ensure_locked(workers) < 0) {
		lock_let_go(&workers->lock);
		return false;
	}
	push_locked(workers, work);
	start = workers->queued > workers->idle + workers->starting &&
		workers->threads + workers->starting < workers->threads_max;
	workers->starting += start;
	pthread_cond_signal(&workers->more);
	lock_let_go(&workers->lock);
	if (start)
		start_another(workers);
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
	offload_apart(&waiters, work);
}

bool loop_start_workers(GError **error)
{
	int result = ensure(&steps);

	if (result == 0)
		result = ensure(&waiters);
	return result == 0 || error_set_errno(error, -result, "cannot start a background thread");
}
