/* The background threads behind loop_offload().
 *
 * One queue, first in first out, linked through the work's own task (which is
 * on no other list until the work is done), and up to WORKERS_MAX threads that
 * start on demand and stay. A thread is `idle` from the moment it looks for
 * work until it has taken some: with no more queued than idle nobody waits for
 * want of a thread. The threads take no signals: those belong to the main
 * thread. POSIX locks, not GLib's: the thread sanitizer understands them. */
#include "workers.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>

#include "core/log.h"

#define WORKERS_MAX 8

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t more = PTHREAD_COND_INITIALIZER;
static struct loop_task *queue_head;
static struct loop_task **queue_tail = &queue_head;
static unsigned queued;
static unsigned idle;
static unsigned threads;

static void push_locked(struct loop_work *work)
{
	work->task.next = NULL;
	*queue_tail = &work->task;
	queue_tail = &work->task.next;
	queued++;
}

static struct loop_work *pop_locked(void)
{
	struct loop_task *task = queue_head;

	if (!task)
		return NULL;
	queue_head = task->next;
	if (!queue_head)
		queue_tail = &queue_head;
	queued--;
	return container_of(task, struct loop_work, task);
}

/* The work belongs to its loop from the post on, which may free it. */
static void run_work(struct loop_work *work)
{
	work->work(work);
	loop_post(work->loop, &work->task);
}

static void *worker_main(void *unused)
{
	(void)unused;
	pthread_setname_np(pthread_self(), "leafdisk-work");
	for (;;) {
		struct loop_work *work;

		pthread_mutex_lock(&lock);
		idle++;
		while (!(work = pop_locked()))
			pthread_cond_wait(&more, &lock);
		idle--;
		pthread_mutex_unlock(&lock);
		run_work(work);
	}
	return NULL;
}

static int create_thread(void)
{
	sigset_t all;
	sigset_t saved;
	pthread_attr_t attributes;
	pthread_t thread;
	int result;

	sigfillset(&all);
	pthread_attr_init(&attributes);
	pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	pthread_sigmask(SIG_SETMASK, &all, &saved);
	result = pthread_create(&thread, &attributes, worker_main, NULL);
	pthread_sigmask(SIG_SETMASK, &saved, NULL);
	pthread_attr_destroy(&attributes);
	return result;
}

static void run_queue_here(void)
{
	struct loop_work *work;

	do {
		pthread_mutex_lock(&lock);
		work = pop_locked();
		pthread_mutex_unlock(&lock);
		if (work)
			run_work(work);
	} while (work);
}

/* `threads` counts the new one already. When others exist they do its share. */
static void start_thread(void)
{
	static atomic_flag warned = ATOMIC_FLAG_INIT;
	bool alone;
	int errnum = create_thread();

	if (errnum == 0)
		return;
	if (!atomic_flag_test_and_set(&warned))
		log_warning("cannot start a background thread: %s; going on with fewer", g_strerror(errnum));
	pthread_mutex_lock(&lock);
	alone = --threads == 0;
	pthread_mutex_unlock(&lock);
	if (alone)
		run_queue_here();
}

void workers_submit(struct loop_work *work)
{
	bool start;

	pthread_mutex_lock(&lock);
	push_locked(work);
	start = queued > idle && threads < WORKERS_MAX;
	if (start)
		threads++;
	pthread_cond_signal(&more);
	pthread_mutex_unlock(&lock);
	if (start)
		start_thread();
}
