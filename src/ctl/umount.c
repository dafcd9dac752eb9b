/* leafctl umount: a mount is taken down, and the pool has everything.
 *
 * Who uses the mount is told first: nothing is worse than to wait for a write-back and be
 * refused then. What is written back before the unmount can be seen and given up; what is
 * written meanwhile the daemon writes back at its end, which is waited for. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/pidfd.h>
#include <unistd.h>

#include "client.h"
#include "core/error.h"
#include "interrupt.h"
#include "report.h"
#include "verbs.h"

#define WAIT_MS 200

/* ---- Who uses it ------------------------------------------------------------- */

static bool is_below(const char *path, const char *top)
{
	size_t length = strlen(top);

	return path && strncmp(path, top, length) == 0 && (path[length] == '/' || path[length] == '\0');
}

static void add_user(GString *users, const char *who, const char *path)
{
	g_string_append_printf(users, "%s%s uses %s", users->len ? "; " : "", who, path);
}

static bool note_link(GString *users, const char *pid, const char *link, const char *top)
{
	g_autofree char *target = g_file_read_link(link, NULL);
	g_autofree char *comm_path = g_strdup_printf("/proc/%s/comm", pid);
	g_autofree char *comm = NULL, *who = NULL;

	if (!is_below(target, top))
		return false;
	(void)g_file_get_contents(comm_path, &comm, NULL, NULL);
	who = g_strdup_printf("%s (pid %s)", comm ? g_strchomp(comm) : "a program", pid);
	add_user(users, who, target);
	return true;
}

/* One line for each process is enough. */
static void note_process(GString *users, const char *pid, const char *top)
{
	static const char *const places[] = {"cwd", "root"};
	g_autofree char *files = g_strdup_printf("/proc/%s/fd", pid);
	g_autoptr(GDir) directory = g_dir_open(files, 0, NULL);
	bool noted = false;
	const char *fd;

	for (unsigned i = 0; i < G_N_ELEMENTS(places) && !noted; i++) {
		g_autofree char *link = g_strdup_printf("/proc/%s/%s", pid, places[i]);

		noted = note_link(users, pid, link, top);
	}
	while (!noted && directory && (fd = g_dir_read_name(directory))) {
		g_autofree char *link = g_build_filename(files, fd, NULL);

		noted = note_link(users, pid, link, top);
	}
}

static void note_processes(GString *users, const char *top)
{
	g_autoptr(GDir) processes = g_dir_open("/proc", 0, NULL);
	const char *name;

	while (processes && (name = g_dir_read_name(processes)))
		if (g_ascii_isdigit(*name))
			note_process(users, name, top);
}

static void note_loops(GString *users, const char *top)
{
	g_autoptr(GDir) devices = g_dir_open("/sys/block", 0, NULL);
	const char *name;

	while (devices && (name = g_dir_read_name(devices))) {
		g_autofree char *file = g_build_filename("/sys/block", name, "loop", "backing_file", NULL);
		g_autofree char *backing = NULL, *who = NULL;

		if (!g_file_get_contents(file, &backing, NULL, NULL) || !is_below(g_strchomp(backing), top))
			continue;
		who = g_strdup_printf("/dev/%s (losetup -d /dev/%s)", name, name);
		add_user(users, who, backing);
	}
}

static bool check_users(const struct mounted *mount, GError **error)
{
	g_autoptr(GString) users = g_string_new(NULL);

	note_processes(users, mount->top);
	note_loops(users, mount->top);
	return users->len == 0 || error_set(error, EBUSY, "%s is in use: %s", mount->top, users->str);
}

/* ---- The end ----------------------------------------------------------------- */

static bool drain(const struct mounted *mount, GError **error)
{
	g_autofree char *dirty = control_read(mount, CONTROL_DRAIN, NULL, error);

	return dirty &&
	       (g_ascii_strtoull(dirty, NULL, 10) == 0 || control_command(mount, CONTROL_DRAIN, NULL, "1\n", error));
}

static bool take_down(const struct mounted *mount, GError **error)
{
	const char *const argv[] = {"fusermount3", "-u", "--", mount->top, NULL};
	g_autofree char *said = NULL;
	int status = 0;

	if (!g_spawn_sync(NULL, (char **)argv, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, NULL, &said, &status, error))
		return false;
	return status == 0 || error_set(error, EBUSY, "%s cannot be unmounted: %s", mount->top, g_strchomp(said));
}

static int open_daemon(const struct mounted *mount, pid_t *pid, GError **error)
{
	g_autofree char *text = control_read(mount, CONTROL_PID, NULL, error);
	int fd;

	if (!text)
		return -1;
	*pid = (pid_t)g_ascii_strtoull(text, NULL, 10);
	fd = pidfd_open(*pid, 0);
	if (fd < 0)
		error_set_errno(error, errno,
				"%s: its daemon (pid %d) is not seen from here, so that nobody could wait for its end; "
				"fusermount3 -u takes the mount down all the same",
				mount->top, *pid);
	return fd;
}

static bool await_end(const struct mounted *mount, int daemon, pid_t pid, GError **error)
{
	struct pollfd ended = {.fd = daemon, .events = POLLIN};
	const struct timespec now = {0};
	sigset_t stop;

	interrupt_fill_set(&stop);
	pthread_sigmask(SIG_BLOCK, &stop, NULL);
	while (poll(&ended, 1, WAIT_MS) != 1)
		if (sigtimedwait(&stop, NULL, &now) > 0)
			return error_set(error, EINTR,
					 "%s is unmounted, and its daemon (pid %d) still writes back what was written "
					 "last",
					 mount->top, pid);
	return true;
}

static bool end_mount(const struct mounted *mount, GError **error)
{
	pid_t pid = 0;
	int daemon = open_daemon(mount, &pid, error);
	bool good;

	if (daemon < 0)
		return false;
	good = drain(mount, error) && take_down(mount, error) && await_end(mount, daemon, pid, error);
	close(daemon);
	return good;
}

int ctl_umount(const struct ctl_arguments *arguments)
{
	g_autoptr(GError) error = NULL;
	const char *path = arguments->names[0];
	g_autoptr(mounted) mount = control_find_mount(path, &error);

	if (!mount)
		return ctl_fail_error(NULL, error);
	if (*mount->name)
		return ctl_fail("%s is in a mount; expected the mount itself, %s", path, mount->top);
	if (!check_users(mount, &error) || !end_mount(mount, &error))
		return ctl_fail_error(NULL, error);
	return CTL_DONE;
}
