/* The file under an image: a pair of descriptors (O_DIRECT and page cache),
 * its lock, and blocking whole transfers for opening and tools. */
#ifndef LEAFDISK_IMAGE_FILE_H
#define LEAFDISK_IMAGE_FILE_H

#include <glib.h>
#include <stdbool.h>
#include <sys/stat.h>

#include "aio/file.h"

struct image_file {
	struct aio_file aio;
	char *path;
	dev_t device;
	ino_t inode;
	bool block_device;
	bool locked;
	bool reaches; /* the lock, to other hosts as well */
	int lock_fd;  /* of the open file that has the lock, where it is not this one; 0: none */
};

#define IMAGE_BY_PATH (-1)

/* The file that FD is open on, named PATH in messages, or with IMAGE_BY_PATH
 * the one at PATH, links followed. FLAGS are image.h's. Anything but a regular
 * file or a block device is refused. Locks against other opens unless
 * IMAGE_NO_LOCK. On failure FILE is closed. */
bool image_file_open(struct image_file *file, int fd, const char *path, unsigned flags, GError **error);
/* A descriptor to read it with, or -1 with errno. */
int image_file_reopen(int fd, const char *path, int open_flags);
void image_file_close(struct image_file *file);
/* FILE, opened with IMAGE_NO_LOCK, has the lock of FROM, which is open on the
 * same file; it lasts until both are closed. 0 or -errno. */
int image_file_share_lock(struct image_file *file, const struct image_file *from);

/* The lock of a writer becomes that of a reader. */
void image_file_lower_lock(struct image_file *file);

/* When it was made, realtime; 0: the file system does not tell. */
uint64_t image_file_born_ns(const struct image_file *file);
uint64_t image_file_allocated(const struct image_file *file);

/* Blocking, up to io_timeout (image.h) and one call more; 0 or -errno; a read past
 * the end is -ENODATA. */
int image_file_read(struct image_file *file, void *data, size_t length, uint64_t offset);
int image_file_write(struct image_file *file, const void *data, size_t length, uint64_t offset);
int image_file_sync(struct image_file *file);
/* The same, with its time stamps. */
int image_file_sync_times(struct image_file *file);
/* Gives space back; unsupported is not an error. */
int image_file_punch(struct image_file *file, uint64_t offset, uint64_t length);
/* Zeros in a way of fallocate(2), MODE; the length stays. */
int image_file_zero(struct image_file *file, int mode, uint64_t offset, uint64_t length);
int image_file_set_length(struct image_file *file, uint64_t bytes);

/* Creates PATH exclusively (mode 0600 less umask), or opens an existing block
 * device when FORCE. DIRECTORY is AT_FDCWD, or where PATH's last part is. The
 * descriptor, or -1 with ERROR. */
int image_file_create(int directory, const char *path, bool force, bool *block_device, GError **error);
/* What image_file_create() made. */
void image_file_remove(int directory, const char *path);
int image_file_stat(const struct image_file *file, struct stat *st);

#endif
