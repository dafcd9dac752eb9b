/* Raw images: a file or block device whose bytes are the disk's, from a byte
 * offset on.
 *
 * A raw image has no metadata: every block is data, a flush is a flush of the
 * file. The last block of a size that is no multiple of 4 KiB is written to
 * the byte, through the page cache, so that the file keeps its size. */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <string.h>
#include <unistd.h>

#include "core/error.h"
#include "core/fault.h"
#include "core/log.h"
#include "core/time.h"
#include "driver.h"
#include "file.h"
#include "identity.h"
#include "mark.h"
#include "core/workers.h"

/* 1.2 s: a second is the coarsest clock of a file system. */
#define MARK_TRIES 240
#define MARK_WAIT_US 5000

struct raw {
	struct image image;
	struct image_file file;
	uint64_t base_offset;
};

static struct raw *raw_of(struct image *image)
{
	return container_of(image, struct raw, image);
}

static struct image_file *raw_file(struct image *image)
{
	return &raw_of(image)->file;
}

static int raw_close(struct image *image)
{
	struct raw *raw = raw_of(image);
	int result = 0;

	if (image->begun && raw->file.aio.buffered_fd >= 0)
		result = image_file_sync(&raw->file);
	image_file_close(&raw->file);
	g_free(image->path);
	g_free(raw);
	return result;
}

static bool raw_measure(struct raw *raw, GError **error)
{
	int64_t bytes = aio_file_size(&raw->file.aio);

	if (bytes < 0)
		return error_set_errno(error, (int)-bytes, "%s: has no size", raw->image.path);
	if ((uint64_t)bytes < raw->base_offset)
		return error_set(error, EINVAL,
				 "%s: the offset %" G_GUINT64_FORMAT " is past its end (%" G_GINT64_FORMAT " bytes)",
				 raw->image.path, raw->base_offset, bytes);
	raw->image.size_bytes = (uint64_t)bytes - raw->base_offset;
	return true;
}

/* The file's times move. */
static int touch(struct raw *raw)
{
	int fault = fault_hit("image.stamp", raw->image.path);

	if (fault)
		return MIN(fault, 0);
	return futimens(raw->file.aio.buffered_fd, NULL) < 0 ? -errno : 0;
}

/* The same where a store lets nobody set them: a write of what is there. */
static int rewrite(struct raw *raw)
{
	int fault = fault_hit("image.rewrite", raw->image.path);
	uint8_t byte;
	int result = fault ? MIN(fault, 0) : image_file_read(&raw->file, &byte, 1, 0);

	if (fault || result < 0)
		return result;
	return image_file_write(&raw->file, &byte, 1, 0);
}

/* Coarse clocks need a moment. */
static int move_times(struct raw *raw, int (*move)(struct raw *raw), bool *moved)
{
	int fd = raw->file.aio.buffered_fd;
	struct stat before, after;
	int result = 0;

	*moved = false;
	if (fstat(fd, &before) < 0)
		return -errno;
	for (unsigned i = 0; i < MARK_TRIES && !*moved && result == 0; i++) {
		result = move(raw);
		if (result == 0 && fstat(fd, &after) < 0)
			result = -errno;
		*moved = result == 0 && (after.st_mtim.tv_sec != before.st_mtim.tv_sec ||
					 after.st_mtim.tv_nsec != before.st_mtim.tv_nsec);
		if (result == 0 && !*moved)
			g_usleep(MARK_WAIT_US);
	}
	return result;
}

static bool raw_set_identity(struct image *image, const uint8_t uuid[IMAGE_UUID_BYTES])
{
	struct raw *raw = raw_of(image);
	int result = raw->file.block_device || raw->base_offset ? -EOPNOTSUPP : identity_set_uuid(&raw->file, uuid);

	if (result < 0)
		return false;
	memcpy(image->identity, uuid, IMAGE_UUID_BYTES);
	image->marked = true;
	return true;
}

/* A claim that stays would be taken for the last one. Where there never was one, none is
 * needed: the owner record says alone what it can. */
static int mark_claim(struct raw *raw, const uint8_t claim[IMAGE_CLAIM_BYTES])
{
	struct image *image = &raw->image;
	bool has_other = image->has_claim == ANSWER_YES && !buffer_is_zero(image->claim, IMAGE_CLAIM_BYTES);
	bool has_place = image->has_claim == ANSWER_YES || !buffer_is_zero(image->identity, IMAGE_UUID_BYTES);
	int result = has_place ? identity_set_claim(&raw->file, claim) : 0;

	if (result < 0 && has_other)
		return result;
	if (result < 0)
		log_info("%s: no claim can be written to it (%s): its owner record says alone whose it is", image->path,
			 g_strerror(-result));
	image->has_claim = has_place && result == 0 ? ANSWER_YES : ANSWER_NO;
	image->marked |= image->has_claim == ANSWER_YES;
	if (memcmp(image->claim, claim, IMAGE_CLAIM_BYTES) != 0)
		image->progress = 0;
	memcpy(image->claim, claim, IMAGE_CLAIM_BYTES);
	return 0;
}

/* There was room for its identity, and none for a claim: each one since was written so. */
static bool has_no_room(const struct image *image)
{
	return !buffer_is_zero(image->identity, IMAGE_UUID_BYTES) && buffer_is_zero(image->claim, IMAGE_CLAIM_BYTES);
}

/* Without them it would be taken for another image. They are those of the whole file. */
static bool raw_read_identity(struct raw *raw, GError **error)
{
	struct image *image = &raw->image;
	struct identity identity;

	if (raw->base_offset) {
		image->has_claim = ANSWER_NO;
		return true;
	}
	image->has_claim = identity_read(&raw->file, &identity);
	memcpy(image->identity, identity.uuid, IMAGE_UUID_BYTES);
	memcpy(image->claim, identity.claim, IMAGE_CLAIM_BYTES);
	image->progress = identity.progress;
	image->marked =
		!buffer_is_zero(image->identity, IMAGE_UUID_BYTES) || !buffer_is_zero(image->claim, IMAGE_CLAIM_BYTES);
	if (image->has_claim == ANSWER_YES && has_no_room(image))
		image->has_claim = ANSWER_NO;
	return image->has_claim != ANSWER_UNKNOWN ||
	       error_set_errno(error, errno, "%s: its extended attributes cannot be read", image->path);
}

/* Whoever knows the file by its time stamp is to see that it was written, even
 * when a loss of power takes the time stamps of the writes: it moves before the
 * first of them, durably. Where that cannot be the image can be written as well,
 * and nobody is to know it by its times (image->unstamped). */
static int raw_begin_writing(struct image *image, const uint8_t claim[IMAGE_CLAIM_BYTES])
{
	struct raw *raw = raw_of(image);
	int result = mark_claim(raw, claim);
	bool moved;

	if (result < 0 || raw->file.block_device)
		return result;
	result = move_times(raw, touch, &moved);
	if (result < 0 && verdict_of(STORE_IMAGE, STORE_STAMP, result) != VERDICT_DEGRADE)
		return result;
	if (!moved && move_times(raw, rewrite, &moved) < 0)
		log_debug(LOG_IMAGE, "%s: its first byte cannot be written anew", image->path);
	image->unstamped = !moved;
	if (!moved)
		log_info("%s: its store keeps no times; the cache forgets the image when it is closed", image->path);
	return image_file_sync_times(&raw->file);
}

static bool raw_read_mark(struct image_file *file, char **mark, GError **error)
{
	int result = mark_read_raw(file, mark);

	return result == 0 || error_set_errno(error, -result, "%s: whether it has children cannot be read", file->path);
}

static bool raw_write_mark(struct image_file *file, const char *mark, GError **error)
{
	int result = mark_write_raw(file, mark);

	return result == 0 || error_set_errno(error, -result, "%s: its children cannot be noted", file->path);
}

/* Asked under the image's lock. */
static bool mark_allows(struct raw *raw, unsigned flags, GError **error)
{
	g_autofree char *mark = NULL;

	if (!(flags & IMAGE_WRITABLE) || flags & (IMAGE_LOCK_ONLY | IMAGE_SEALED))
		return true;
	return raw_read_mark(&raw->file, &mark, error) &&
	       (!mark || image_children_refuse(raw->image.path, mark, error));
}

static struct image *raw_open(int fd, const char *path, unsigned flags, uint64_t base_offset, GError **error)
{
	struct raw *raw = g_new0(struct raw, 1);

	raw->image = (struct image){
		.ops = &raw_image_ops,
		.format = IMAGE_FORMAT_RAW,
		.path = g_strdup(path),
	};
	raw->base_offset = base_offset;
	raw->file.aio.direct_fd = raw->file.aio.buffered_fd = -1;
	if (!image_file_open(&raw->file, fd, path, flags, error) || !mark_allows(raw, flags, error) ||
	    !raw_measure(raw, error)) {
		raw_close(&raw->image);
		return NULL;
	}
	raw->image.writable = flags & IMAGE_WRITABLE;
	raw->image.device = raw->file.device;
	raw->image.inode = raw->file.inode;
	raw->image.born_ns = image_file_born_ns(&raw->file);
	raw->image.locked = raw->file.reaches;
	if (raw_read_identity(raw, error))
		return &raw->image;
	raw_close(&raw->image);
	return NULL;
}

/* A hole seen by SEEK_DATA is zero; an error there only means "do not know". */
static struct image_extent raw_extent(struct image *image, uint64_t block, uint64_t blocks, bool may_block)
{
	struct raw *raw = raw_of(image);
	uint64_t start = raw->base_offset + (block << BLOCK_SHIFT);
	uint64_t end = start + (blocks << BLOCK_SHIFT);
	off_t data, hole;

	if (!may_block || raw->file.block_device)
		return (struct image_extent){EXTENT_DATA, blocks};
	data = lseek(raw->file.aio.buffered_fd, (off_t)start, SEEK_DATA);
	if (data < 0 && errno == ENXIO)
		return (struct image_extent){EXTENT_ZERO, blocks};
	if (data < 0)
		return (struct image_extent){EXTENT_DATA, blocks};
	if ((uint64_t)data >= start + BLOCK_SIZE)
		return (struct image_extent){EXTENT_ZERO, (MIN((uint64_t)data, end) - start) >> BLOCK_SHIFT};
	hole = lseek(raw->file.aio.buffered_fd, data, SEEK_HOLE);
	if (hole < 0 || (uint64_t)hole > end)
		hole = (off_t)end;
	return (struct image_extent){EXTENT_DATA, MIN(blocks, blocks_of((uint64_t)hole - start))};
}

static void raw_transfer_done(struct aio_request *request, int result)
{
	struct image_io *io = container_of(request, struct image_io, aio);

	io->done(io, result);
}

/* LENGTH may be less than whole blocks at the end of the image. */
static void raw_submit(struct image_io *io, enum aio_op op, uint32_t length, uint32_t needed)
{
	struct raw *raw = raw_of(io->image);

	io->aio = (struct aio_request){
		.op = op,
		.file = &raw->file.aio,
		.buffer = io->buffer,
		.offset = raw->base_offset + io->offset,
		.length = length,
		.needed = needed,
		.done = raw_transfer_done,
	};
	aio_submit(io->queue, &io->aio);
}

static struct image_extent raw_read(struct image_io *io)
{
	uint64_t left = io->image->size_bytes - io->offset;

	raw_submit(io, AIO_READ, io->length, (uint32_t)MIN(io->length, left));
	return (struct image_extent){EXTENT_DATA, io->length >> BLOCK_SHIFT};
}

static int64_t raw_write(struct image_io *io)
{
	uint64_t left = io->image->size_bytes - io->offset;
	uint32_t length = io->length;

	if (length > left)
		length = left > BLOCK_SIZE ? (uint32_t)round_down(left, BLOCK_SIZE) : (uint32_t)left;
	raw_submit(io, AIO_WRITE, length, length);
	return (int64_t)blocks_of(length);
}

/* Zeroing, a step at a time, so that others have their turn. In the first way that
 * the store knows and has room for:
 *
 *     ZERO_KEEP    what is allocated stays so, and holes stay holes: a thin image
 *                  stays thin, and never finds the store full
 *     ZERO_PUNCH   the whole becomes a hole
 *     ZERO_WRITE   zeros are written where there is data */
enum zero_way { ZERO_KEEP, ZERO_PUNCH, ZERO_WRITE };

#define ZERO_STEP_BYTES (UINT64_C(4) << 20)
#define ZERO_STEP_EXTENTS 256

struct raw_zero {
	struct loop_work work;
	struct image_op *op;
	enum zero_way way;
	uint64_t next, end; /* in the file */
	int result;
};

static int write_zeros(struct raw *raw, uint64_t offset, uint64_t length)
{
	static const uint8_t zeros[64 << 10] __attribute__((aligned(4096)));

	for (uint64_t done = 0; done < length;) {
		size_t n = MIN(sizeof(zeros), length - done);
		int result = image_file_write(&raw->file, zeros, n, offset + done);

		if (result < 0)
			return result;
		done += n;
	}
	return 0;
}

/* The data at or after FROM and before END; FROM = END when there is none. A store
 * that cannot tell has nothing but data. */
static void find_data(struct raw *raw, uint64_t *from, uint64_t *end)
{
	int fd = raw->file.aio.buffered_fd;
	off_t data = lseek(fd, (off_t)*from, SEEK_DATA);
	off_t hole = data < 0 ? data : lseek(fd, data, SEEK_HOLE);

	if (data < 0 && errno == ENXIO)
		*from = *end;
	if (data >= 0)
		*from = MIN((uint64_t)data, *end);
	if (hole >= 0)
		*end = MIN((uint64_t)hole, *end);
}

static int zero_some(struct raw_zero *zero, uint64_t *budget)
{
	struct raw *raw = raw_of(zero->op->image);
	uint64_t from = zero->next, end = zero->end;
	int result = 0;

	if (zero->way != ZERO_PUNCH)
		find_data(raw, &from, &end);
	if (zero->way == ZERO_WRITE)
		end = MIN(end, from + *budget);
	if (from < end)
		result = zero->way == ZERO_WRITE
				 ? write_zeros(raw, from, end - from)
				 : image_file_zero(&raw->file,
						   zero->way == ZERO_KEEP ? FALLOC_FL_ZERO_RANGE : FALLOC_FL_PUNCH_HOLE,
						   from, end - from);
	if (result == 0) {
		zero->next = end;
		*budget -= zero->way == ZERO_WRITE ? end - from : 0;
	}
	return result;
}

/* Without room for the extents of one way another may do. */
static bool has_other_way(const struct raw_zero *zero, int error)
{
	return zero->way != ZERO_WRITE && (error_class_of(STORE_ZERO, error) == ERROR_NO_ROOM ||
					   verdict_final(STORE_IMAGE, STORE_ZERO, error) == VERDICT_DEGRADE);
}

static void raw_zero_step(struct loop_work *work)
{
	struct raw_zero *zero = container_of(work, struct raw_zero, work);
	uint64_t budget = ZERO_STEP_BYTES;

	for (unsigned i = 0; i < ZERO_STEP_EXTENTS && zero->next < zero->end && budget > 0; i++) {
		int result = zero_some(zero, &budget);

		if (result < 0 && has_other_way(zero, result))
			zero->way++;
		else if (result < 0)
			zero->result = result;
		if (zero->result < 0)
			break;
	}
}

static void raw_zero_stepped(struct loop_work *work)
{
	struct raw_zero *zero = container_of(work, struct raw_zero, work);
	struct image_op *op = zero->op;
	int result = zero->result;

	if (result == 0 && zero->next < zero->end) {
		loop_offload_step(aio_queue_loop(op->queue), &zero->work);
		return;
	}
	g_free(zero);
	op->done(op, result);
}

static void raw_zero(struct image *image, struct image_op *op)
{
	uint64_t start = raw_of(image)->base_offset + op->offset;
	struct raw_zero *zero = g_new(struct raw_zero, 1);

	*zero = (struct raw_zero){
		.work = {.work = raw_zero_step, .done = raw_zero_stepped, .file = &raw_of(image)->file.aio.steps},
		.op = op,
		.way = op->keep_allocated ? ZERO_KEEP : ZERO_PUNCH,
		.next = start,
		.end = start + MIN(op->length, image->size_bytes - op->offset),
	};
	loop_offload_step(aio_queue_loop(op->queue), &zero->work);
}

struct raw_flush {
	struct aio_request aio;
	struct image_op *op;
};

static void raw_flush_done(struct aio_request *request, int result)
{
	struct raw_flush *flush = container_of(request, struct raw_flush, aio);
	struct image_op *op = flush->op;

	if (result < 0 && verdict_final(STORE_IMAGE, STORE_FLUSH, result) == VERDICT_FAIL)
		op->image->failed = true;
	g_free(flush);
	op->done(op, result);
}

static void raw_flush(struct image *image, struct image_op *op)
{
	struct raw_flush *flush = g_new0(struct raw_flush, 1);

	flush->op = op;
	flush->aio = (struct aio_request){
		.op = AIO_DATASYNC,
		.file = &raw_of(image)->file.aio,
		.done = raw_flush_done,
	};
	aio_submit(op->queue, &flush->aio);
}

/* Without it an older copy of the cache is not known for one: nothing depends on it. */
static int note_progress_work(struct image_op *op)
{
	struct image *image = op->image;
	int result = identity_set_progress(raw_file(image), image->claim, op->progress);

	if (result == 0)
		image->progress = op->progress;
	else
		log_debug(LOG_IMAGE, "%s: what it has of the cache cannot be noted: %s", image->path,
			  g_strerror(-result));
	return 0;
}

static void raw_note_progress(struct image *image, struct image_op *op)
{
	(void)image;
	image_op_offload(op, note_progress_work);
}

static int raw_resize_work(struct image_op *op)
{
	struct raw *raw = raw_of(op->image);
	int result;

	if (raw->file.block_device)
		return -EOPNOTSUPP;
	result = image_file_set_length(&raw->file, raw->base_offset + op->length);
	if (result < 0)
		return result;
	op->image->size_bytes = op->length;
	result = image_file_sync(&raw->file);
	if (result < 0 && verdict_final(STORE_IMAGE, STORE_FLUSH, result) == VERDICT_FAIL)
		op->image->failed = true;
	return result;
}

static void raw_resize(struct image *image, struct image_op *op)
{
	if (op->length > INT64_MAX - raw_of(image)->base_offset)
		image_op_complete(op, -EFBIG);
	else
		image_op_offload(op, raw_resize_work);
}

static uint64_t raw_allocated_bytes(struct image *image)
{
	return image_file_allocated(&raw_of(image)->file);
}

/* 0: it does not tell. */
static uint64_t written_at(const struct image_file *file)
{
	struct stat st;

	if (file->block_device || image_file_stat(file, &st) < 0 || st.st_mtim.tv_sec < 0)
		return 0;
	return (uint64_t)st.st_mtim.tv_sec * NS_PER_S + (uint64_t)st.st_mtim.tv_nsec;
}

static bool raw_read_info(int fd, const char *path, struct image_info *info, GError **error)
{
	struct image *image = raw_open(fd, path, IMAGE_NO_LOCK | IMAGE_NO_DIRECT, 0, error);
	bool good;

	if (!image)
		return false;
	info->size_bytes = image->size_bytes;
	memcpy(info->identity, image->identity, sizeof(info->identity));
	info->stamp = written_at(raw_file(image));
	good = raw_read_mark(raw_file(image), &info->children, error);
	raw_close(image);
	return good;
}

static bool device_is_large_enough(int fd, const char *path, uint64_t bytes, GError **error)
{
	int64_t present = aio_fd_size(fd);

	return present < 0 || (uint64_t)present >= bytes ||
	       error_set(error, ENOSPC, "%s: has %" G_GINT64_FORMAT " bytes, too few for %" G_GUINT64_FORMAT, path,
			 present, bytes);
}

static bool give_size(int fd, const char *path, uint64_t bytes, GError **error)
{
	return (ftruncate(fd, (off_t)bytes) == 0 && fsync(fd) == 0) ||
	       error_set_errno(error, errno, "%s: cannot be made %" G_GUINT64_FORMAT " bytes long", path, bytes);
}

static bool raw_create(int directory, const char *path, const struct image_create_options *options, GError **error)
{
	bool block_device, good;
	int fd;

	if (options->parent && options->parent->format != IMAGE_FORMAT_NONE)
		return error_set(error, EINVAL, "%s: a raw image cannot have a parent; create a .leaf", path);
	fd = image_file_create(directory, path, options->force, &block_device, error);
	if (fd < 0)
		return false;
	good = block_device ? device_is_large_enough(fd, path, options->size_bytes, error)
			    : give_size(fd, path, options->size_bytes, error);
	close(fd);
	if (!good && !block_device)
		image_file_remove(directory, path);
	return good;
}

static bool raw_check(const char *path, bool repair, image_finding finding, void *opaque,
		      struct image_check_result *result, GError **error)
{
	struct image *image = raw_open(IMAGE_BY_PATH, path, IMAGE_NO_LOCK, 0, error);

	(void)repair;
	(void)finding;
	(void)opaque;
	(void)result;
	if (!image)
		return false;
	raw_close(image);
	return true;
}

const struct image_ops raw_image_ops = {
	.name = "raw",
	.open = raw_open,
	.begin_writing = raw_begin_writing,
	.set_identity = raw_set_identity,
	.close = raw_close,
	.file = raw_file,
	.extent = raw_extent,
	.read = raw_read,
	.write = raw_write,
	.zero = raw_zero,
	.flush = raw_flush,
	.note_progress = raw_note_progress,
	.resize = raw_resize,
	.allocated_bytes = raw_allocated_bytes,
	.read_info = raw_read_info,
	.create = raw_create,
	.read_mark = raw_read_mark,
	.write_mark = raw_write_mark,
	.check = raw_check,
};
