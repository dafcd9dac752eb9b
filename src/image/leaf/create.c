/* Creating a leaf, naming its parent, and reading its header alone. */
#include "create.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "core/error.h"
#include "format.h"
#include "header.h"
#include "mark.h"
#include "report.h"

static bool parent_fits(const char *path, const struct image_parent *parent, GError **error)
{
	if (!parent || parent->format == IMAGE_FORMAT_NONE)
		return true;
	if (strlen(parent->path) < LEAF_PARENT_PATH_BYTES)
		return true;
	return error_set(error, ENAMETOOLONG, "%s: the path of its parent is longer than %d bytes", path,
			 LEAF_PARENT_PATH_BYTES - 1);
}

static bool options_fit(const char *path, const struct image_create_options *options, uint32_t chunk_bytes,
			GError **error)
{
	if (!is_power_of_two(chunk_bytes) || chunk_bytes < LEAF_CHUNK_BYTES_MIN || chunk_bytes > LEAF_CHUNK_BYTES_MAX)
		return error_set(error, EINVAL,
				 "%s: the chunk size %u is not allowed: a power of two from 64 KiB to 16 MiB", path,
				 chunk_bytes);
	if (options->size_bytes > LEAF_SIZE_MAX(chunk_bytes))
		return error_set(error, EFBIG,
				 "%s: the size %" G_GUINT64_FORMAT " is not allowed: at most %" G_GUINT64_FORMAT, path,
				 options->size_bytes, LEAF_SIZE_MAX((uint64_t)chunk_bytes));
	return parent_fits(path, options->parent, error);
}

static void new_header(struct leaf_header_ondisk *header, const struct image_create_options *options,
		       uint32_t chunk_bytes)
{
	*header = (struct leaf_header_ondisk){
		.size_bytes = le64_of(options->size_bytes),
		.chunk_bytes = le32_of(chunk_bytes),
		.journal_offset = le64_of(LEAF_JOURNAL_OFFSET),
		.journal_bytes = le64_of(LEAF_JOURNAL_BYTES),
		.data_offset = le64_of(round_up(LEAF_JOURNAL_OFFSET + LEAF_JOURNAL_BYTES, chunk_bytes)),
		.epoch = le64_of(1),
		.journal_sequence = le64_of(1),
		.generation = le64_of(1),
	};
	if (options->parent)
		leaf_parent_encode(header, options->parent);
	if (options->uuid)
		memcpy(header->uuid, options->uuid, sizeof(header->uuid));
	else
		image_make_uuid(header->uuid);
}

/* On a device an older image may have left a second copy with a higher
 * sequence, which would count until the new one is written. */
static int remove_second_copy(struct image_file *file)
{
	static const uint8_t zeros[LEAF_HEADER_BYTES];
	int result = image_file_write(file, zeros, sizeof(zeros), LEAF_HEADER_BYTES);

	return result < 0 ? result : image_file_sync(file);
}

static int write_new(int fd, bool block_device, const char *path, struct leaf_header_ondisk *header)
{
	struct image_file file = {.aio = {.direct_fd = -1, .buffered_fd = fd}, .path = (char *)path};
	uint64_t data_offset = le64_get(header->data_offset);
	int result;

	file.block_device = block_device;
	if (!block_device && ftruncate(fd, (off_t)data_offset) < 0)
		return -errno;
	if (aio_file_size(&file.aio) < (int64_t)data_offset)
		return -ENOSPC;
	result = block_device ? remove_second_copy(&file) : 0;
	return result < 0 ? result : leaf_header_write(&file, header);
}

bool leaf_create(int directory, const char *path, const struct image_create_options *options, GError **error)
{
	uint32_t chunk_bytes = options->chunk_bytes ? options->chunk_bytes : LEAF_CHUNK_BYTES;
	struct leaf_header_ondisk header;
	bool block_device;
	int fd, result;

	if (!options_fit(path, options, chunk_bytes, error))
		return false;
	fd = image_file_create(directory, path, options->force, &block_device, error);
	if (fd < 0)
		return false;
	new_header(&header, options, chunk_bytes);
	result = write_new(fd, block_device, path, &header);
	close(fd);
	if (result == 0)
		return true;
	if (!block_device)
		image_file_remove(directory, path);
	return error_set_errno(error, -result, "%s: cannot be created", path);
}

bool leaf_set_parent(const char *path, const struct image_parent *parent, GError **error)
{
	struct leaf_report report = {.path = path, .error = error};
	struct leaf_header_ondisk header;
	struct image_file file;
	bool read_only;
	int result;

	if (!parent_fits(path, parent, error) || !image_file_open(&file, IMAGE_BY_PATH, path, IMAGE_WRITABLE, error))
		return false;
	if (!leaf_header_read(&file, &header, &report) || !leaf_header_usable(&header, path, &read_only, error)) {
		image_file_close(&file);
		return false;
	}
	leaf_parent_encode(&header, parent);
	result = read_only ? -EROFS : leaf_header_level(&file);
	if (result == 0)
		result = leaf_header_write(&file, &header);
	image_file_close(&file);
	return result == 0 || error_set_errno(error, -result, "%s: its parent cannot be changed", path);
}

bool leaf_read_info(int fd, const char *path, struct image_info *info, GError **error)
{
	struct leaf_report report = {.path = path, .error = error};
	struct leaf_header_ondisk header;
	struct image_file file;
	bool read_only, good;

	if (!image_file_open(&file, fd, path, IMAGE_NO_LOCK | IMAGE_NO_DIRECT, error))
		return false;
	good = leaf_header_read(&file, &header, &report) && leaf_header_usable(&header, path, &read_only, error);
	image_file_close(&file);
	if (!good)
		return false;
	info->size_bytes = le64_get(header.size_bytes);
	info->chunk_bytes = le32_get(header.chunk_bytes);
	info->generation = le64_get(header.generation);
	memcpy(info->uuid, header.uuid, sizeof(info->uuid));
	memcpy(info->identity, header.uuid, sizeof(info->identity));
	leaf_parent_decode(&header, &info->parent);
	info->children = leaf_mark_of(&header);
	return true;
}
