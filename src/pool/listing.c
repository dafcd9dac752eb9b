/* Lists a pool's directory. */
#include "listing.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/error.h"

static int open_directory(const struct place *place, DIR **directory, dev_t *device)
{
	int fd = openat(place->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), result;
	struct stat st;

	*directory = NULL;
	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) == 0)
		*directory = fdopendir(fd);
	result = *directory ? 0 : -errno;
	*device = *directory ? st.st_dev : 0;
	if (result < 0)
		close(fd);
	return result;
}

static int read_entries(DIR *directory, listing_each_fn *each, void *opaque)
{
	struct dirent *entry;

	while ((errno = 0, entry = readdir(directory)))
		if (entry->d_name[0] != '.')
			each(opaque, entry->d_name, entry->d_ino);
	return -errno;
}

bool listing_read(const struct place *place, dev_t *device, listing_each_fn *each, void *opaque, GError **error)
{
	DIR *directory;
	int result = open_directory(place, &directory, device);

	if (result == 0) {
		result = read_entries(directory, each, opaque);
		closedir(directory);
	}
	return result == 0 || error_set_errno(error, -result, "%s: cannot be listed", place->path);
}
