/* The file or block device under a cache: descriptors and lock (aio/file.h).
 *
 * O_DIRECT is for records and reads, the page cache for the superblock, for recovery,
 * and for all where the file system has no O_DIRECT. */
#include "storage.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "aio/foreign.h"
#include "core/error.h"
#include "core/fault.h"

#define UNNAMED_DIRECTORY "/var/tmp"

static int open_unnamed(void)
{
	char path[] = UNNAMED_DIRECTORY "/leafdisk-cache-XXXXXX";
	int fd = open(UNNAMED_DIRECTORY, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

	if (fd >= 0)
		return fd;
	fd = mkostemp(path, O_CLOEXEC);
	if (fd >= 0)
		unlink(path);
	return fd;
}

static int open_named(struct cache_storage *storage, const char *path)
{
	int flags = O_RDWR | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
	int fd = open(path, flags);

	if (fd >= 0 || errno != ENOENT)
		return fd;
	fd = open(path, flags | O_CREAT | O_EXCL, 0600);
	storage->created = fd >= 0;
	return fd;
}

static bool refuse_unwritable(const char *path, int errnum, GError **error)
{
	return error_set(
		error, errnum,
		"%s: cannot be opened to be written: %s; \"leafctl cache drain %s\" brings what is dirty in it to "
		"the pool all the same",
		path, g_strerror(errnum), path);
}

static bool open_buffered(struct cache_storage *storage, const char *path, GError **error)
{
	struct stat st;
	int opened;

	storage->aio.buffered_fd = path ? open_named(storage, path) : open_unnamed();
	opened = errno;
	if (storage->aio.buffered_fd < 0 && path && opened != EISDIR && access(path, R_OK) == 0)
		return refuse_unwritable(path, opened, error);
	if (storage->aio.buffered_fd < 0)
		return error_set_errno(error, opened, "%s: cannot be opened as a cache", storage->path);
	if (!aio_fd_look(storage->aio.buffered_fd, storage->path, &st, error))
		return false;
	storage->block_device = S_ISBLK(st.st_mode);
	storage->named = path && S_ISREG(st.st_mode) && st.st_nlink > 0;
	aio_file_set_device(&storage->aio, &st);
	return aio_file_lock(&storage->aio, true,
			     "; each mount needs a cache of its own, and one that has ended uses its until all is "
			     "written back",
			     error) != ANSWER_NO;
}

static void init(struct cache_storage *storage, const char *path)
{
	*storage = (struct cache_storage){
		.path = g_strdup(path ? path : UNNAMED_DIRECTORY "/leafdisk-cache (unlinked)"),
	};
	aio_file_init(&storage->aio, storage->path, STORE_CACHE);
	aio_file_init(&storage->kept, storage->path, STORE_CACHE);
}

static bool open_kept(struct cache_storage *storage, const char *path, GError **error)
{
	struct stat st;

	storage->keeps = true;
	storage->kept.buffered_fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (storage->kept.buffered_fd < 0)
		return error_set_errno(error, errno, "%s: cannot be opened as a cache", path);
	if (!aio_fd_look(storage->kept.buffered_fd, path, &st, error) ||
	    aio_file_lock(&storage->kept, false, "; unmount that first", error) == ANSWER_NO)
		return false;
	storage->block_device = S_ISBLK(st.st_mode);
	aio_file_set_device(&storage->kept, &st);
	storage->aio.buffered_fd = open_unnamed();
	if (storage->aio.buffered_fd < 0)
		return error_set_errno(error, errno, "no file can be made in " UNNAMED_DIRECTORY);
	if (!aio_fd_look(storage->aio.buffered_fd, storage->path, &st, error))
		return false;
	aio_file_set_device(&storage->aio, &st);
	return true;
}

bool cache_storage_open_kept(struct cache_storage *storage, const char *path, GError **error)
{
	int64_t bytes = -1;

	init(storage, path);
	if (open_kept(storage, path, error)) {
		bytes = aio_file_size(&storage->kept);
		if (bytes < 0)
			error_set_errno(error, (int)-bytes, "%s: its size cannot be told", path);
	}
	if (bytes >= 0 && cache_storage_grow(storage, (uint64_t)bytes, error)) {
		aio_file_open_direct(&storage->aio, O_RDWR);
		aio_file_open_direct(&storage->kept, O_RDONLY);
		return true;
	}
	cache_storage_close(storage);
	return false;
}

bool cache_storage_open(struct cache_storage *storage, const char *path, GError **error)
{
	init(storage, path);
	if (!open_buffered(storage, path, error)) {
		cache_storage_close(storage);
		storage->created = false;
		return false;
	}
	aio_file_open_direct(&storage->aio, O_RDWR);
	return true;
}

void cache_storage_close(struct cache_storage *storage)
{
	if (!storage->path)
		return;
	aio_file_close(&storage->aio);
	aio_file_close(&storage->kept);
	g_clear_pointer(&storage->path, g_free);
}

static bool is_below(const char *path, const char *directory)
{
	char *real = realpath(path, NULL), *above = realpath(directory ? directory : "", NULL);
	size_t length = above ? strlen(above) : 0;
	bool inside = real && above && strncmp(real, above, length) == 0 && real[length] == '/';

	free(real);
	free(above);
	return inside;
}

/* Elsewhere .img says nothing: it may be a disk of another mount. */
bool cache_storage_is_named_like_image(const struct cache_storage *storage, const char *pool)
{
	return g_str_has_suffix(storage->path, ".raw") || g_str_has_suffix(storage->path, ".leaf") ||
	       foreign_format_of_name(storage->path) ||
	       (g_str_has_suffix(storage->path, ".img") && is_below(storage->path, pool));
}

bool cache_storage_grow(const struct cache_storage *storage, uint64_t bytes, GError **error)
{
	if (ftruncate(storage->aio.buffered_fd, (off_t)bytes) == 0)
		return true;
	return error_set_errno(error, errno, "%s: cannot be made %" G_GUINT64_FORMAT " bytes long", storage->path,
			       bytes);
}

int cache_storage_read(const struct aio_file *file, void *data, size_t length, uint64_t offset)
{
	int fd = file->direct_fd >= 0 ? file->direct_fd : file->buffered_fd;

	return fault_hit("cache.read", file->name) < 0 ? -EIO : aio_fd_read(fd, data, length, offset);
}
