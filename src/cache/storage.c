/* The file or block device under a cache: descriptors, lock, size.
 *
 * Both descriptors are of one file: O_DIRECT for records and reads, the page
 * cache for the superblock, for recovery, and for all where the file system
 * has no O_DIRECT. The lock is an open-file-description lock on byte 0. */
#include "storage.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/bytes.h"
#include "core/error.h"
#include "core/fault.h"
#include "core/log.h"
#include "transfer.h"

/* As in linux/fs.h, which also defines a BLOCK_SIZE of its own. */
#define DEVICE_SIZE_IOCTL _IOR(0x12, 114, size_t)

/* A daemon whose mount has just gone still holds its cache for a moment. */
#define LOCK_PATIENCE_US (G_USEC_PER_SEC)
#define LOCK_RETRY_US (10 * 1000)

#define UNNAMED_DIRECTORY "/var/tmp"

static bool lock_file(struct cache_storage *storage, GError **error)
{
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 1};
	gint64 patience = LOCK_PATIENCE_US;

	while (fcntl(storage->aio.buffered_fd, F_OFD_SETLK, &lock) < 0) {
		if (errno != EAGAIN && errno != EACCES) {
			log_warning("%s: cannot be locked here (%s): nothing keeps a second program from writing it",
				    storage->path, strerror(errno));
			return true;
		}
		if (patience <= 0)
			return error_set(error, EBUSY,
					 "%s: is in use by another program; give each mount a cache of its own",
					 storage->path);
		g_usleep(LOCK_RETRY_US);
		patience -= LOCK_RETRY_US;
	}
	return true;
}

static uint32_t direct_alignment(int fd)
{
	struct statx stx;

	if (statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &stx) == 0 && (stx.stx_mask & STATX_DIOALIGN) &&
	    is_power_of_two(stx.stx_dio_offset_align) && stx.stx_dio_offset_align <= BLOCK_SIZE)
		return MAX(stx.stx_dio_offset_align, 512);
	return BLOCK_SIZE;
}

static void open_direct(struct cache_storage *storage)
{
	g_autofree char *self = g_strdup_printf("/proc/self/fd/%d", storage->aio.buffered_fd);

	storage->aio.direct_fd = open(self, O_RDWR | O_DIRECT | O_CLOEXEC);
	if (storage->aio.direct_fd >= 0)
		storage->aio.alignment = direct_alignment(storage->aio.direct_fd);
	else
		log_debug(LOG_CACHE, "%s: no O_DIRECT (%s), using the page cache", storage->path, strerror(errno));
}

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

static bool open_buffered(struct cache_storage *storage, const char *path, GError **error)
{
	struct stat st;

	storage->aio.buffered_fd = path ? open_named(storage, path) : open_unnamed();
	if (storage->aio.buffered_fd < 0 || fstat(storage->aio.buffered_fd, &st) < 0)
		return error_set_errno(error, errno, "%s: cannot be opened as a cache", storage->path);
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
		return error_set(error, EINVAL, "%s: is neither a file nor a block device", path);
	storage->block_device = S_ISBLK(st.st_mode);
	return true;
}

bool cache_storage_open(struct cache_storage *storage, const char *path, GError **error)
{
	*storage = (struct cache_storage){
		.path = g_strdup(path ? path : UNNAMED_DIRECTORY "/leafdisk-cache (unlinked)"),
		.aio = {.direct_fd = -1, .buffered_fd = -1, .alignment = BLOCK_SIZE, .store = STORE_CACHE},
	};
	storage->aio.name = storage->path;
	if (!open_buffered(storage, path, error) || !lock_file(storage, error)) {
		cache_storage_close(storage);
		storage->created = false;
		return false;
	}
	open_direct(storage);
	return true;
}

void cache_storage_close(struct cache_storage *storage)
{
	if (!storage->path)
		return;
	if (storage->aio.direct_fd >= 0)
		close(storage->aio.direct_fd);
	if (storage->aio.buffered_fd >= 0)
		close(storage->aio.buffered_fd);
	storage->aio.direct_fd = storage->aio.buffered_fd = -1;
	g_clear_pointer(&storage->path, g_free);
}

int64_t cache_storage_size(const struct cache_storage *storage)
{
	struct stat st;
	uint64_t bytes;

	if (storage->block_device)
		return ioctl(storage->aio.buffered_fd, DEVICE_SIZE_IOCTL, &bytes) < 0 ? -errno : (int64_t)bytes;
	return fstat(storage->aio.buffered_fd, &st) < 0 ? -errno : st.st_size;
}

bool cache_storage_grow(const struct cache_storage *storage, uint64_t bytes, GError **error)
{
	if (ftruncate(storage->aio.buffered_fd, (off_t)bytes) == 0)
		return true;
	return error_set_errno(error, errno, "%s: cannot be made %" G_GUINT64_FORMAT " bytes long", storage->path,
			       bytes);
}

int cache_storage_read(const struct cache_storage *storage, void *data, size_t length, uint64_t offset)
{
	int fd = storage->aio.direct_fd >= 0 ? storage->aio.direct_fd : storage->aio.buffered_fd;

	return fault_hit("cache.read", storage->path) < 0 ? -EIO : cache_transfer_read(fd, data, length, offset);
}
