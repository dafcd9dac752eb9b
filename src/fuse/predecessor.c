/* The mount that had the cache before, and still writes back.
 *
 * The kernel tells who that is: a leafdisk that has the cache open, and /dev/fuse no more.
 * Links in /proc are only read: a file of another process may be on a store that hangs. Who
 * may not read them, or is in another namespace, finds nobody, and meets the cache's lock. */
#include "predecessor.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <unistd.h>

#include <glib.h>

#include "core/log.h"
#include "end.h"

#define PROGRAM "leafdisk\n"
#define WAIT_MS 200
#define CLOSE_TRIES 5

static bool is_leafdisk(const char *pid)
{
	g_autofree char *path = g_build_filename("/proc", pid, "comm", NULL);
	g_autofree char *comm = NULL;

	return g_file_get_contents(path, &comm, NULL, NULL) && strcmp(comm, PROGRAM) == 0;
}

struct holder {
	pid_t pid;   /* 0: nobody */
	bool serves; /* its mount has not ended */
};

static bool look_at(const char *pid, const char *cache, struct holder *holder)
{
	g_autofree char *files = g_build_filename("/proc", pid, "fd", NULL);
	g_autoptr(GDir) directory = g_dir_open(files, 0, NULL);
	bool has_cache = false;
	const char *fd;

	*holder = (struct holder){0};
	while (directory && (fd = g_dir_read_name(directory))) {
		g_autofree char *link = g_build_filename(files, fd, NULL);
		g_autofree char *target = g_file_read_link(link, NULL);

		has_cache |= g_strcmp0(target, cache) == 0;
		holder->serves |= g_strcmp0(target, "/dev/fuse") == 0;
	}
	holder->pid = has_cache ? atoi(pid) : 0;
	return has_cache;
}

static struct holder find(const char *cache)
{
	g_autoptr(GDir) processes = g_dir_open("/proc", 0, NULL);
	struct holder holder = {0};
	bool found = false;
	const char *name;

	while (!found && processes && (name = g_dir_read_name(processes)))
		found = g_ascii_isdigit(*name) && atoi(name) != getpid() && is_leafdisk(name) &&
			look_at(name, cache, &holder);
	return holder;
}

/* One that was unmounted a moment ago has /dev/fuse until its disks are closed. */
static pid_t find_ended(const char *cache)
{
	struct holder holder = find(cache);

	for (unsigned tries = 0; holder.pid && holder.serves && tries < CLOSE_TRIES; tries++) {
		g_usleep(WAIT_MS * 1000);
		holder = find(cache);
	}
	return holder.serves ? 0 : holder.pid;
}

static void await(pid_t pid, const struct end *end)
{
	struct pollfd ended = {.fd = pidfd_open(pid, 0), .events = POLLIN};

	while (ended.fd >= 0 && poll(&ended, 1, WAIT_MS) != 1 && !end_is_given_up(end))
		;
	if (ended.fd >= 0)
		close(ended.fd);
}

void predecessor_await(const char *cache, const struct end *end)
{
	char *path = cache ? realpath(cache, NULL) : NULL;
	pid_t pid = path ? find_ended(path) : 0;

	if (pid) {
		log_warning("the mount that had the cache %s before (pid %d) still writes back what it has; this one "
			    "begins when that has ended; kill -TERM %d leaves the rest in the cache",
			    cache, pid, pid);
		await(pid, end);
	}
	free(path);
}
