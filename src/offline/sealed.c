/* The images of a pool that were sealed: which there are. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "core/error.h"
#include "core/place.h"
#include "layer/chain.h"
#include "offline/offline.h"

/* As a mount finds it: through no link. */
static int open_directory(const char *pool)
{
	int top = open(pool, O_RDONLY | O_DIRECTORY | O_CLOEXEC), fd;

	if (top < 0)
		return -errno;
	fd = place_enter(top, SEALED_DIRECTORY, false);
	close(top);
	return fd;
}

static int list(int fd, const char *directory, void (*each)(void *opaque, const char *path), void *opaque)
{
	DIR *names = fdopendir(fd);
	struct dirent *entry;
	int result;

	if (!names) {
		result = -errno;
		close(fd);
		return result;
	}
	while ((errno = 0, entry = readdir(names))) {
		g_autofree char *path = g_build_filename(directory, entry->d_name, NULL);

		if (entry->d_name[0] != '.')
			each(opaque, path);
	}
	result = -errno;
	closedir(names);
	return result;
}

bool offline_foreach_sealed(const char *pool, void (*each)(void *opaque, const char *path), void *opaque,
			    GError **error)
{
	g_autofree char *directory = g_build_filename(pool, SEALED_DIRECTORY, NULL);
	int fd = open_directory(pool), result;

	if (fd == -ENOENT || fd == -ENOTDIR || fd == -ELOOP)
		return true;
	result = fd < 0 ? fd : list(fd, directory, each, opaque);
	return result == 0 || error_set_errno(error, -result, "%s: cannot be listed", directory);
}
