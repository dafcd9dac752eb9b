/* Lanes: requests of one disk in work on one loop. */
#include "disk/lane.h"

#include "disk/object.h"

struct lane *lanes_new(void)
{
	struct lane *lanes = g_new0(struct lane, LANES);

	for (unsigned i = 0; i < LANES; i++)
		list_init(&lanes[i].waiting);
	return lanes;
}

static struct lane *lane_of(const struct disk_io *io)
{
	return &io->disk->lanes[io->context->index];
}

bool lane_enter(struct disk_io *io, void (*submit)(struct loop_task *task))
{
	struct lane *lane = lane_of(io);

	if (lane->in_work < io->context->depth) {
		lane->in_work++;
		return true;
	}
	io->task.run = submit;
	list_append(&lane->waiting, &io->link);
	return false;
}

/* The place goes to the next that waits. */
void lane_leave(struct disk_io *io)
{
	struct lane *lane = lane_of(io);
	struct list *node = list_pop(&lane->waiting);

	if (node)
		loop_post(io->context->loop, &container_of(node, struct disk_io, link)->task);
	else
		lane->in_work--;
}
