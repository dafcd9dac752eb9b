/* A name that lies in a leafdisk mount, and the image in the pool behind it.
 *
 * The kernel tells: /proc/self/mountinfo has one line for each mount, with the
 * device number that stat() shows for the files in it, the mount point, which
 * part of the file system is seen there, and the source, which is the pool. */
#include "mounted.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include "control/tree.h"
#include "core/error.h"
#include "core/nearest.h"
#include "pool/pool.h"

#define FILE_SYSTEM_TYPE "fuse.leafdisk"
/* However many mounts are asked for a disk. */
#define ASK_MS 1000
#define ASKED_MAX 100

/* One line of mountinfo: see proc_pid_mountinfo(5). */
typedef struct mount_line {
	dev_t device;
	char *root;
	char *point;
	char *source;
} mount_line;

static void mount_line_clear(struct mount_line *line)
{
	g_clear_pointer(&line->root, g_free);
	g_clear_pointer(&line->point, g_free);
	g_clear_pointer(&line->source, g_free);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(mount_line, mount_line_clear)

void mounted_free(struct mounted *mount)
{
	if (!mount)
		return;
	g_free(mount->pool);
	g_free(mount->name);
	g_free(mount->top);
	g_free(mount);
}

/* False for lines of other file systems. Fields after the sixth are optional
 * up to a "-"; then come type and source. Names are escaped in octal. */
static bool parse_line(const char *text, struct mount_line *line)
{
	g_auto(GStrv) fields = g_strsplit(text, " ", -1);
	unsigned count = g_strv_length(fields);
	unsigned major_number;
	unsigned minor_number;
	unsigned dash = 6;

	while (dash < count && strcmp(fields[dash], "-") != 0)
		dash++;
	if (dash + 2 >= count || strcmp(fields[dash + 1], FILE_SYSTEM_TYPE) != 0 ||
	    sscanf(fields[2], "%u:%u", &major_number, &minor_number) != 2)
		return false;
	line->device = makedev(major_number, minor_number);
	line->root = g_strcompress(fields[3]);
	line->point = g_strcompress(fields[4]);
	line->source = g_strcompress(fields[dash + 2]);
	return true;
}

/* What follows the directory PREFIX in PATH, without slashes before it; NULL
 * when PATH is not below it. */
static const char *path_below(const char *path, const char *prefix)
{
	size_t length = strlen(prefix);

	while (length > 0 && prefix[length - 1] == '/')
		length--;
	if (strncmp(path, prefix, length) != 0 || (path[length] != '/' && path[length] != '\0'))
		return NULL;
	return path + length + strspn(path + length, "/");
}

static struct mounted *mounted_new(const struct mount_line *line, const char *rest)
{
	struct mounted *mount = g_new0(struct mounted, 1);
	g_autofree char *inner = g_build_filename(line->root, rest, NULL);

	mount->pool = g_strdup(line->source);
	mount->device = line->device;
	mount->name = g_strdup(inner + strspn(inner, "/"));
	return mount;
}

/* The mount with the longest mount point counts: it hides the others. What is
 * mounted there may be a part (mount --bind); the whole is then elsewhere. */
static struct mounted *find_mount(const char *table, const char *path, dev_t device)
{
	g_auto(GStrv) lines = g_strsplit(table, "\n", -1);
	g_autofree char *top = NULL;
	struct mounted *found = NULL;
	size_t longest = 0;

	for (char **text = lines; *text; text++) {
		g_auto(mount_line) line = {0};
		const char *rest;

		if (!parse_line(*text, &line) || line.device != device)
			continue;
		if (!top && strcmp(line.root, "/") == 0)
			top = g_strdup(line.point);
		rest = path_below(path, line.point);
		if (!rest || strlen(line.point) < longest)
			continue;
		longest = strlen(line.point);
		mounted_free(found);
		found = mounted_new(&line, rest);
	}
	if (found)
		found->top = g_steal_pointer(&top);
	return found;
}

char *mounted_point_of_pool(const char *path)
{
	g_autofree char *table = NULL;
	g_auto(GStrv) lines = NULL;
	char *pool = realpath(path, NULL), *point = NULL;

	if (pool && g_file_get_contents("/proc/self/mountinfo", &table, NULL, NULL))
		lines = g_strsplit(table, "\n", -1);
	for (char **text = lines; text && *text && !point; text++) {
		g_auto(mount_line) line = {0};

		if (parse_line(*text, &line) && strcmp(line.source, pool) == 0)
			point = g_steal_pointer(&line.point);
	}
	free(pool);
	return point;
}

/* Asked of the control tree: the file itself may be on a store that hangs. */
static bool has_disk(const char *point, const char *disk)
{
	g_autofree char *path = g_build_filename(point, CONTROL_NAME, "disks", disk, NULL);

	return access(path, F_OK) == 0;
}

/* A child for each of TABLE's mounts, which may be somebody else's and hang, writes the file of DISK there, and a new
 * line, to FD. */
static GArray *ask_mounts(const char *table, const char *disk, int fd)
{
	g_auto(GStrv) lines = g_strsplit(table, "\n", -1);
	GArray *children = g_array_new(FALSE, FALSE, sizeof(pid_t));

	for (char **text = lines; *text && children->len < ASKED_MAX; text++) {
		g_auto(mount_line) line = {0};
		pid_t child;

		if (!parse_line(*text, &line) || strcmp(line.root, "/") != 0)
			continue;
		child = fork();
		if (child == 0) {
			if (has_disk(line.point, disk))
				dprintf(fd, "%s/%s\n", line.point, disk);
			_exit(0);
		}
		if (child > 0)
			g_array_append_val(children, child);
	}
	return children;
}

/* All that is told before all have ended, or the time is over. */
static char *hear(int fd)
{
	gint64 until_us = g_get_monotonic_time() + ASK_MS * (gint64)1000;
	GString *told = g_string_new(NULL);
	struct pollfd ready = {.fd = fd, .events = POLLIN};
	char part[PATH_MAX];
	ssize_t length = 1;

	while (length > 0) {
		gint64 left_us = until_us - g_get_monotonic_time();

		length = left_us > 0 && poll(&ready, 1, (int)(left_us / 1000) + 1) > 0 ? read(fd, part, sizeof(part))
										       : 0;
		if (length > 0)
			g_string_append_len(told, part, length);
	}
	return g_string_free(told, FALSE);
}

static void end_all(GArray *children)
{
	for (guint i = 0; i < children->len; i++) {
		(void)kill(g_array_index(children, pid_t, i), SIGKILL);
		(void)waitpid(g_array_index(children, pid_t, i), NULL, WNOHANG);
	}
	g_array_unref(children);
}

/* NULL: none has it, or several. */
static char *ask_for_disk(const char *table, const char *disk)
{
	g_autofree char *told = NULL;
	const char *end;
	GArray *children;
	int fds[2];

	if (pipe2(fds, O_CLOEXEC) < 0)
		return NULL;
	children = ask_mounts(table, disk, fds[1]);
	close(fds[1]);
	told = hear(fds[0]);
	close(fds[0]);
	end_all(children);
	end = strchr(told, '\n');
	return end && !end[1] ? g_strndup(told, (gsize)(end - told)) : NULL;
}

char *mounted_disk_of_name(const char *name)
{
	g_autofree char *disk = g_str_has_suffix(name, ".img") ? g_strdup(name) : g_strconcat(name, ".img", NULL);
	g_autofree char *table = NULL;

	if (strchr(name, '/') || !g_file_get_contents("/proc/self/mountinfo", &table, NULL, NULL))
		return NULL;
	return ask_for_disk(table, disk);
}

bool mounted_is_disk(const char *path)
{
	g_autoptr(mounted) mount = mounted_find(path);

	return mount && mount->top && *mount->name && has_disk(mount->top, mount->name);
}

char *mounted_place(const char *table, dev_t device)
{
	g_auto(GStrv) lines = g_strsplit(table, "\n", -1);

	for (char **text = lines; *text; text++) {
		g_auto(mount_line) line = {0};

		if (parse_line(*text, &line) && line.device == device)
			return g_steal_pointer(&line.point);
	}
	return NULL;
}

static struct mounted *find_whole_path(const char *table, const char *path)
{
	struct mounted *mount;
	struct stat st;
	char *absolute;

	if (stat(path, &st) != 0)
		return NULL;
	absolute = realpath(path, NULL);
	if (!absolute)
		return NULL;
	mount = find_mount(table, absolute, st.st_dev);
	free(absolute);
	return mount;
}

/* What lies right in a mount and is named like a disk is not looked at: where its store
 * hangs nobody gets away from that, not by a signal either. */
static struct mounted *find_disk(const char *table, const char *path)
{
	g_autofree char *directory = g_path_get_dirname(path), *name = g_path_get_basename(path);
	struct mounted *mount = g_str_has_suffix(path, ".img") ? find_whole_path(table, directory) : NULL;

	if (mount && !*mount->name) {
		g_free(mount->name);
		mount->name = g_steal_pointer(&name);
		return mount;
	}
	mounted_free(mount);
	return NULL;
}

struct mounted *mounted_find(const char *path)
{
	g_autofree char *table = NULL;
	struct mounted *mount;

	if (!g_file_get_contents("/proc/self/mountinfo", &table, NULL, NULL))
		return NULL;
	mount = find_disk(table, path);
	return mount ? mount : find_whole_path(table, path);
}

/* The pool's own rules make the name, so the pool is asked. */
static char *pool_image_path(const struct mounted *mount, const char *layers, GError **error)
{
	struct disk_pool_options options = {.path = mount->pool, .layers = layers, .read_only = true, .quiet = true};
	struct disk_pool *pool = disk_pool_open(&options, error);
	struct disk *disk;
	char *path = NULL;

	if (!pool)
		return NULL;
	disk = disk_pool_lookup(pool, mount->name, NULL);
	if (disk)
		path = g_strdup(disk_image_path(disk));
	else
		error_set(error, ENOENT,
			  "no image in the pool %s makes the disk %s: it is broken, gone, a fork of an ephemeral disk, "
			  "or put together by a [disk] group of the mount's configuration; name its image instead",
			  mount->pool, mount->name);
	if (disk)
		disk_unref(disk);
	disk_pool_close(pool);
	return path;
}

char *mounted_image_path(const char *path, const char *layers, GError **error)
{
	g_autoptr(mounted) mount = mounted_find(path);

	if (!mount)
		return g_strdup(path);
	if (*mount->name && !strchr(mount->name, '/')) {
		char *image = pool_image_path(mount, layers, error);

		if (!image)
			nearest_add_file(path, error);
		return image;
	}
	error_set(error, EINVAL, "%s is no disk; expected an image or a file in the mount like web1.img", path);
	return NULL;
}

bool mounted_allow_new(const char *path, GError **error)
{
	g_autofree char *directory = g_path_get_dirname(path);
	g_autoptr(mounted) mount = mounted_find(directory);

	if (!mount)
		return true;
	return error_set(error, EINVAL, "cannot create %s: it is in a mount; create the image in the pool, %s", path,
			 mount->pool);
}
