/* A disk's new size.
 *
 * Larger is what truncate(2) may make any disk. Smaller is for the command of the control
 * tree alone, as what lies past the new end is lost: O_TRUNC and truncate(2) come from dd,
 * cp and `>`, and nobody who types these means to lose the disk. */
#include "resize.h"

#include <errno.h>
#include <inttypes.h>
#include <semaphore.h>

#include "core/error.h"
#include "core/log.h"
#include "core/loop.h"
#include "core/thread.h"
#include "handle.h"

/* One resize, on the way to the loop and back. */
struct resize {
	struct disk_io io;
	struct loop_task task;
	sem_t done;
	int64_t result;
};

static void resize_done(struct disk_io *io, int64_t result)
{
	struct resize *resize = container_of(io, struct resize, io);

	resize->result = result;
	sem_post(&resize->done);
}

static void submit(struct loop_task *task)
{
	disk_submit(&container_of(task, struct resize, task)->io);
}

static int run(struct channel *channel, struct disk *disk, enum disk_op op, uint64_t bytes)
{
	struct resize resize = {
		.io = {.context = channel->disks, .disk = disk, .op = op, .length = bytes, .done = resize_done},
		.task.run = submit,
	};

	thread_assert_may_block();
	sem_init(&resize.done, 0, 0);
	loop_post(channel->loop, &resize.task);
	while (sem_wait(&resize.done) < 0)
		;
	sem_destroy(&resize.done);
	return (int)MIN(resize.result, 0);
}

int resize_open(struct channel *channel, struct disk *disk, uint64_t bytes)
{
	int result = run(channel, disk, DISK_RESIZE, bytes);

	if (result == 0)
		log_disk(EVENT_INFO, disk_name(disk), "%s: has %" PRIu64 " bytes now", disk_name(disk), bytes);
	return result;
}

void resize_fit(struct channel *channel, struct disk *disk)
{
	int result = run(channel, disk, DISK_GROW, 0);

	if (result < 0)
		log_disk(EVENT_ERROR, disk_name(disk), "%s: may be longer now than what was written to it: %s",
			 disk_name(disk), g_strerror(-result));
}

static int run_alone(struct channel *channel, struct disk *disk, uint64_t bytes, GError **error)
{
	int result;

	if (disk_open_count(disk) > 1) {
		error_set(error, EBUSY, "%s: not resized: it is open elsewhere; close it there first", disk_name(disk));
		return -EBUSY;
	}
	result = resize_open(channel, disk, bytes);
	if (result < 0)
		error_set_errno(error, -result, "%s: cannot get a size of %" PRIu64 " bytes", disk_name(disk), bytes);
	return result;
}

int resize_closed(struct channel *channel, struct disk *disk, uint64_t bytes, GError **error)
{
	struct session *session = channel->session;
	int result, closed;

	handle_await_closes(session, disk, handle_closes_begun(session));
	result = disk_open(disk, true, error);
	if (result < 0)
		return result;
	result = run_alone(channel, disk, bytes, error);
	closed = disk_close(disk);
	if (result == 0 && closed < 0)
		error_set_errno(error, -closed, "%s: has %" PRIu64 " bytes, and cannot be closed", disk_name(disk),
				bytes);
	return result ? result : closed;
}
