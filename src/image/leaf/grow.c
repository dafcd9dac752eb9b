/* A leaf on a block device that has no room left: the configured command may
 * make the device larger.
 *
 * The command is an argument vector of the local configuration, run without a
 * shell by the starter (core/starter.h), and waited for on a thread of its own, never on
 * the data path. Who found no room waits (room.c), then tries again: with the device's new
 * size, or for -ENOSPC when it did not grow. A command that takes longer than its limit is
 * killed.
 *
 * A run belongs to its thread, which may outlast the image: a close does not wait
 * for a command, it takes the image out of the run. */
#include "grow.h"

#include <errno.h>
#include <unistd.h>

#include "core/fault.h"
#include "core/log.h"
#include "core/starter.h"
#include "core/thread.h"
#include "lock.h"
#include "room.h"

#define LIMIT_SECONDS 300

/* Lock order: a run's, then the leaf's. */
struct leaf_grow {
	gint references; /* the thread's, the leaf's */
	struct lock lock;
	struct leaf *leaf; /* NULL: it is closed */
	char *path;
};

static void run_command(const char *path)
{
	g_autoptr(GError) error = NULL;

	log_info("%s: is full, grow_command is to make it larger", path);
	if (!starter_run(STARTER_GROW, path, fault_hit("grow.limit", path) ? 1 : LIMIT_SECONDS, &error))
		log_warning("%s: grow_command failed: %s", path, error->message);
}

static void grow_unref(struct leaf_grow *grow)
{
	if (!g_atomic_int_dec_and_test(&grow->references))
		return;
	lock_destroy(&grow->lock);
	g_free(grow->path);
	g_free(grow);
}

static void look_at_size(struct leaf *leaf, struct leaf_grow *grow)
{
	int64_t bytes = aio_file_size(&leaf->file.aio);

	lock_take(&leaf->lock);
	leaf->full_bytes = leaf->file_bytes;
	if (bytes > (int64_t)leaf->file_bytes)
		leaf->file_bytes = (uint64_t)bytes;
	leaf->grow = NULL;
	leaf_room_came_locked(leaf, 0);
	lock_let_go(&leaf->lock);
	grow_unref(grow);
}

static void *grow_main(void *opaque)
{
	struct leaf_grow *grow = opaque;

	run_command(grow->path);
	lock_take(&grow->lock);
	if (grow->leaf)
		look_at_size(grow->leaf, grow);
	lock_let_go(&grow->lock);
	grow_unref(grow);
	return NULL;
}

int leaf_no_room_locked(struct leaf *leaf)
{
	struct leaf_grow *grow;

	leaf_assert_locked(leaf);
	if (leaf->grow)
		return -EAGAIN;
	if (leaf->full_bytes == leaf->file_bytes || !starter_has(STARTER_GROW))
		return -ENOSPC;
	grow = g_new0(struct leaf_grow, 1);
	grow->references = 2;
	lock_init(&grow->lock, LOCK_RANK_GROWTH);
	grow->leaf = leaf;
	grow->path = g_strdup(leaf->file.path);
	leaf->grow = grow;
	if (thread_spawn(NULL, "leafdisk-grow", THREAD_WAITER, grow_main, grow) == 0)
		return -EAGAIN;
	leaf->grow = NULL;
	grow->references = 1;
	grow_unref(grow);
	return -ENOSPC;
}

void leaf_grow_detach(struct leaf *leaf)
{
	struct leaf_grow *grow;

	lock_take(&leaf->lock);
	grow = leaf->grow;
	if (grow)
		g_atomic_int_inc(&grow->references);
	lock_let_go(&leaf->lock);
	if (!grow)
		return;
	lock_take(&grow->lock);
	if (grow->leaf)
		grow->leaf = NULL;
	lock_let_go(&grow->lock);
	if (leaf->grow)
		grow_unref(grow);
	leaf->grow = NULL;
	grow_unref(grow);
}
