/* The file or block device under a cache: where it comes from, and what kind it is. */
#ifndef LEAFDISK_CACHE_STORAGE_H
#define LEAFDISK_CACHE_STORAGE_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "aio/file.h"

struct cache_storage {
	struct aio_file aio;
	/* What is there already, where nothing may be written to it: AIO is a file without a
	 * name then. Otherwise not open. */
	struct aio_file kept;
	bool keeps;
	char *path;
	bool block_device;
	bool named;   /* a file that had a name when it was opened */
	bool created; /* by this open */
};

/* Creates a missing file. PATH NULL: a file without a name in /var/tmp.
 * Anything but a regular file or a block device is refused. Locked against
 * other processes. On failure STORAGE is closed. */
bool cache_storage_open(struct cache_storage *storage, const char *path, GError **error);
/* PATH is only read. What is written goes to a file without a name, and with the process. */
bool cache_storage_open_kept(struct cache_storage *storage, const char *path, GError **error);
/* What the file was when it was opened. */
static inline const struct aio_file *cache_storage_before(const struct cache_storage *storage)
{
	return storage->keeps ? &storage->kept : &storage->aio;
}
void cache_storage_close(struct cache_storage *storage);

/* It has the name of an image, of POOL where that says so; one of zeros is an image too. */
bool cache_storage_is_named_like_image(const struct cache_storage *storage, const char *pool);

/* Makes a file BYTES long. Not for block devices. */
bool cache_storage_grow(const struct cache_storage *storage, uint64_t bytes, GError **error);

/* Of FILE, one of the two. Blocking; 0 or -errno; a read past the end is -ENODATA. All three
 * block-aligned. */
int cache_storage_read(const struct aio_file *file, void *data, size_t length, uint64_t offset);

#endif
