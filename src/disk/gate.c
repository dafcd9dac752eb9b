/* The gate before a disk. */
#include "disk/gate.h"

#include "core/thread.h"
#include "disk/object.h"

/* How often who closes it is asked whether to go on. */
#define ASK_US (100 * 1000)

void gate_init(struct gate *gate, void (*begin)(struct loop_task *task), void (*closing)(struct disk *disk))
{
	gate->begin = begin;
	gate->closing = closing;
	list_init(&gate->parked);
	g_cond_init(&gate->changed);
}

void gate_clear(struct gate *gate)
{
	g_cond_clear(&gate->changed);
}

bool gate_enter(struct disk_io *io)
{
	struct disk *disk = io->disk;
	bool open;

	g_mutex_lock(&disk->lock);
	open = disk->gate.closings == 0;
	if (open)
		disk->gate.active++;
	else
		list_append(&disk->gate.parked, &io->link);
	g_mutex_unlock(&disk->lock);
	return open;
}

void gate_leave_locked(struct disk *disk)
{
	if (--disk->gate.active == 0 && disk->gate.closings > 0)
		g_cond_broadcast(&disk->gate.changed);
}

void gate_wait(struct disk *disk)
{
	thread_assert_may_wait();
	g_mutex_lock(&disk->lock);
	while (disk->gate.closings > 0)
		g_cond_wait(&disk->gate.changed, &disk->lock);
	disk->gate.active++;
	g_mutex_unlock(&disk->lock);
}

void gate_leave(struct disk *disk)
{
	g_mutex_lock(&disk->lock);
	gate_leave_locked(disk);
	g_mutex_unlock(&disk->lock);
}

void gate_park(struct disk_io *io)
{
	struct disk *disk = io->disk;

	g_mutex_lock(&disk->lock);
	list_append(&disk->gate.parked, &io->link);
	gate_leave_locked(disk);
	g_mutex_unlock(&disk->lock);
}

bool gate_has_parked(struct disk *disk)
{
	bool has;

	g_mutex_lock(&disk->lock);
	has = !list_is_empty(&disk->gate.parked);
	g_mutex_unlock(&disk->lock);
	return has;
}

bool gate_is_closing(struct disk *disk)
{
	bool closing;

	g_mutex_lock(&disk->lock);
	closing = disk->gate.closings > 0;
	g_mutex_unlock(&disk->lock);
	return closing;
}

static void begin_closing(struct disk *disk)
{
	thread_assert_may_wait();
	g_mutex_lock(&disk->lock);
	disk->gate.closings++;
	g_mutex_unlock(&disk->lock);
	disk->gate.closing(disk);
}

/* Whether nothing is in work any more, waited for until UNTIL. */
static bool await_idle(struct disk *disk, gint64 until)
{
	bool idle, waiting = true;

	g_mutex_lock(&disk->lock);
	while (disk->gate.active > 0 && waiting)
		waiting = g_cond_wait_until(&disk->gate.changed, &disk->lock, until);
	idle = disk->gate.active == 0;
	g_mutex_unlock(&disk->lock);
	return idle;
}

bool gate_try_close(struct disk *disk, int64_t patience_us)
{
	gint64 until = g_get_monotonic_time() + patience_us;
	bool closed;

	begin_closing(disk);
	closed = await_idle(disk, until);
	if (!closed)
		gate_open(disk);
	return closed;
}

bool gate_close_while(struct disk *disk, bool (*go_on)(void *opaque), void *opaque)
{
	bool closed;

	begin_closing(disk);
	while (!(closed = await_idle(disk, g_get_monotonic_time() + ASK_US)) && go_on(opaque))
		;
	if (!closed)
		gate_open(disk);
	return closed;
}

static bool go_on_for_ever(void *opaque)
{
	(void)opaque;
	return true;
}

void gate_close(struct disk *disk)
{
	(void)gate_close_while(disk, go_on_for_ever, NULL);
}

static void release_locked(struct disk *disk)
{
	struct list *node;

	while (disk->gate.closings == 0 && (node = list_pop(&disk->gate.parked))) {
		struct disk_io *io = container_of(node, struct disk_io, link);

		disk->gate.active++;
		io->task.run = disk->gate.begin;
		loop_post(io->context->loop, &io->task);
	}
}

void gate_open(struct disk *disk)
{
	g_mutex_lock(&disk->lock);
	disk->gate.closings--;
	g_cond_broadcast(&disk->gate.changed);
	release_locked(disk);
	g_mutex_unlock(&disk->lock);
}

void gate_release(struct disk *disk)
{
	g_mutex_lock(&disk->lock);
	release_locked(disk);
	g_mutex_unlock(&disk->lock);
}
