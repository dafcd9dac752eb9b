/* The gate before a disk. */
#include "gate.h"

#include "internal.h"

void gate_init(struct gate *gate)
{
	list_init(&gate->parked);
	g_cond_init(&gate->idle);
}

void gate_clear(struct gate *gate)
{
	g_cond_clear(&gate->idle);
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
		g_cond_broadcast(&disk->gate.idle);
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

void gate_close(struct disk *disk)
{
	g_mutex_lock(&disk->lock);
	disk->gate.closings++;
	while (disk->gate.active > 0)
		g_cond_wait(&disk->gate.idle, &disk->lock);
	g_mutex_unlock(&disk->lock);
}

static void release_locked(struct disk *disk)
{
	struct list *node;

	while (disk->gate.closings == 0 && (node = list_pop(&disk->gate.parked))) {
		struct disk_io *io = container_of(node, struct disk_io, link);

		disk->gate.active++;
		io->task.run = disk_io_restart;
		loop_post(io->context->loop, &io->task);
	}
}

void gate_open(struct disk *disk)
{
	g_mutex_lock(&disk->lock);
	disk->gate.closings--;
	release_locked(disk);
	g_mutex_unlock(&disk->lock);
}

void gate_release(struct disk *disk)
{
	g_mutex_lock(&disk->lock);
	release_locked(disk);
	g_mutex_unlock(&disk->lock);
}
