/* A leaf on a block device that has no room left: the configured command may
 * make the device larger.
 *
 * The command is an argument vector of the local configuration, run without a
 * shell on a thread of its own, never on the data path. Who found no room waits
 * (room.c), then tries again: with the device's new size, or for -ENOSPC when it
 * did not grow. A command that takes longer than its limit is killed.
 *
 * A run belongs to its thread, which may outlast the image: a close does not wait
 * for a command, it takes the image out of the run. */
#include "grow.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/fault.h"
#include "core/log.h"
#include "core/thread.h"
#include "image/settings.h"
#include "lock.h"
#include "room.h"

#define LIMIT_SECONDS 300
#define KILL_SECONDS 5
#define LOOK_US (20 * 1000)

#ifndef PR_SET_IO_FLUSHER
#define PR_SET_IO_FLUSHER 57
#endif

static struct {
	struct lock lock;
	char **argv;
} command = {.lock = LOCK_INIT(LOCK_RANK_COMMAND)};

/* Lock order: a run's, then the leaf's. */
struct leaf_grow {
	gint references; /* the thread's, the leaf's */
	struct lock lock;
	struct leaf *leaf; /* NULL: it is closed */
	char *path;
};

void image_set_grow_command(const char *const *argv)
{
	LOCK_GUARD(&command.lock);
	g_strfreev(command.argv);
	command.argv = argv ? g_strdupv((char **)argv) : NULL;
}

static char **command_for(const char *path)
{
	char **argv = NULL;
	guint n;

	LOCK_GUARD(&command.lock);
	if (command.argv) {
		n = g_strv_length(command.argv);
		argv = g_new0(char *, n + 2);
		for (guint i = 0; i < n; i++)
			argv[i] = g_strdup(command.argv[i]);
		argv[n] = g_strdup(path);
	}
	return argv;
}

/* In the child: the daemon blocks and ignores signals of its own, and the kernel
 * treats it as what storage depends on. A group of its own is killed as a whole. */
static void be_ordinary(gpointer unused)
{
	static const char score[] = "0";
	sigset_t none;
	int fd;

	(void)unused;
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_DFL);
	signal(SIGXFSZ, SIG_DFL);
	setpgid(0, 0);
	prctl(PR_SET_IO_FLUSHER, 0, 0, 0, 0);
	fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
	if (fd >= 0 && write(fd, score, sizeof(score) - 1) >= 0)
		close(fd);
}

static gint64 limit_us(const char *path)
{
	return (fault_hit("grow.limit", path) ? 1 : LIMIT_SECONDS) * G_USEC_PER_SEC;
}

/* False: it has not ended by DEADLINE, on the monotonic clock. */
static bool wait_until(GPid pid, gint64 deadline, int *status)
{
	pid_t ended;

	while ((ended = waitpid(pid, status, WNOHANG)) == 0 && g_get_monotonic_time() < deadline)
		g_usleep(LOOK_US);
	return ended != 0;
}

static bool finish_command(GPid pid, const char *path, GError **error)
{
	int status = 0;

	if (wait_until(pid, g_get_monotonic_time() + limit_us(path), &status))
		return g_spawn_check_wait_status(status, error);
	kill(-pid, SIGKILL);
	wait_until(pid, g_get_monotonic_time() + KILL_SECONDS * G_USEC_PER_SEC, &status);
	g_set_error(error, G_SPAWN_ERROR, G_SPAWN_ERROR_FAILED, "it was stopped because it took too long");
	return false;
}

static void run_command(const char *path)
{
	g_auto(GStrv) argv = command_for(path);
	g_autoptr(GError) error = NULL;
	GPid pid;

	if (!argv)
		return;
	log_info("%s: is full, running %s to make it larger", path, argv[0]);
	if (!g_spawn_async(NULL, argv, NULL,
			   G_SPAWN_SEARCH_PATH | G_SPAWN_STDOUT_TO_DEV_NULL | G_SPAWN_DO_NOT_REAP_CHILD, be_ordinary,
			   NULL, &pid, &error) ||
	    !finish_command(pid, path, &error))
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
	if (leaf->full_bytes == leaf->file_bytes || !command.argv)
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
