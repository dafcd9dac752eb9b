/* How an operation ends: on its queue's loop, after work on a background thread, or
 * on a thread that waits for it. */
#include "image/op.h"

#include <errno.h>

#include "aio/blocking.h"
#include "core/thread.h"
#include "core/workers.h"
#include "driver.h"
#include "file.h"

static void run_done(struct loop_task *task)
{
	struct image_op *op = container_of(task, struct image_op, task);

	op->done(op, op->result);
}

void image_op_complete(struct image_op *op, int result)
{
	op->result = result;
	op->task.run = run_done;
	loop_post(aio_queue_loop(op->queue), &op->task);
}

struct offloaded {
	struct loop_work work;
	struct image_op *op;
	int (*run)(struct image_op *op);
};

static void offloaded_work(struct loop_work *work)
{
	struct offloaded *offloaded = container_of(work, struct offloaded, work);

	offloaded->op->result = offloaded->run(offloaded->op);
}

static void offloaded_done(struct loop_work *work)
{
	struct offloaded *offloaded = container_of(work, struct offloaded, work);
	struct image_op *op = offloaded->op;

	g_free(offloaded);
	op->done(op, op->result);
}

void image_op_offload(struct image_op *op, int (*run)(struct image_op *op))
{
	struct offloaded *offloaded = g_new0(struct offloaded, 1);

	offloaded->work = (struct loop_work){
		.work = offloaded_work, .done = offloaded_done, .file = &op->image->ops->file(op->image)->aio.steps};
	offloaded->op = op;
	offloaded->run = run;
	loop_offload_step(aio_queue_loop(op->queue), &offloaded->work);
}

struct blocking_run {
	bool finished;
	int result;
};

static _Thread_local struct blocking_run *blocking_run;

static void blocking_done(struct image_op *op, int result)
{
	(void)op;
	blocking_run->result = result;
	blocking_run->finished = true;
}

int image_run_blocking(struct image *image, struct image_op *op, void (*submit)(struct image *, struct image_op *))
{
	struct blocking_run run = {.result = -ENOMEM};
	struct blocking_loop *blocking;

	thread_assert_may_wait();
	blocking = blocking_loop_get();
	if (!blocking)
		return run.result;
	op->queue = blocking->queue;
	op->done = blocking_done;
	blocking_run = &run;
	submit(image, op);
	loop_run(blocking->loop, &run.finished);
	blocking_run = NULL;
	blocking_loop_put(blocking);
	return run.result;
}
