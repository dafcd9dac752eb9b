/* The mark of a raw parent whose store has no extended attributes: a record beside it.
 *
 * It is the file .leafdisk/children/NAME in the directory of the image, which has the
 * name NAME, and is replaced whole: a temporary file is written and flushed, and renamed.
 * Who renames the image by hand takes it from its record. */
#include "record.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/fault.h"
#include "core/place.h"
#include "core/thread.h"

#define TEMPORARY ".new"

/* The directory of the records, and *NAME in it (g_free); or -errno. The image's path is told
 * by its descriptor: whatever name it was opened by may be a link's. */
static int open_records(const struct image_file *file, bool make, char **name)
{
	g_autofree char *link = g_strdup_printf("/proc/self/fd/%d", file->aio.buffered_fd);
	g_autofree char *path = g_file_read_link(link, NULL);
	g_autofree char *directory = path ? g_path_get_dirname(path) : NULL;
	int above = directory && g_path_is_absolute(directory) ? place_open_absolute(directory) : -ENOENT;
	int own = above < 0 ? above : place_enter(above, ".leafdisk", make);
	int records = own < 0 ? own : place_enter(own, "children", make);

	*name = path ? g_path_get_basename(path) : NULL;
	if (above >= 0)
		close(above);
	if (own >= 0)
		close(own);
	return records;
}

int record_read(const struct image_file *file, size_t bytes_max, char **mark)
{
	g_autofree char *name = NULL, *text = g_malloc0(bytes_max + 1);
	int records = open_records(file, false, &name), result = records, fd = -1;

	thread_assert_may_block();
	*mark = NULL;
	if (records >= 0 && (fd = openat(records, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC)) < 0)
		result = -errno;
	if (fd >= 0 && (result = (int)read(fd, text, bytes_max)) < 0)
		result = -errno;
	if (result >= 0 && fd >= 0)
		*mark = g_steal_pointer(&text);
	if (fd >= 0)
		close(fd);
	if (records >= 0)
		close(records);
	return result == -ENOENT ? 0 : MIN(result, 0);
}

static int write_whole(int records, const char *name, const char *mark)
{
	size_t length = strlen(mark);
	int fd = openat(records, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	int result = fd < 0 ? -errno : fault_hit("image.record", name);

	if (result == 0 && write(fd, mark, length) != (ssize_t)length)
		result = errno ? -errno : -ENOSPC;
	if (result == 0 && fsync(fd) < 0)
		result = -errno;
	if (fd >= 0)
		close(fd);
	return result;
}

static int replace(int records, const char *name, const char *mark)
{
	g_autofree char *temporary = g_strconcat(name, TEMPORARY, NULL);
	int result;

	(void)unlinkat(records, temporary, 0);
	errno = 0;
	result = write_whole(records, temporary, mark);
	if (result == 0 && renameat(records, temporary, records, name) < 0)
		result = -errno;
	if (result < 0)
		(void)unlinkat(records, temporary, 0);
	return result;
}

int record_write(const struct image_file *file, const char *mark)
{
	g_autofree char *name = NULL;
	int records = open_records(file, mark, &name), result = MIN(records, 0);

	thread_assert_may_block();
	if (result == 0 && mark)
		result = replace(records, name, mark);
	else if (result == 0 && unlinkat(records, name, 0) < 0)
		result = -errno;
	if (result == 0 && fsync(records) < 0)
		result = -errno;
	if (records >= 0)
		close(records);
	return !mark && result == -ENOENT ? 0 : result;
}
