/* Converting: a chain's merged content into one new image.
 *
 * A few slots work at once, each on a piece of its own: read it, write what is
 * not zero, take the next. Extents that no layer has data for are passed over. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "aio/file.h"
#include "core/error.h"
#include "create.h"
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
	bool dense; /* zeros are written too */
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

	while (!extent->length || (extent->zero && !convert->dense)) {
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

static bool is_left_out(const struct slot *slot, uint64_t at)
{
	return !slot->convert->dense && buffer_is_zero(slot->buffer + at, MIN(BLOCK_SIZE, slot->length - at));
}

static void slot_write_next(struct slot *slot)
{
	struct convert *convert = slot->convert;
	uint64_t start = slot->written, end;

	while (start < slot->length && is_left_out(slot, start))
		start += BLOCK_SIZE;
	for (end = start; end < slot->length; end += BLOCK_SIZE)
		if (is_left_out(slot, end))
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

/* ---- Source and destination ------------------------------------------------------- */

/* Where the header of any format is. */
#define HEADER_BYTES 65536

/* A part of an image is none. */
static void wipe_device(const char *path)
{
	static const uint8_t zeros[HEADER_BYTES];
	int fd = open(path, O_WRONLY | O_EXCL | O_CLOEXEC);

	if (fd < 0)
		return;
	(void)aio_fd_write(fd, zeros, sizeof(zeros), 0);
	(void)fsync(fd);
	close(fd);
}

static bool copy(struct convert *convert, const struct whole *whole, enum image_format format, GError **error)
{
	bool good;

	convert->destination = offline_open(whole->hidden, format, NULL, OPEN_TO_WRITE, error);
	good = convert->destination && run(convert, error);
	if (convert->destination)
		good = offline_close(convert->destination, good ? error : NULL) && good;
	if (!good && whole->device)
		wipe_device(whole->path);
	return good;
}

/* Whatever a raw device had is written over. */
static bool convert_into(struct convert *convert, const struct whole *whole, enum image_format format, bool force,
			 GError **error)
{
	struct offline_create_options options = {
		.format = format, .size_bytes = convert->source->size_bytes, .force = force};
	g_autofree char *note = NULL;

	if (!create_image(whole, &options, &note, error))
		return false;
	if (format == IMAGE_FORMAT_NONE)
		format = offline_format_of(whole->hidden, format, error);
	convert->dense = whole->device && format == IMAGE_FORMAT_RAW;
	return format != IMAGE_FORMAT_NONE && copy(convert, whole, format, error);
}

bool offline_convert(const char *source, enum image_format source_format, const char *destination,
		     const struct offline_convert_options *options, GError **error)
{
	struct convert convert = {.progress = options->progress, .opaque = options->opaque};
	struct whole whole;
	bool good;

	convert.source = offline_open(source, source_format, options->layers, OPEN_TO_READ, error);
	if (!convert.source)
		return false;
	good = whole_begin(&whole, destination, error) &&
	       whole_end(&whole, convert_into(&convert, &whole, options->format, options->force, error), error);
	offline_close(convert.source, NULL);
	return good;
}
