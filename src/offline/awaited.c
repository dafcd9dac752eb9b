/* Hidden files that a snapshot is to give their names: whether a mark tells of one. */
#include "awaited.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/place.h"

/* More than any mark has. */
#define MARK_BYTES_MAX (64 << 10)

static int open_marks(int directory)
{
	int top = place_enter(directory, ".leafdisk", false), fd;

	if (top < 0)
		return top;
	fd = place_enter(top, "changes", false);
	close(top);
	return fd;
}

/* The length, or -errno. */
static ssize_t read_mark(int marks, const char *name, char text[MARK_BYTES_MAX])
{
	int fd = openat(marks, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	ssize_t length;
	struct stat st;

	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) < 0)
		length = -errno;
	else if (!S_ISREG(st.st_mode) || st.st_size > MARK_BYTES_MAX)
		length = -EFBIG;
	else if ((length = read(fd, text, MARK_BYTES_MAX)) < 0)
		length = -errno;
	close(fd);
	return length;
}

static void leave_out(GPtrArray *names, const char *text, size_t length)
{
	for (guint i = names->len; i-- > 0;)
		if (memmem(text, length, names->pdata[i], strlen(names->pdata[i])))
			g_ptr_array_remove_index(names, i);
}

/* A mark that is gone meanwhile was of files that have their names. False: what one says is not known. */
static bool read_marks(DIR *marks, GPtrArray *names)
{
	g_autofree char *text = g_malloc(MARK_BYTES_MAX);
	struct dirent *entry;

	while ((errno = 0, entry = readdir(marks))) {
		ssize_t length;

		if (entry->d_name[0] == '.')
			continue;
		length = read_mark(dirfd(marks), entry->d_name, text);
		if (length < 0 && length != -ENOENT)
			return false;
		leave_out(names, text, (size_t)MAX(length, 0));
	}
	return errno == 0;
}

void awaited_leave_out(int directory, GPtrArray *names)
{
	int fd = names->len ? open_marks(directory) : -ENOENT;
	DIR *marks = fd < 0 ? NULL : fdopendir(fd);

	if (fd != -ENOENT && (!marks || !read_marks(marks, names)))
		g_ptr_array_set_size(names, 0);
	if (marks)
		closedir(marks);
	else if (fd >= 0)
		close(fd);
}
