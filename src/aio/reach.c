/* Whether a lock is seen by other hosts.
 *
 * A local file system has one kernel, which sees all locks. Of those that several hosts
 * share some have locks of their own, some keep them local by an option of the mount, and
 * of some nobody can tell: a server in user space may know nothing of locks. */
#include <stdio.h>
#include <string.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>

#include <linux/magic.h>

#include "aio/file.h"

#define MAGIC_CIFS 0xff534d42
#define MAGIC_SMB2 0xfe534d42
#define MAGIC_FUSE 0x65735546
#define MAGIC_VBOX 0x786f4256

/* The options of the mount that has DEVICE, after the "-" of its line. */
static char *mount_options(dev_t device)
{
	g_autofree char *text = NULL, *number = g_strdup_printf("%u:%u", major(device), minor(device));
	g_auto(GStrv) lines = NULL;

	if (!g_file_get_contents("/proc/self/mountinfo", &text, NULL, NULL))
		return NULL;
	lines = g_strsplit(text, "\n", -1);
	for (char **line = lines; *line; line++) {
		g_auto(GStrv) words = g_strsplit(*line, " ", -1);

		if (g_strv_length(words) > 6 && strcmp(words[2], number) == 0)
			return g_strdup(words[g_strv_length(words) - 1]);
	}
	return NULL;
}

static enum answer nfs_reaches(int fd)
{
	g_autofree char *options = NULL;
	struct stat st;

	if (fstat(fd, &st) < 0)
		return ANSWER_UNKNOWN;
	options = mount_options(st.st_dev);
	return options && strstr(options, "local_lock=none") ? ANSWER_YES : ANSWER_UNKNOWN;
}

enum answer aio_fd_lock_reaches(int fd)
{
	struct statfs fs;

	if (fstatfs(fd, &fs) < 0)
		return ANSWER_UNKNOWN;
	switch ((unsigned long)fs.f_type & 0xffffffff) {
	case NFS_SUPER_MAGIC:
		return nfs_reaches(fd);
	case V9FS_MAGIC:
	case AFS_SUPER_MAGIC:
	case SMB_SUPER_MAGIC:
	case MAGIC_CIFS:
	case MAGIC_SMB2:
	case MAGIC_FUSE:
	case MAGIC_VBOX:
		return ANSWER_UNKNOWN;
	default:
		return ANSWER_YES;
	}
}
