/* leafctl umount: a mount is taken down, and the pool has everything.
 *
 * Who uses the mount is told first: nothing is worse than to wait for a write-back and be
 * refused then. What is written back before the unmount can be seen, and given up by a signal:
 * up to the unmount that leaves the mount as it was. After it the daemon's end is waited for.
 * Where the mount is also in another mount namespace that end does not come, and who has it
 * there is told. */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/pidfd.h>
#include <unistd.h>

#include "client.h"
#include "core/error.h"
#include "core/verdict.h"
#include "interrupt.h"
#include "report.h"
#include "users.h"
#include "verbs.h"

#define WAIT_MS 200
/* Before the daemon is looked for elsewhere, once and again. */
#define WAITS_TO_LOOK 5

static bool check_users(const struct mounted *mount, GError **error)
{
	g_autofree char *users = users_text(mount);

	return !*users || error_set(error, EBUSY, "%s is in use: %s", mount->top, users);
}

/* Also where nothing is dirty: a drain says what stays in the cache for good. A mount that only reads takes no
 * commands. */
static bool drain(const struct mounted *mount, GError **error)
{
	g_autofree char *dirty = control_read(mount, CONTROL_DRAIN, NULL, error);
	g_autoptr(GError) inner = NULL;

	if (!dirty)
		return false;
	if (control_command(mount, CONTROL_DRAIN, NULL, "1\n", &inner) ||
	    (g_ascii_strtoull(dirty, NULL, 10) == 0 &&
	     error_class_of(STORE_OPEN, error_to_errno(inner)) == ERROR_READ_ONLY))
		return true;
	g_propagate_error(error, g_steal_pointer(&inner));
	return false;
}

/* It has been drained. */
static bool is_still_wanted(const struct mounted *mount, GError **error)
{
	int signal_number = interrupt_take();

	return signal_number == 0 ||
	       error_set(error, EINTR, "stopped by signal %d: %s stays mounted", signal_number, mount->top);
}

static bool take_down(const struct mounted *mount, GError **error)
{
	const char *const argv[] = {"fusermount3", "-u", "--", mount->top, NULL};
	g_autofree char *said = NULL;
	int status = 0;

	/* This process uses nothing of it. */
	if (chdir("/") < 0)
		return error_set_errno(error, errno, "/ cannot be entered");
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

/* True: said. */
static bool tell_places(const struct mounted *mount)
{
	g_autofree char *places = users_places(mount);

	if (*places)
		ctl_fail("%s is unmounted here, and its daemon goes on until it is unmounted elsewhere too: %s",
			 mount->top, places);
	return *places;
}

static bool await_end(const struct mounted *mount, int daemon, pid_t pid, GError **error)
{
	struct pollfd ended = {.fd = daemon, .events = POLLIN};
	bool told = false;

	for (unsigned waits = 0; poll(&ended, 1, WAIT_MS) != 1; waits++) {
		told = told || (waits % WAITS_TO_LOOK == WAITS_TO_LOOK - 1 && tell_places(mount));
		if (interrupt_take())
			return error_set(error, EINTR, "%s is unmounted, and its daemon (pid %d) %s", mount->top, pid,
					 told ? "goes on" : "still writes back what was written last");
	}
	return true;
}

static bool end_mount(const struct mounted *mount, GError **error)
{
	pid_t pid = 0;
	int daemon = open_daemon(mount, &pid, error);
	bool good;

	if (daemon < 0)
		return false;
	interrupt_hold();
	good = drain(mount, error) && is_still_wanted(mount, error) && take_down(mount, error) &&
	       await_end(mount, daemon, pid, error);
	close(daemon);
	return good;
}

int ctl_umount(const struct ctl_arguments *arguments)
{
	g_autoptr(GError) error = NULL;
	g_autoptr(mounted) mount = control_find_whole(arguments->names[0], &error);

	if (!mount || !check_users(mount, &error) || !end_mount(mount, &error))
		return ctl_fail_error(NULL, error);
	return CTL_DONE;
}
