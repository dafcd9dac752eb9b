/* Loop devices on an image's file.
 *
 * The kernel has the file open for a loop device and locks nothing, so a device is looked for as a lock would be
 * asked for: one that can write the file keeps everybody off, one that cannot keeps writers off.
 *
 * Its file's path is in sysfs, as it is seen from here, and LOOP_GET_STATUS64 tells which file that is. The kernel
 * asks the file's own file system for that, which may hang, or be a mount of ours: so the only devices that are asked
 * are those whose file has the last name of the image, or all, when that has several names. Who may not ask compares
 * paths.
 *
 * Source: linux/loop.h, drivers/block/loop.c. */
#include "loop_device.h"

#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <linux/loop.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "aio/mount_point.h"
#include "core/error.h"
#include "core/thread.h"

#define DEVICES "/sys/block"

/* One that is being detached has its file for a moment more. */
#define PATIENCE_US G_USEC_PER_SEC
#define RETRY_US (50 * 1000)

struct backing {
	char *path; /* as the kernel has it */
	struct stat st;
};

/* Without its line end. NULL: DEVICE has no such. */
static char *read_attribute(const char *device, const char *name)
{
	g_autofree char *path = g_build_filename(DEVICES, device, name, NULL);
	char *text = NULL;

	if (g_file_get_contents(path, &text, NULL, NULL))
		g_strchomp(text);
	return text;
}

static bool have_one_name(const char *left, const char *right)
{
	g_autofree char *left_name = g_path_get_basename(left), *right_name = g_path_get_basename(right);

	return strcmp(left_name, right_name) == 0;
}

static enum answer ask_device(const char *device, const struct stat *st)
{
	g_autofree char *node = g_build_filename("/dev", device, NULL);
	int fd = open(node, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	enum answer answer = ANSWER_UNKNOWN;
	struct loop_info64 info;

	if (fd < 0)
		return ANSWER_UNKNOWN;
	if (ioctl(fd, LOOP_GET_STATUS64, &info) == 0)
		answer = info.lo_inode == st->st_ino && info.lo_device == st->st_dev ? ANSWER_YES : ANSWER_NO;
	close(fd);
	return answer;
}

static bool is_on(const char *device, const struct backing *backing)
{
	g_autofree char *path = read_attribute(device, "loop/backing_file");

	if (!path || (backing->st.st_nlink <= 1 && !have_one_name(path, backing->path)))
		return false;
	return answer_or(ask_device(device, &backing->st), strcmp(path, backing->path) == 0);
}

static bool only_reads(const char *device)
{
	g_autofree char *ro = read_attribute(device, "ro");

	return g_strcmp0(ro, "1") == 0;
}

/* The device that keeps off; NULL: none. */
static char *find_device(const struct backing *backing, bool writable)
{
	g_autoptr(GDir) devices = g_dir_open(DEVICES, 0, NULL);
	const char *name;

	while (devices && (name = g_dir_read_name(devices)))
		if (g_str_has_prefix(name, "loop") && is_on(name, backing) && (writable || !only_reads(name)))
			return g_strdup(name);
	return NULL;
}

static bool refuse(const struct aio_file *file, const char *device, GError **error)
{
	g_autofree char *numbers = read_attribute(device, "dev");
	g_autofree char *point = numbers ? mount_point_of(numbers) : NULL;

	if (point)
		return error_set(error, EBUSY,
				 "%s: /dev/%s is set up on it, and mounted on %s; umount that, and losetup -d /dev/%s "
				 "if it stays",
				 file->name, device, point, device);
	return error_set(error, EBUSY, "%s: /dev/%s is set up on it; losetup -d /dev/%s takes it off", file->name,
			 device, device);
}

bool loop_device_allows(const struct aio_file *file, bool writable, GError **error)
{
	g_autofree char *link = g_strdup_printf("/proc/self/fd/%d", file->buffered_fd);
	g_autofree char *path = g_file_read_link(link, NULL), *device = NULL;
	struct backing backing = {.path = path};

	thread_assert_may_block();
	if (!path || fstat(file->buffered_fd, &backing.st) < 0 || !S_ISREG(backing.st.st_mode))
		return true;
	for (gint64 left = PATIENCE_US; (device = find_device(&backing, writable)) && left > 0; left -= RETRY_US) {
		g_free(device);
		g_usleep(RETRY_US);
	}
	return !device || refuse(file, device, error);
}
