/* A second view of a directory, as another host has one: a file system in user space that
 * keeps the locks of its files to itself.
 *
 *     view SOURCE MOUNTPOINT -f */
#define FUSE_USE_VERSION 31
#define _GNU_SOURCE

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fuse.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>
#include <unistd.h>

static int source;

/* PATH within the source. */
static const char *inside(const char *path)
{
	return path[1] ? path + 1 : ".";
}

static int result_of(int result)
{
	return result < 0 ? -errno : 0;
}

static int view_getattr(const char *path, struct stat *st, struct fuse_file_info *file)
{
	(void)file;
	return result_of(fstatat(source, inside(path), st, AT_SYMLINK_NOFOLLOW));
}

static int view_readlink(const char *path, char *target, size_t size)
{
	ssize_t n = readlinkat(source, inside(path), target, size - 1);

	if (n < 0)
		return -errno;
	target[n] = '\0';
	return 0;
}

static int view_readdir(const char *path, void *buffer, fuse_fill_dir_t fill, off_t offset, struct fuse_file_info *file,
			enum fuse_readdir_flags flags)
{
	int fd = openat(source, inside(path), O_RDONLY | O_DIRECTORY);
	DIR *directory = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;

	(void)offset;
	(void)file;
	(void)flags;
	if (!directory)
		return -errno;
	while ((entry = readdir(directory)))
		fill(buffer, entry->d_name, NULL, 0, 0);
	closedir(directory);
	return 0;
}

static int view_open(const char *path, struct fuse_file_info *file)
{
	int fd = openat(source, inside(path), file->flags & ~(O_DIRECT | O_NOFOLLOW));

	file->fh = (uint64_t)fd;
	file->direct_io = 1;
	return result_of(fd);
}

static int view_create(const char *path, mode_t mode, struct fuse_file_info *file)
{
	int fd = openat(source, inside(path), file->flags | O_CREAT, mode);

	file->fh = (uint64_t)fd;
	return result_of(fd);
}

static int view_release(const char *path, struct fuse_file_info *file)
{
	(void)path;
	return result_of(close((int)file->fh));
}

static int view_read(const char *path, char *data, size_t size, off_t offset, struct fuse_file_info *file)
{
	ssize_t n = pread((int)file->fh, data, size, offset);

	(void)path;
	return n < 0 ? -errno : (int)n;
}

static int view_write(const char *path, const char *data, size_t size, off_t offset, struct fuse_file_info *file)
{
	ssize_t n = pwrite((int)file->fh, data, size, offset);

	(void)path;
	return n < 0 ? -errno : (int)n;
}

static int view_fsync(const char *path, int data, struct fuse_file_info *file)
{
	(void)path;
	(void)data;
	return result_of(fsync((int)file->fh));
}

static int view_truncate(const char *path, off_t size, struct fuse_file_info *file)
{
	int fd = file ? (int)file->fh : openat(source, inside(path), O_WRONLY);
	int result = result_of(ftruncate(fd, size));

	if (!file && fd >= 0)
		close(fd);
	return result;
}

static int view_utimens(const char *path, const struct timespec times[2], struct fuse_file_info *file)
{
	(void)file;
	return result_of(utimensat(source, inside(path), times, AT_SYMLINK_NOFOLLOW));
}

static int view_rename(const char *from, const char *to, unsigned flags)
{
	return result_of(renameat2(source, inside(from), source, inside(to), flags));
}

static int view_unlink(const char *path)
{
	return result_of(unlinkat(source, inside(path), 0));
}

static int view_mkdir(const char *path, mode_t mode)
{
	return result_of(mkdirat(source, inside(path), mode));
}

static int view_rmdir(const char *path)
{
	return result_of(unlinkat(source, inside(path), AT_REMOVEDIR));
}

static int view_fsyncdir(const char *path, int data, struct fuse_file_info *file)
{
	(void)path;
	(void)data;
	(void)file;
	return 0;
}

static int view_statfs(const char *path, struct statvfs *st)
{
	(void)path;
	return result_of(fstatvfs(source, st));
}

static const struct fuse_operations operations = {
	.getattr = view_getattr,
	.readlink = view_readlink,
	.readdir = view_readdir,
	.open = view_open,
	.create = view_create,
	.release = view_release,
	.read = view_read,
	.write = view_write,
	.fsync = view_fsync,
	.truncate = view_truncate,
	.utimens = view_utimens,
	.rename = view_rename,
	.unlink = view_unlink,
	.mkdir = view_mkdir,
	.rmdir = view_rmdir,
	.fsyncdir = view_fsyncdir,
	.statfs = view_statfs,
};

int main(int argc, char **argv)
{
	source = argc > 1 ? open(argv[1], O_RDONLY | O_DIRECTORY) : -1;
	if (source < 0) {
		perror(argc > 1 ? argv[1] : "view SOURCE MOUNTPOINT");
		return 1;
	}
	argv[1] = argv[0];
	return fuse_main(argc - 1, argv + 1, &operations, NULL);
}
