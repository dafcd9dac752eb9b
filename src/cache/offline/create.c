/* Making an empty cache of a file or a block device. */
#include <errno.h>
#include <unistd.h>

#include "aio/file.h"
#include "cache/offline.h"
#include "core/config.h"
#include "core/error.h"
#include "core/random.h"
#include "cache/format/content.h"
#include "cache/format/format.h"
#include "cache/format/format_super.h"
#include "cache/format/super.h"
#include "cache/storage.h"

struct creation {
	const struct cache_options *options;
	const char *path;
	struct cache_storage storage;
	int fd; /* the storage's */
	uint64_t present_bytes;
	uint64_t segments;
};

static bool open_target(struct creation *creation, GError **error)
{
	int64_t bytes;

	if (!cache_storage_open(&creation->storage, creation->path, error))
		return false;
	bytes = aio_file_size(&creation->storage.aio);
	if (bytes < 0)
		return error_set_errno(error, (int)-bytes, "%s: its size cannot be told", creation->path);
	creation->fd = creation->storage.aio.buffered_fd;
	creation->present_bytes = (uint64_t)bytes;
	return true;
}

/* By force neither: it may be a disk of a pool that nobody has mounted. */
static bool refuse_image(const struct creation *creation, const char *what, GError **error)
{
	return error_set(error, EEXIST, "%s: %s, and stays one; remove it first where nobody needs it", creation->path,
			 what);
}

static bool allow_content(const struct creation *creation, bool force, GError **error)
{
	bool known, leaf = cache_content_is_leaf(creation->fd);
	g_autofree char *text = cache_content_text(creation->fd, creation->present_bytes, &known);

	if (leaf || (known && !creation->storage.block_device))
		return refuse_image(creation, text, error);
	if (cache_storage_is_named_like_image(&creation->storage, creation->options->pool_path))
		return refuse_image(creation, "is named like an image", error);
	if (force || (!text && creation->storage.block_device))
		return true;
	return error_set(error, EEXIST, "%s: %s; it is overwritten only with --force", creation->path,
			 text ? text : "is there already");
}

static bool allow_overwrite(const struct creation *creation, bool force, GError **error)
{
	struct cache_super_ondisk super;
	bool is_cache;

	if (creation->present_bytes == 0)
		return true;
	is_cache = cache_super_read(creation->fd, creation->path, creation->present_bytes, &super, NULL, NULL) ==
		   CACHE_SUPER_GOOD;
	if (!is_cache)
		return allow_content(creation, force, error);
	return force || error_set(error, EEXIST,
				  "%s: is a cache already, that of pool %s; its content is given up only "
				  "with --force",
				  creation->path, super.pool_path);
}

static bool refuse_size(const char *path, uint64_t bytes, GError **error)
{
	g_autofree char *size = config_format_size(bytes), *least = config_format_size(CACHE_BYTES_MIN),
			*most = config_format_size(cache_segment_offset(CACHE_SEGMENTS_MAX));

	return error_set(error, EINVAL, "%s: a cache of %s is not possible, only of %s to %s", path, size, least, most);
}

static bool choose_size(struct creation *creation, GError **error)
{
	uint64_t bytes = creation->options->size_bytes;

	if (!bytes)
		bytes = creation->present_bytes ? creation->present_bytes : CACHE_BYTES_DEFAULT;
	if (bytes < CACHE_BYTES_MIN || bytes > cache_segment_offset(CACHE_SEGMENTS_MAX))
		return refuse_size(creation->path, bytes, error);
	if (creation->storage.block_device && bytes > creation->present_bytes)
		return error_set(error, ENOSPC,
				 "%s: has %" G_GUINT64_FORMAT " bytes, too few for a cache of "
				 "%" G_GUINT64_FORMAT,
				 creation->path, creation->present_bytes, bytes);
	creation->segments = (bytes - CACHE_SEGMENTS_OFFSET) / CACHE_SEGMENT_BYTES;
	return true;
}

/* A file of the right size and nothing in it: an old log would only take space. */
static bool make_room(const struct creation *creation, GError **error)
{
	if (creation->storage.block_device ||
	    (ftruncate(creation->fd, 0) == 0 &&
	     ftruncate(creation->fd, (off_t)cache_segment_offset(creation->segments)) == 0))
		return true;
	return error_set_errno(error, errno, "%s: cannot be given its size", creation->path);
}

/* Written, not only allocated: a log in unwritten extents is slow to flush. */
static bool write_log_once(const struct creation *creation, GError **error)
{
	void *zeros = g_malloc0(CACHE_SEGMENT_BYTES);
	int result = 0;

	for (uint64_t segment = 0; segment < creation->segments && result == 0; segment++)
		result = aio_fd_write(creation->fd, zeros, CACHE_SEGMENT_BYTES, cache_segment_offset(segment));
	if (result == 0 && fdatasync(creation->fd) < 0)
		result = -errno;
	g_free(zeros);
	return result == 0 || error_set_errno(error, -result, "%s: its log cannot be written", creation->path);
}

static bool write_super(const struct creation *creation, GError **error)
{
	struct cache_super_ondisk super;
	uint8_t uuid[RANDOM_UUID_BYTES];
	int result;

	random_make_uuid(uuid);
	cache_super_init(&super, uuid, creation->options->pool_id, creation->options->pool_path, creation->segments);
	result = cache_super_write(creation->fd, creation->path, &super);
	return result == 0 || error_set_errno(error, -result, "%s: its superblock cannot be written", creation->path);
}

bool cache_create(const struct cache_options *options, bool force, bool preallocate, GError **error)
{
	struct creation creation = {.options = options, .path = options->path};
	bool done = open_target(&creation, error) && allow_overwrite(&creation, force, error) &&
		    choose_size(&creation, error) && make_room(&creation, error) &&
		    (!preallocate || write_log_once(&creation, error)) && write_super(&creation, error);

	if (!done && creation.storage.created)
		unlink(creation.path);
	cache_storage_close(&creation.storage);
	return done;
}
