/* A leaf on a block device that has no room left: the configured command may
 * make the device larger.
 *
 * The command is an argument vector of the local configuration, run without a
 * shell on a thread of its own, never on the data path. Writers that found no
 * room wait in room_waiters (and discards on the condition `grown`), then try
 * again: with the device's new size, or for -ENOSPC when it did not grow. */
#include <errno.h>
#include <signal.h>

#include "core/log.h"
#include "leaf.h"

static struct {
	GMutex lock;
	char **argv;
} command;

void image_set_grow_command(const char *const *argv)
{
	g_mutex_lock(&command.lock);
	g_strfreev(command.argv);
	command.argv = argv ? g_strdupv((char **)argv) : NULL;
	g_mutex_unlock(&command.lock);
}

static char **command_for(const char *path)
{
	char **argv = NULL;
	guint n;

	g_mutex_lock(&command.lock);
	if (command.argv) {
		n = g_strv_length(command.argv);
		argv = g_new0(char *, n + 2);
		for (guint i = 0; i < n; i++)
			argv[i] = g_strdup(command.argv[i]);
		argv[n] = g_strdup(path);
	}
	g_mutex_unlock(&command.lock);
	return argv;
}

/* In the child: the daemon blocks and ignores signals of its own. */
static void reset_signals(gpointer unused)
{
	sigset_t none;

	(void)unused;
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_DFL);
}

static void run_command(const char *path)
{
	g_auto(GStrv) argv = command_for(path);
	g_autoptr(GError) error = NULL;
	int status = 0;

	if (!argv)
		return;
	log_info("%s: is full, running %s to make it larger", path, argv[0]);
	if (!g_spawn_sync(NULL, argv, NULL, G_SPAWN_SEARCH_PATH | G_SPAWN_STDOUT_TO_DEV_NULL, reset_signals, NULL, NULL,
			  NULL, &status, &error) ||
	    !g_spawn_check_wait_status(status, &error))
		log_warning("%s: grow_command failed: %s", path, error->message);
}

static gpointer grow_thread(gpointer opaque)
{
	struct leaf *leaf = opaque;
	struct list waiters;
	struct list *node;
	int64_t bytes;

	run_command(leaf->file.path);
	bytes = image_file_size(&leaf->file);
	list_init(&waiters);
	g_mutex_lock(&leaf->lock);
	leaf->full_bytes = leaf->file_bytes;
	if (bytes > (int64_t)leaf->file_bytes)
		leaf->file_bytes = (uint64_t)bytes;
	leaf->growing = false;
	list_splice(&waiters, &leaf->room_waiters);
	g_cond_broadcast(&leaf->grown);
	while ((node = list_pop(&waiters)))
		image_op_complete(container_of(node, struct image_op, link), 0);
	g_mutex_unlock(&leaf->lock);
	return NULL;
}

int leaf_no_room_locked(struct leaf *leaf)
{
	if (leaf->growing)
		return -EAGAIN;
	if (leaf->full_bytes == leaf->file_bytes || !command.argv)
		return -ENOSPC;
	leaf->growing = true;
	g_thread_unref(g_thread_new("leafdisk-grow", grow_thread, leaf));
	return -EAGAIN;
}

void leaf_wait_room(struct image *image, struct image_op *op)
{
	struct leaf *leaf = leaf_of(image);
	bool wait;

	g_mutex_lock(&leaf->lock);
	wait = leaf->growing;
	if (wait)
		list_append(&leaf->room_waiters, &op->link);
	g_mutex_unlock(&leaf->lock);
	if (!wait)
		image_op_complete(op, 0);
}
