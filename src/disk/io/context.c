/* What a loop needs to serve disks: the I/O queue, transfers, bounce buffers.
 *
 * One request holds few transfers while many are out, so requests that a store does
 * not answer leave some to all others. One that has enough goes on when one of its
 * own comes back; one that finds the pool empty all the same, when any does: whoever
 * holds a transfer finishes without needing another, so there is always an end.
 * A bounce buffer that the pool has not is memory of its own. */
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "core/error.h"
#include "image/settings.h"
#include "disk/object.h"

/* Of 384 bytes each; memory that was never used is none. */
#define RUNS 16384
/* How many one request holds, while half of them are there, and after that. */
#define RUNS_OF_ONE 64
#define RUNS_OF_ONE_FEW 4
#define BOUNCES 16

static _Atomic uint32_t indexes;

/* Of the lowest bit that is clear; LANES: all are set. */
static unsigned take_index(void)
{
	uint32_t taken = indexes;
	unsigned index;

	do {
		index = taken == UINT32_MAX ? LANES : (unsigned)__builtin_ctz(~taken);
	} while (index < LANES && !atomic_compare_exchange_weak(&indexes, &taken, taken | UINT32_C(1) << index));
	return index;
}

struct disk_context *disk_context_new(struct loop *loop, const struct disk_limits *limits, GError **error)
{
	struct aio_limits aio_limits = {.io_timeout_ns = limits->io_timeout_ns, .many_stores = true};
	struct disk_context *context = g_new0(struct disk_context, 1);

	image_set_io_timeout(limits->io_timeout_ns);
	context->loop = loop;
	context->depth = MAX(limits->queue_depth, 1);
	context->index = take_index();
	list_init(&context->starved);
	if (context->index < LANES)
		context->queue = aio_queue_new(loop, &aio_limits, error);
	else
		error_set(error, EMFILE, "no more than %d loops can serve disks", LANES);
	if (context->queue)
		context->runs = pool_new(sizeof(struct run), RUNS, 64, 0, error);
	if (context->runs)
		context->bounces = pool_new(DISK_READ_BUFFER_BYTES, BOUNCES, BLOCK_SIZE, 0, error);
	if (context->bounces)
		return context;
	disk_context_free(context);
	return NULL;
}

void disk_context_drain(struct disk_context *context)
{
	aio_drain(context->queue);
}

void disk_context_free(struct disk_context *context)
{
	if (!context)
		return;
	aio_queue_free(context->queue);
	pool_free(context->runs);
	pool_free(context->bounces);
	if (context->index < LANES)
		indexes &= ~(UINT32_C(1) << context->index);
	g_free(context);
}

static bool has_enough(const struct disk_context *context, const struct disk_io *owner)
{
	return owner->runs >= RUNS_OF_ONE_FEW &&
	       (owner->runs >= RUNS_OF_ONE || pool_available(context->runs) < RUNS / 2);
}

struct run *context_get_run(struct disk_context *context, struct disk_io *owner)
{
	struct run *run = NULL;

	owner->full = has_enough(context, owner);
	if (owner->full)
		return NULL;
	run = pool_get(context->runs);
	if (run) {
		run->owner = owner;
		owner->runs++;
		return run;
	}
	owner->starved = true;
	list_append(&context->starved, &owner->link);
	return NULL;
}

void context_put_run(struct disk_context *context, struct run *run)
{
	run->owner->runs--;
	pool_put(context->runs, run);
}

uint8_t *context_get_bounce(struct disk_context *context, uint64_t blocks)
{
	uint8_t *bounce = pool_get(context->bounces);
	void *memory = NULL;

	if (!bounce && posix_memalign(&memory, BLOCK_SIZE, (blocks + 2) << BLOCK_SHIFT) == 0)
		bounce = memory;
	return bounce;
}

void context_put_bounce(struct disk_context *context, uint8_t *bounce)
{
	if (pool_owns(context->bounces, bounce))
		pool_put(context->bounces, bounce);
	else
		free(bounce);
}
