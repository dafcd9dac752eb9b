/* What a loop needs to serve disks: the I/O queue, transfers, bounce buffers.
 *
 * All are sized at start. A disk_io that finds a pool empty goes on the
 * starved list and is stepped again when something came back; whoever holds a
 * transfer finishes without needing another, so there is always an end. */
#include <errno.h>

#include "core/error.h"
#include "disk/object.h"
#include "image/settings.h"

#define RUNS_PER_REQUEST 8
#define BOUNCES 16

struct disk_context *disk_context_new(struct loop *loop, const struct disk_limits *limits, GError **error)
{
	struct aio_limits aio_limits = {.io_timeout_ns = limits->io_timeout_ns};
	struct disk_context *context = g_new0(struct disk_context, 1);

	image_set_io_timeout(limits->io_timeout_ns);
	context->loop = loop;
	list_init(&context->starved);
	context->queue = aio_queue_new(loop, &aio_limits, error);
	if (context->queue)
		context->runs = pool_new(sizeof(struct run), (size_t)MAX(limits->queue_depth, 1) * RUNS_PER_REQUEST, 64,
					 0, error);
	if (context->runs)
		context->bounces = pool_new(DISK_READ_BUFFER_BYTES, BOUNCES, BLOCK_SIZE, 0, error);
	if (context->bounces)
		return context;
	disk_context_free(context);
	return NULL;
}

void disk_context_free(struct disk_context *context)
{
	if (!context)
		return;
	aio_queue_free(context->queue);
	pool_free(context->runs);
	pool_free(context->bounces);
	g_free(context);
}

static void *get_or_starve(struct disk_context *context, struct pool *pool, struct disk_io *owner)
{
	void *object = pool_get(pool);

	if (!object) {
		owner->starved = true;
		list_append(&context->starved, &owner->link);
	}
	return object;
}

struct run *context_get_run(struct disk_context *context, struct disk_io *owner)
{
	struct run *run = get_or_starve(context, context->runs, owner);

	if (run)
		run->owner = owner;
	return run;
}

void context_put_run(struct disk_context *context, struct run *run)
{
	pool_put(context->runs, run);
}

uint8_t *context_get_bounce(struct disk_context *context, struct disk_io *owner)
{
	return get_or_starve(context, context->bounces, owner);
}

void context_put_bounce(struct disk_context *context, uint8_t *bounce)
{
	pool_put(context->bounces, bounce);
}
