/* Converting: a chain's merged content into one new image.
 *
 * A few slots work at once, each on a piece of its own: read it, write what is
 * not zero, take the next. Extents that no layer has data for are passed over. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/error.h"
#include "core/place.h"
#include "offline/offline.h"
#include "open.h"

#define SLOTS 8

struct convert;

struct slot {
	struct disk_io io;
	struct convert *convert;
	uint8_t *buffer;
	uint64_t offset;
	uint64_t length;
	uint64_t written; /* bytes of the piece that are dealt with */
};

struct convert {
	struct disk *source;
	struct disk *destination;
	struct offline_loop loop;
	struct slot slots[SLOTS];
	struct disk_extent extent; /* what is left of the one being taken */
	uint64_t position;
	unsigned busy;
	bool finished;
	bool stopped;
	int result;
	offline_progress progress;
	void *opaque;
};

static void slot_write_next(struct slot *slot);
static void slot_next(struct slot *slot);

/* The next piece with data, or false at the end. */
static bool take_piece(struct convert *convert, uint64_t *offset, uint64_t *length)
{
	struct disk_extent *extent = &convert->extent;

	while (!extent->length || extent->zero) {
		if (!disk_get_extent(convert->source, convert->position, extent))
			return false;
		convert->position += extent->length;
	}
	*offset = extent->offset;
	*length = MIN(extent->length, DISK_IO_BYTES_MAX - extent->offset % DISK_IO_BYTES_MAX);
	extent->offset += *length;
	extent->length -= *length;
	return true;
}

static void fail(struct convert *convert, int64_t result)
{
	if (convert->result == 0)
		convert->result = (int)result;
}

static void slot_submit(struct slot *slot, struct disk *disk, enum disk_op op, uint64_t at, uint64_t length,
			void (*done)(struct disk_io *io, int64_t result))
{
	slot->io = (struct disk_io){
		.context = slot->convert->loop.context,
		.disk = disk,
		.op = op,
		.offset = slot->offset + at,
		.length = length,
		.buffer = slot->buffer + at,
		.done = done,
	};
	disk_submit(&slot->io);
}

static void slot_written(struct disk_io *io, int64_t result)
{
	struct slot *slot = container_of(io, struct slot, io);

	if (result < 0)
		fail(slot->convert, result);
	slot_write_next(slot);
}

static void slot_write_next(struct slot *slot)
{
	struct convert *convert = slot->convert;
	uint64_t start = slot->written, end;

	while (start < slot->length && buffer_is_zero(slot->buffer + start, MIN(BLOCK_SIZE, slot->length - start)))
		start += BLOCK_SIZE;
	for (end = start; end < slot->length; end += BLOCK_SIZE)
		if (buffer_is_zero(slot->buffer + end, MIN(BLOCK_SIZE, slot->length - end)))
			break;
	end = MIN(end, slot->length);
	slot->written = end;
	if (start >= slot->length || convert->result < 0)
		slot_next(slot);
	else
		slot_submit(slot, convert->destination, DISK_WRITE, start, end - start, slot_written);
}

static void slot_read(struct disk_io *io, int64_t result)
{
	struct slot *slot = container_of(io, struct slot, io);

	if (result < 0)
		fail(slot->convert, result);
	slot->written = 0;
	slot_write_next(slot);
}

static void slot_next(struct slot *slot)
{
	struct convert *convert = slot->convert;

	if (convert->progress && !convert->progress(convert->opaque, convert->position - convert->extent.length,
						    convert->source->size_bytes))
		convert->stopped = true;
	if (convert->result < 0 || convert->stopped || !take_piece(convert, &slot->offset, &slot->length))
		convert->finished = --convert->busy == 0;
	else
		slot_submit(slot, convert->source, DISK_READ, 0, slot->length, slot_read);
}

static bool run(struct convert *convert, GError **error)
{
	if (!offline_loop_init(&convert->loop, error))
		return false;
	convert->busy = SLOTS;
	for (unsigned i = 0; i < SLOTS; i++) {
		struct slot *slot = &convert->slots[i];

		slot->convert = convert;
		slot->buffer = aligned_alloc(BLOCK_SIZE, DISK_READ_BUFFER_BYTES);
		slot_next(slot);
	}
	loop_run(convert->loop.loop, &convert->finished);
	for (unsigned i = 0; i < SLOTS; i++)
		free(convert->slots[i].buffer);
	offline_loop_clear(&convert->loop);
	if (convert->stopped)
		return error_set(error, EINTR, "%s: interrupted", disk_name(convert->destination));
	if (convert->result < 0)
		return error_set_errno(error, -convert->result, "%s: cannot be converted to %s",
				       disk_name(convert->source), disk_name(convert->destination));
	return true;
}

static bool convert_into(struct disk *source, const char *path, enum image_format format, offline_progress progress,
			 void *opaque, GError **error)
{
	struct convert convert = {.source = source, .progress = progress, .opaque = opaque};
	struct offline_create_options options = {.format = format, .size_bytes = source->size_bytes};
	g_autofree char *note = NULL;
	bool good;

	if (!offline_create(path, &options, &note, error))
		return false;
	convert.destination = offline_open(path, format, NULL, OPEN_TO_WRITE, error);
	good = convert.destination && run(&convert, error);
	if (convert.destination)
		good = offline_close(convert.destination, good ? error : NULL) && good;
	if (!good)
		unlink(path);
	return good;
}

/* ---- A name once it is whole --------------------------------------------------- */

#define PREFIX_LENGTH 10
#define HIDDEN_NAME_MAX (NAME_MAX - PREFIX_LENGTH)

/* Beside NAME, with its ending; no pool shows what begins with a dot. */
static char *hidden_name(const char *name)
{
	size_t length = strlen(name);

	return g_strdup_printf(".%08x-%s", g_random_int(), name + length - MIN(length, HIDDEN_NAME_MAX));
}

/* Whoever asked for it knows its own name only. */
static void say_without(const char *hidden, GError *error)
{
	g_autofree char *prefix = g_strndup(hidden, PREFIX_LENGTH);
	GString *message = g_string_new(error->message);

	g_string_replace(message, prefix, "", 0);
	g_free(error->message);
	error->message = g_string_free(message, FALSE);
}

static bool give_name(int directory, const char *hidden, const char *path, const char *name, GError **error)
{
	int result = place_rename_new(directory, hidden, name);

	if (result == 0 && fsync(directory) < 0)
		result = -errno;
	return result == 0 || error_set_errno(error, -result, "%s: cannot be created", path);
}

/* Interrupted at any moment it leaves no image that lacks a part and looks like another. */
static bool convert_hidden(struct disk *source, const char *path, enum image_format format, offline_progress progress,
			   void *opaque, GError **error)
{
	g_autofree char *parent = g_path_get_dirname(path), *name = g_path_get_basename(path);
	g_autofree char *hidden = hidden_name(name), *whole = g_build_filename(parent, hidden, NULL);
	int directory = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	bool converted, good;

	if (directory < 0)
		return error_set_errno(error, errno, "%s: cannot be created", path);
	converted = convert_into(source, whole, format, progress, opaque, error);
	if (!converted)
		say_without(hidden, *error);
	good = converted && give_name(directory, hidden, path, name, error);
	if (converted && !good)
		unlink(whole);
	close(directory);
	return good;
}

/* What there is already is refused, or a block device. */
static bool convert_to(struct disk *source, const char *path, enum image_format format, offline_progress progress,
		       void *opaque, GError **error)
{
	struct stat st;

	return lstat(path, &st) == 0 ? convert_into(source, path, format, progress, opaque, error)
				     : convert_hidden(source, path, format, progress, opaque, error);
}

bool offline_convert(const char *source, enum image_format source_format, const char *destination,
		     enum image_format destination_format, const char *layers, offline_progress progress, void *opaque,
		     GError **error)
{
	struct disk *disk = offline_open(source, source_format, layers, OPEN_TO_READ, error);
	bool good;

	if (!disk)
		return false;
	good = convert_to(disk, destination, destination_format, progress, opaque, error);
	offline_close(disk, NULL);
	return good;
}
