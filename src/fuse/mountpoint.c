/* The directory that a pool is to be mounted on.
 *
 * What is mounted there is looked up in the kernel's table, and asked only by a process of
 * its own, which can be killed: a server that hangs does not answer. Two who mount on one
 * directory at once would both find it free: so each locks it, looks again and mounts. The
 * lock is on the directory below the mount, which no process opens by its path any more
 * once the mount is there. */
#include "mountpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/error.h"
#include "core/log.h"
#include "mounts.h"

/* For a server that runs, and answers. */
#define ANSWER_PATIENCE_MS 2000
/* Another leafdisk has the lock for one call of mount(2). */
#define LOCK_TRIES 200
#define LOCK_RETRY_US (10 * 1000)

/* ---- What is mounted there --------------------------------------------------- */

static void __attribute__((noreturn)) ask(const char *path)
{
	struct statx stx;

	_exit(statx(AT_FDCWD, path, AT_STATX_FORCE_SYNC, STATX_BASIC_STATS, &stx) < 0 && errno == ENOTCONN ? 1 : 0);
}

/* False: its server answers, or hangs. */
static bool has_no_server(const char *path)
{
	pid_t child = fork();
	struct pollfd ended = {.events = POLLIN};
	int status = 0;

	if (child == 0)
		ask(path);
	if (child < 0)
		return false;
	ended.fd = pidfd_open(child, 0);
	if (ended.fd < 0 || poll(&ended, 1, ANSWER_PATIENCE_MS) != 1)
		kill(child, SIGKILL);
	if (ended.fd >= 0)
		close(ended.fd);
	while (waitpid(child, &status, 0) < 0 && errno == EINTR)
		;
	return WIFEXITED(status) && WEXITSTATUS(status) == 1;
}

static bool take_down(const char *path, GError **error)
{
	const char *const argv[] = {"fusermount3", "-u", "-z", "--", path, NULL};
	int status = 0;

	if (umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW) == 0)
		return true;
	return (g_spawn_sync(NULL, (char **)argv, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, NULL, NULL, &status, NULL) &&
		status == 0) ||
	       error_set(error, EBUSY,
			 "mountpoint %s has a leafdisk mount whose daemon is gone, and it cannot be taken down: "
			 "umount -l %s",
			 path, path);
}

bool mountpoint_settle(const char *path, GError **error)
{
	struct mount_entry entry;
	bool good = true;

	while (good && mounts_find(path, &entry) && strcmp(entry.type, "fuse.leafdisk") == 0) {
		if (!has_no_server(path))
			good = error_set(error, EBUSY,
					 "mountpoint %s is a leafdisk mount (of %s) already; leafctl umount %s ends it",
					 path, entry.source, path);
		else if (take_down(path, error))
			log_warning("mountpoint %s: the mount of %s there has lost its daemon, and was taken down",
				    path, entry.source);
		else
			good = false;
		mount_entry_clear(&entry);
	}
	mount_entry_clear(&entry);
	return good;
}

/* ---- What is in it ------------------------------------------------------------- */

static bool is_image_name(const char *name)
{
	return g_str_has_suffix(name, ".leaf") || g_str_has_suffix(name, ".raw") || g_str_has_suffix(name, ".img");
}

bool mountpoint_look_into(const char *path, GError **error)
{
	g_autoptr(GError) inner = NULL;
	GDir *directory = g_dir_open(path, 0, &inner);
	g_autofree char *image = NULL;
	unsigned entries = 0;
	const char *name;

	if (!directory)
		return error_set(error, EACCES, "mountpoint %s cannot be listed: %s", path, inner->message);
	for (; !image && (name = g_dir_read_name(directory)); entries++)
		image = is_image_name(name) ? g_strdup(name) : NULL;
	g_dir_close(directory);
	if (image)
		return error_set(
			error, EBUSY,
			"mountpoint %s holds disk images (%s), which the mount would hide; the pool comes first "
			"and the mountpoint, an empty directory, second: leafdisk POOL MOUNTPOINT",
			path, image);
	if (entries > 0)
		log_warning("mountpoint %s is not empty; what is in it is hidden until the unmount", path);
	return true;
}

/* ---- The lock ------------------------------------------------------------------ */

static bool lock_directory(int fd, const char *path, GError **error)
{
	for (unsigned tries = 0; flock(fd, LOCK_EX | LOCK_NB) < 0; tries++) {
		/* Where a directory takes no lock, there is none to wait for. */
		if (errno != EWOULDBLOCK)
			return true;
		if (tries == LOCK_TRIES)
			return error_set(error, EBUSY,
					 "mountpoint %s is locked by another program, which may be about to mount "
					 "something there",
					 path);
		g_usleep(LOCK_RETRY_US);
	}
	return true;
}

static bool is_free(const char *path, GError **error)
{
	struct mount_entry entry;
	bool taken = mounts_find(path, &entry) && strcmp(entry.type, "fuse.leafdisk") == 0;

	if (taken)
		error_set(error, EBUSY, "mountpoint %s has just become a leafdisk mount (of %s); one is enough", path,
			  entry.source);
	mount_entry_clear(&entry);
	return !taken;
}

int mountpoint_claim(const char *path, GError **error)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0) {
		error_set_errno(error, errno, "mountpoint %s cannot be used", path);
		return -1;
	}
	if (lock_directory(fd, path, error) && is_free(path, error))
		return fd;
	close(fd);
	return -1;
}

bool mountpoint_is_descriptor(const char *path, int *fd)
{
	int end = 0;

	return sscanf(path, "/dev/fd/%d%n", fd, &end) == 1 && path[end] == '\0' && *fd > 2;
}

/* The kernel tells the connection of a descriptor since version 6.15. */
char *mountpoint_of_descriptor(int fd)
{
	static const char key[] = "\nfuse_connection:";
	g_autofree char *path = g_strdup_printf("/proc/self/fdinfo/%d", fd);
	g_autofree char *text = NULL;
	const char *found;
	char *point = NULL;

	if (!g_file_get_contents(path, &text, NULL, NULL))
		return NULL;
	found = strstr(text, key);
	if (found)
		(void)mounts_look(0, (unsigned)strtoul(found + strlen(key), NULL, 10), &point);
	return point;
}
