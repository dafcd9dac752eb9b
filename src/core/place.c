/* Files below a directory that others may write to.
 *
 * openat2() holds a whole path to the rules. Where the kernel has none (before
 * 5.6, or behind a filter of system calls) each name is a step of its own from
 * the descriptor of the one before: a step follows no link and never goes up,
 * so what it reaches is below the directory as well. */
#include "core/place.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "core/error.h"
#include "core/fault.h"
#include "core/log.h"
#include "core/nearest.h"

/* Somebody renamed a directory on the way just then. */
#define TRIES 8

#define STEP_FLAGS (O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)

static int open_at_once(int directory, const char *relative, int flags)
{
	struct open_how how = {
		.flags = (unsigned)flags,
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
	};
	int fault = fault_hit("place.openat2", relative);
	int fd = -1;

	if (fault)
		return fault;
	for (unsigned i = 0; i < TRIES && fd < 0; i++) {
		fd = (int)syscall(SYS_openat2, directory, relative, &how, sizeof(how));
		if (fd < 0 && errno != EAGAIN && errno != EINTR)
			break;
	}
	return fd < 0 ? -errno : fd;
}

/* One name; AT is closed. */
static int step(int at, const char *name, int flags)
{
	int fd = -EXDEV;

	if (strcmp(name, "..") != 0) {
		fd = openat(at, name, flags | O_NOFOLLOW);
		fd = fd < 0 ? -errno : fd;
	}
	close(at);
	return fd;
}

static int open_by_steps(int directory, const char *relative, int flags)
{
	g_auto(GStrv) names = g_strsplit(relative, "/", -1);
	int at = relative[0] == '/' ? -EXDEV : openat(directory, ".", STEP_FLAGS);

	if (at == -1)
		return -errno;
	for (char **name = names; *name && at >= 0; name++)
		at = step(at, *name, name[1] ? STEP_FLAGS : flags);
	return at;
}

/* A descriptor, or -errno. */
static int open_beneath(int directory, const char *relative, int flags)
{
	int fd = fault_hit("place.open", relative);

	if (fd == 0)
		fd = open_at_once(directory, relative, flags | O_NOFOLLOW | O_CLOEXEC);
	if (fd == -ENOSYS || fd == -EPERM)
		fd = open_by_steps(directory, relative, flags | O_CLOEXEC);
	return fd;
}

/* O_PATH where it can be entered and not listed. */
static int open_to_read(int directory, const char *relative)
{
	int fd = open_beneath(directory, relative, O_RDONLY | O_DIRECTORY);

	return fd == -EACCES ? open_beneath(directory, relative, O_PATH | O_DIRECTORY) : fd;
}

static int rename_alone(int directory, const char *from, const char *to)
{
	int fault = fault_hit("place.rename", to);

	if (fault)
		return fault;
	return renameat2(directory, from, directory, to, RENAME_NOREPLACE) < 0 ? -errno : 0;
}

/* From here on the file is called TO, whatever becomes of the other name: an error may be the
 * answer to a removal that was made. */
static void leave_name(int directory, const char *from, const char *to)
{
	int result = place_remove(directory, from);

	if (result < 0)
		log_warning("%s: is called %s now; its former name cannot be removed and may be there still: %s", from,
			    to, g_strerror(-result));
}

/* NFS and others know no rename that leaves what is there alone. Between a link and the
 * removal of the other name a crash leaves both, of one file. */
int place_rename_new(int directory, const char *from, const char *to)
{
	int result = rename_alone(directory, from, to);

	if (result != -EINVAL && result != -ENOSYS)
		return result;
	result = place_link(directory, from, directory, to);
	if (result == 0)
		leave_name(directory, from, to);
	return result;
}

int place_open_absolute(const char *path)
{
	int top = open("/", STEP_FLAGS), fd;

	if (top < 0)
		return -errno;
	fd = open_to_read(top, path[1] ? path + 1 : ".");
	close(top);
	return fd;
}

bool place_open(struct place *place, const char *directory, GError **error)
{
	char *path = realpath(directory, NULL);
	int fd = path ? place_open_absolute(path) : -errno;
	int result = fd < 0 ? fd : 0;
	struct stat st;

	*place = (struct place){.fd = -1};
	if (fd >= 0 && fstat(fd, &st) < 0)
		result = -errno;
	if (result == 0)
		*place = (struct place){fd, g_strdup(path), st.st_ino, st.st_uid};
	else if (fd >= 0)
		close(fd);
	free(path);
	if (result == 0)
		return true;
	error_set_errno(error, -result, "%s: is not a usable directory", directory);
	nearest_add_file(directory, error);
	return false;
}

void place_close(struct place *place)
{
	if (place->path)
		close(place->fd);
	g_clear_pointer(&place->path, g_free);
	place->fd = -1;
}

/* A directory that somebody has put there instead has another number. */
int place_renew(struct place *place)
{
	int fd = place_open_absolute(place->path);
	int result = fd < 0 ? fd : 0;
	struct stat st;

	if (fd >= 0 && fstat(fd, &st) < 0)
		result = -errno;
	if (result == 0 && (st.st_ino != place->inode || st.st_uid != place->owner))
		result = -ESTALE;
	if (result == 0 && dup3(fd, place->fd, O_CLOEXEC) < 0)
		result = -errno;
	if (fd >= 0)
		close(fd);
	return result;
}

int place_stat(struct place *place, struct stat *st)
{
	if (fstat(place->fd, st) == 0)
		return 0;
	(void)place_renew(place);
	return fstat(place->fd, st) < 0 ? -errno : 0;
}

const char *place_relative(const struct place *place, const char *path)
{
	size_t length = strlen(place->path);

	if (strcmp(place->path, "/") == 0)
		return path[0] == '/' && path[1] ? path + 1 : NULL;
	return strncmp(path, place->path, length) == 0 && path[length] == '/' ? path + length + 1 : NULL;
}

int place_open_directory(const struct place *place, const char *relative)
{
	return open_beneath(place->fd, *relative ? relative : ".", O_PATH | O_DIRECTORY);
}

/* FD, unless it cannot be looked at or is a link. */
static int take_file(int fd, struct stat *st)
{
	int result = fd < 0 ? fd : 0;

	if (fd >= 0 && fstat(fd, st) < 0)
		result = -errno;
	if (result == 0 && S_ISLNK(st->st_mode))
		result = -ELOOP;
	if (result < 0 && fd >= 0)
		close(fd);
	return result < 0 ? result : fd;
}

int place_find(const struct place *place, const char *relative, struct stat *st)
{
	return take_file(open_beneath(place->fd, relative, O_PATH), st);
}

int place_find_at(int directory, const char *name, struct stat *st)
{
	int fd = strchr(name, '/') || strcmp(name, "..") == 0 ? -EXDEV : fault_hit("place.open", name);

	if (fd == 0) {
		fd = openat(directory, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
		fd = fd < 0 ? -errno : fd;
	}
	return take_file(fd, st);
}

int place_look_at(int directory, const char *name, struct stat *st)
{
	int fault = fault_hit("place.look", name);

	if (fault)
		return fault;
	return fstatat(directory, name, st, AT_SYMLINK_NOFOLLOW) < 0 ? -errno : 0;
}

int place_link(int from, const char *name, int to, const char *new_name)
{
	int fault = fault_hit("place.link", new_name);

	if (fault)
		return fault;
	return linkat(from, name, to, new_name, 0) < 0 ? -errno : 0;
}

int place_remove(int directory, const char *name)
{
	int fault = fault_hit("place.unlink", name);

	if (fault)
		return fault;
	return unlinkat(directory, name, 0) < 0 && errno != ENOENT ? -errno : 0;
}

void place_sweep(int directory, const char *prefix, unsigned seconds)
{
	int fd = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *list = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;
	struct stat st;

	while (list && (entry = readdir(list)))
		if (g_str_has_prefix(entry->d_name, prefix) &&
		    fstatat(fd, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
		    st.st_mtim.tv_sec + (time_t)seconds < time(NULL))
			(void)unlinkat(fd, entry->d_name, 0);
	if (list)
		closedir(list);
	else if (fd >= 0)
		close(fd);
}

static int make_directory(int directory, const char *name)
{
	if (mkdirat(directory, name, 0700) < 0)
		return errno == EEXIST ? 0 : -errno;
	return fsync(directory) < 0 ? -errno : 0;
}

static int enter(int directory, const char *name)
{
	int fd = fault_hit("place.open", name);

	if (fd < 0)
		return fd;
	fd = openat(directory, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

int place_enter(int directory, const char *name, bool make)
{
	int fd = enter(directory, name);
	int result;

	if (fd != -ENOENT || !make)
		return fd;
	result = make_directory(directory, name);
	return result < 0 ? result : enter(directory, name);
}
