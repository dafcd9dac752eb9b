/* The mount that had the cache before, and still writes back.
 *
 * The kernel tells who that is: a leafdisk that has the cache open, and tells what it has left
 * (rest.c). Other links in /proc are only read: a file of another process may be on a store
 * that hangs. Who may not read them, or is in another namespace, finds nobody, and meets the
 * cache's lock. */
#include "predecessor.h"

#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <unistd.h>

#include "core/config.h"
#include "core/error.h"
#include "core/log.h"
#include "core/verdict.h"
#include "end.h"
#include "line.h"
#include "mounts.h"
#include "notify.h"
#include "rest.h"

#define PROGRAM "leafdisk\n"
#define WAIT_MS 200
/* For a mount to notice that it was taken down: here; and while it is known to be. */
#define NOTICE_TRIES 5
#define NOTICE_TRIES_LONG 150
/* For one that has ended to count what it has. */
#define COUNT_TRIES 5

struct holder {
	pid_t pid;   /* 0: nobody */
	bool serves; /* its mount has not ended */
	int rest_fd; /* of what it has left; -1: it does not tell */
	struct rest rest;
};

static void holder_clear(struct holder *holder)
{
	if (holder->rest_fd >= 0)
		close(holder->rest_fd);
	*holder = (struct holder){.rest_fd = -1};
}

/* ---- Who has it -------------------------------------------------------------- */

static bool is_leafdisk(const char *pid)
{
	g_autofree char *path = g_build_filename("/proc", pid, "comm", NULL);
	g_autofree char *comm = NULL;

	return g_file_get_contents(path, &comm, NULL, NULL) && strcmp(comm, PROGRAM) == 0;
}

/* False: it does not tell. */
static bool read_rest(struct holder *holder)
{
	return holder->rest_fd >= 0 && rest_read(holder->rest_fd, &holder->rest);
}

static bool look_at(const char *pid, const char *cache, struct holder *holder)
{
	g_autofree char *files = g_build_filename("/proc", pid, "fd", NULL);
	g_autoptr(GDir) directory = g_dir_open(files, 0, NULL);
	bool has_cache = false;
	const char *fd;

	holder_clear(holder);
	while (directory && (fd = g_dir_read_name(directory))) {
		g_autofree char *link = g_build_filename(files, fd, NULL);
		g_autofree char *target = g_file_read_link(link, NULL);

		has_cache |= g_strcmp0(target, cache) == 0;
		holder->serves |= g_strcmp0(target, "/dev/fuse") == 0;
		if (holder->rest_fd < 0 && rest_is_target(target))
			holder->rest_fd = open(link, O_RDONLY | O_CLOEXEC);
	}
	if (read_rest(holder))
		holder->serves = !holder->rest.ended;
	if (has_cache)
		holder->pid = atoi(pid);
	return has_cache;
}

static void find(const char *cache, struct holder *holder)
{
	g_autoptr(GDir) processes = g_dir_open("/proc", 0, NULL);
	bool found = false;
	const char *name;

	holder_clear(holder);
	while (!found && processes && (name = g_dir_read_name(processes)))
		found = g_ascii_isdigit(*name) && atoi(name) != getpid() && is_leafdisk(name) &&
			look_at(name, cache, holder);
	if (!found)
		holder_clear(holder);
}

/* It serves nobody here, and may not know it yet. */
static bool is_unmounted(const struct holder *holder)
{
	return holder->rest.major + holder->rest.minor > 0 &&
	       mounts_look(holder->rest.major, holder->rest.minor, NULL) == ANSWER_NO;
}

/* One that was unmounted a moment ago need not know it yet. */
static void find_ended(const char *cache, struct holder *holder)
{
	find(cache, holder);
	for (unsigned tries = 0; holder->pid && holder->serves; tries++) {
		if (tries >= (is_unmounted(holder) ? NOTICE_TRIES_LONG : NOTICE_TRIES))
			break;
		g_usleep(WAIT_MS * 1000);
		find(cache, holder);
	}
	if (holder->serves)
		holder_clear(holder);
}

/* ---- Its end ----------------------------------------------------------------- */

static char *left_text(struct holder *holder)
{
	g_autofree char *size = NULL;

	for (unsigned tries = 0; holder->rest.ended && holder->rest.left_bytes < 0 && tries < COUNT_TRIES; tries++) {
		g_usleep(WAIT_MS * 1000);
		(void)read_rest(holder);
	}
	if (!holder->rest.ended || holder->rest.left_bytes < 0)
		return g_strdup("what it has");
	size = config_format_size((uint64_t)holder->rest.left_bytes);
	return g_strdup_printf("%s of changes", size);
}

static void show(struct holder *holder, struct line *line)
{
	g_autofree char *text = NULL;

	if (read_rest(holder) && holder->rest.left_bytes >= 0)
		text = line_show(line, (uint64_t)holder->rest.left_bytes);
	if (text)
		notify_waits(text);
}

static void await(struct holder *holder, const struct end *end)
{
	struct pollfd ended = {.fd = pidfd_open(holder->pid, 0), .events = POLLIN};
	g_autofree char *who = g_strdup_printf("the mount before (pid %d): ", holder->pid);
	struct line line;

	line_begin(&line, who, isatty(STDERR_FILENO));
	while (ended.fd >= 0 && poll(&ended, 1, WAIT_MS) != 1 && !end_is_given_up(end))
		show(holder, &line);
	line_end(&line);
	if (ended.fd >= 0)
		close(ended.fd);
}

void predecessor_await(const char *cache, const struct end *end)
{
	char *path = cache ? realpath(cache, NULL) : NULL;
	struct holder holder = {.rest_fd = -1};

	if (path)
		find_ended(path, &holder);
	if (holder.pid) {
		g_autofree char *left = left_text(&holder);

		log_warning(
			"the mount that had the cache %s before (pid %d) still writes back %s; this one begins when "
			"that has ended; kill -TERM %d leaves the rest in the cache",
			cache, holder.pid, left, holder.pid);
		await(&holder, end);
	}
	holder_clear(&holder);
	free(path);
}

void predecessor_name_holder(const char *cache, GError **error)
{
	char *path = cache ? realpath(cache, NULL) : NULL;
	struct holder holder = {.rest_fd = -1};

	if (path && error_class_of(STORE_OPEN, error_to_errno(*error)) == ERROR_TRANSIENT)
		find(path, &holder);
	if (holder.pid)
		g_prefix_error(error, "the leafdisk with pid %d has the cache %s: ", holder.pid, cache);
	holder_clear(&holder);
	free(path);
}
