/* Loops with a queue, for code that waits on its own thread.
 *
 * They are kept for the next user: taking a kernel context down waits for a
 * grace period of the kernel, tens of milliseconds. A child of fork() has the
 * memory of its parent's, but not their contexts, and lets them be. */
#include "aio/blocking.h"

#include <glib.h>
#include <unistd.h>

#define QUEUE_DEPTH 64

static GMutex lock;
static struct list idle = LIST_INIT(idle);

static struct blocking_loop *blocking_loop_new(void)
{
	struct aio_limits limits = {.depth = QUEUE_DEPTH};
	struct blocking_loop *blocking = g_new0(struct blocking_loop, 1);

	blocking->process = getpid();
	blocking->loop = loop_new(NULL);
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

	g_mutex_lock(&lock);
	do
		node = list_pop(&idle);
	while (node && container_of(node, struct blocking_loop, link)->process != getpid());
	g_mutex_unlock(&lock);
	return node ? container_of(node, struct blocking_loop, link) : blocking_loop_new();
}

void blocking_loop_put(struct blocking_loop *blocking)
{
	g_mutex_lock(&lock);
	list_prepend(&idle, &blocking->link);
	g_mutex_unlock(&lock);
}
