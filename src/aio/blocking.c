/* Loops with a queue, for code that waits on its own thread.
 *
 * What its queue cannot do in the kernel, and what a driver hands out, is done on
 * that thread: nobody who waits here needs a thread of the steps.
 *
 * They are kept for the next user: taking a kernel context down waits for a
 * grace period of the kernel, tens of milliseconds. A child of fork() has the
 * memory of its parent's, but not their contexts, and lets them be. */
#include "aio/blocking.h"

#include <glib.h>
#include <unistd.h>

#include "core/lock.h"

/* One file alone gets half of it. */
#define QUEUE_DEPTH 128

/* Contexts are the machine's (fs.aio-max-nr), and each loop has three of the process's
 * descriptors: what a burst made is given back. */
#define IDLE_MAX 16
#define IDLE_SHARE 64 /* one for so many descriptors that the process may have */

static struct lock lock = LOCK_INIT(LOCK_RANK_IDLE);
static struct list idle = LIST_INIT(idle);
static unsigned idle_count;

static struct blocking_loop *blocking_loop_new(void)
{
	struct aio_limits limits = {.depth = QUEUE_DEPTH};
	struct blocking_loop *blocking = g_new0(struct blocking_loop, 1);

	blocking->process = getpid();
	blocking->loop = loop_new(NULL);
	if (blocking->loop)
		loop_run_steps_here(blocking->loop);
	blocking->queue = blocking->loop ? aio_queue_new(blocking->loop, &limits, NULL) : NULL;
	if (blocking->queue)
		return blocking;
	loop_free(blocking->loop);
	g_free(blocking);
	return NULL;
}

struct blocking_loop *blocking_loop_get(void)
{
	struct list *node;

	lock_take(&lock);
	do {
		node = list_pop(&idle);
		idle_count -= node != NULL;
	} while (node && container_of(node, struct blocking_loop, link)->process != getpid());
	lock_let_go(&lock);
	return node ? container_of(node, struct blocking_loop, link) : blocking_loop_new();
}

static void blocking_loop_free(struct blocking_loop *blocking)
{
	aio_queue_free(blocking->queue);
	loop_free(blocking->loop);
	g_free(blocking);
}

static unsigned idle_max(void)
{
	long descriptors = sysconf(_SC_OPEN_MAX);

	return descriptors < 0 ? IDLE_MAX : (unsigned)CLAMP(descriptors / IDLE_SHARE, 1, IDLE_MAX);
}

void blocking_loop_put(struct blocking_loop *blocking)
{
	bool keep;

	lock_take(&lock);
	keep = idle_count < idle_max();
	if (keep) {
		list_prepend(&idle, &blocking->link);
		idle_count++;
	}
	lock_let_go(&lock);
	if (!keep)
		blocking_loop_free(blocking);
}
