/* The formats: which driver opens, creates, describes and checks an image. */
#include "image/format.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "core/error.h"
#include "driver.h"
#include "file.h"
#include "format/leaf.h"
#include "core/log.h"

static const struct image_ops *const drivers[] = {
	[IMAGE_FORMAT_RAW] = &raw_image_ops,
	[IMAGE_FORMAT_LEAF] = &leaf_image_ops,
};

const char *image_format_name(enum image_format format)
{
	return format < G_N_ELEMENTS(drivers) && drivers[format] ? drivers[format]->name : NULL;
}

enum image_format image_format_from_name(const char *name)
{
	for (unsigned i = 0; i < G_N_ELEMENTS(drivers); i++)
		if (drivers[i] && strcmp(drivers[i]->name, name) == 0)
			return (enum image_format)i;
	return IMAGE_FORMAT_NONE;
}

const struct image_ops *image_driver_of(const char *path, enum image_format format, GError **error)
{
	if (image_format_name(format))
		return drivers[format];
	error_set(error, EINVAL, "%s: its format is not one of raw, leaf", path);
	return NULL;
}

void image_info_clear(struct image_info *info)
{
	image_parent_clear(&info->parent);
	g_free(info->children);
	*info = (struct image_info){0};
}

struct image *image_open(const char *path, enum image_format format, unsigned flags, uint64_t base_offset,
			 GError **error)
{
	return image_open_fd(IMAGE_BY_PATH, path, format, flags, base_offset, error);
}

struct image *image_open_fd(int fd, const char *path, enum image_format format, unsigned flags, uint64_t base_offset,
			    GError **error)
{
	const struct image_ops *ops = image_driver_of(path, format, error);
	struct image *image = ops ? ops->open(fd, path, flags, base_offset, error) : NULL;
	bool begins = image && image->writable && !(flags & (IMAGE_BEGIN_LATER | IMAGE_LOCK_ONLY));
	int result;

	if (image)
		image->sealed = flags & IMAGE_SEALED;
	result = begins ? image_begin_writing(image, NULL) : 0;

	if (image && result == 0)
		log_debug(LOG_IMAGE, "%s: opened as %s, %" PRIu64 " bytes, for %s", path, image_format_name(format),
			  image->size_bytes, image->writable ? "writing" : "reading");
	if (result == 0)
		return image;
	error_set_errno(error, -result, "%s: cannot be made ready for writing", path);
	image_close(image);
	return NULL;
}

static int take_over(struct image *again, struct image *image)
{
	int result = again->device == image->device && again->inode == image->inode ? 0 : -ESTALE;

	if (result == 0)
		result = image_file_share_lock(again->ops->file(again), image->ops->file(image));
	again->locked = again->ops->file(again)->reaches;
	return result < 0 ? result : image_begin_writing(again, image->claim);
}

struct image *image_reopen(struct image *image, int fd, uint64_t base_offset, GError **error)
{
	unsigned flags = IMAGE_WRITABLE | IMAGE_BEGIN_LATER | IMAGE_NO_LOCK | (image->sealed ? IMAGE_SEALED : 0);
	struct image *again = image_open_fd(fd, image->path, image->format, flags, base_offset, error);
	int result = again ? take_over(again, image) : 0;

	if (result == 0)
		return again;
	error_set_errno(error, -result, "%s: cannot be made ready for writing", image->path);
	image_close(again);
	return NULL;
}

static bool name_is_raw(const char *path)
{
	return g_str_has_suffix(path, ".raw") || g_str_has_suffix(path, ".img");
}

/* Either copy of the header tells: the other may be damaged. */
static bool has_leaf_magic(int fd)
{
	char magic[sizeof(LEAF_MAGIC) - 1];

	for (unsigned copy = 0; copy < LEAF_HEADER_COPIES; copy++)
		if (pread(fd, magic, sizeof(magic), (off_t)copy * LEAF_HEADER_BYTES) == sizeof(magic) &&
		    memcmp(magic, LEAF_MAGIC, sizeof(magic)) == 0)
			return true;
	return false;
}

enum image_format image_probe(const char *path, GError **error)
{
	return image_probe_fd(IMAGE_BY_PATH, path, error);
}

enum image_format image_probe_fd(int fd, const char *path, GError **error)
{
	enum image_format format = IMAGE_FORMAT_NONE;
	int readable;

	if (name_is_raw(path))
		return IMAGE_FORMAT_RAW;
	readable = image_file_reopen(fd, path, O_RDONLY);
	if (readable < 0) {
		error_set_errno(error, errno, "%s: cannot be read", path);
		return format;
	}
	if (has_leaf_magic(readable))
		format = IMAGE_FORMAT_LEAF;
	close(readable);
	return format;
}

bool image_read_info(const char *path, enum image_format format, struct image_info *info, GError **error)
{
	return image_read_info_fd(IMAGE_BY_PATH, path, format, info, error);
}

bool image_read_info_fd(int fd, const char *path, enum image_format format, struct image_info *info, GError **error)
{
	const struct image_ops *ops = image_driver_of(path, format, error);

	*info = (struct image_info){.format = format};
	if (ops && ops->read_info(fd, path, info, error))
		return true;
	image_info_clear(info);
	return false;
}

bool image_create(const char *path, enum image_format format, const struct image_create_options *options,
		  GError **error)
{
	return image_create_in(AT_FDCWD, path, format, options, error);
}

bool image_create_in(int directory, const char *path, enum image_format format,
		     const struct image_create_options *options, GError **error)
{
	const struct image_ops *ops = image_driver_of(path, format, error);

	return ops && ops->create(directory, path, options, error);
}

bool image_set_parent(const char *path, const struct image_parent *parent, GError **error)
{
	return leaf_image_ops.set_parent(path, parent, error);
}

bool image_check(const char *path, enum image_format format, bool repair,
		 void (*finding)(void *opaque, bool repaired, const char *sentence), void *opaque,
		 struct image_check_result *result, GError **error)
{
	const struct image_ops *ops = image_driver_of(path, format, error);

	*result = (struct image_check_result){0};
	return ops && ops->check(path, repair, finding, opaque, result, error);
}
