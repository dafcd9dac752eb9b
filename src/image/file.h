/* The file under an image: a pair of descriptors (O_DIRECT and page cache),
 * its lock, and blocking whole transfers for opening and tools. */
#ifndef LEAFDISK_IMAGE_FILE_H
#define LEAFDISK_IMAGE_FILE_H

#include <glib.h>
#include <stdbool.h>
#include <sys/stat.h>

#include "aio/queue.h"

struct image_file {
	struct aio_file aio;
	char *path;
	dev_t device;
	ino_t inode;
	bool block_device;
	bool locked;
};

/* FLAGS are image.h's. Anything but a regular file or a block device is
 * refused. Locks against other opens unless IMAGE_NO_LOCK. On failure FILE is
 * closed. */
bool image_file_open(struct image_file *file, const char *path, unsigned flags, GError **error);
void image_file_close(struct image_file *file);

/* Bytes; a block device's capacity. -errno on failure. */
int64_t image_file_size(const struct image_file *file);
uint64_t image_file_allocated(const struct image_file *file);

/* Blocking; 0 or -errno; a read past the end is -ENODATA. */
int image_file_read(const struct image_file *file, void *data, size_t length, uint64_t offset);
int image_file_write(const struct image_file *file, const void *data, size_t length, uint64_t offset);
int image_file_sync(const struct image_file *file);
/* Gives space back; unsupported is not an error. */
int image_file_punch(const struct image_file *file, uint64_t offset, uint64_t length);

/* Creates PATH exclusively (mode 0600 less umask), or opens an existing block
 * device when FORCE. The descriptor, or -1 with ERROR. */
int image_file_create(const char *path, bool force, bool *block_device, GError **error);

#endif
