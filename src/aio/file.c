/* Files: descriptors, lock, size, blocking transfers.
 *
 * Both descriptors of a pair are of one file: O_DIRECT for what is aligned, the page
 * cache for the rest. The kernel keeps them coherent but within a page (request.h).
 *
 * The lock is on byte 0, that apart from it on byte 1. Single bytes, because other programs (QEMU) put locks of
 * their own meaning further up in the file. */
#include "aio/file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "aio/mount_point.h"
#include "core/bytes.h"
#include "core/error.h"
#include "core/log.h"
#include "core/thread.h"

/* As in linux/fs.h, which also defines a BLOCK_SIZE of its own. */
#define DEVICE_SIZE_IOCTL _IOR(0x12, 114, size_t)

/* A daemon whose mount has just gone still holds its files for a moment. */
#define LOCK_PATIENCE_US (G_USEC_PER_SEC)
#define LOCK_RETRY_US (10 * 1000)
/* Others have it for a few writes. */
#define LOCK_APART_PATIENCE_US (30 * G_USEC_PER_SEC)

/* ---- One descriptor ------------------------------------------------------- */

bool aio_fd_look(int fd, const char *name, struct stat *st, GError **error)
{
	if (fstat(fd, st) < 0)
		return error_set_errno(error, errno, "%s: cannot be looked at", name);
	if (!S_ISREG(st->st_mode) && !S_ISBLK(st->st_mode))
		return error_set(error, EINVAL, "%s: is neither a file nor a block device", name);
	return true;
}

static enum answer lock_byte(int fd, off_t byte, bool exclusive, gint64 patience_us)
{
	struct flock lock = {
		.l_type = exclusive ? F_WRLCK : F_RDLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};

	while (fcntl(fd, F_OFD_SETLK, &lock) < 0) {
		if (errno != EAGAIN && errno != EACCES)
			return ANSWER_UNKNOWN;
		if (patience_us <= 0)
			return ANSWER_NO;
		g_usleep(LOCK_RETRY_US);
		patience_us -= LOCK_RETRY_US;
	}
	return ANSWER_YES;
}

enum answer aio_fd_lock(int fd, bool exclusive)
{
	return lock_byte(fd, 0, exclusive, LOCK_PATIENCE_US);
}

enum answer aio_fd_lock_apart(int fd)
{
	return lock_byte(fd, 1, true, LOCK_APART_PATIENCE_US);
}

int64_t aio_fd_size(int fd)
{
	struct stat st;
	uint64_t bytes;

	if (fstat(fd, &st) < 0)
		return -errno;
	if (S_ISBLK(st.st_mode))
		return ioctl(fd, DEVICE_SIZE_IOCTL, &bytes) < 0 ? -errno : (int64_t)bytes;
	return st.st_size;
}

static void take_off(struct aio_rest *rest, size_t bytes)
{
	rest->data += bytes;
	rest->length -= bytes;
	rest->offset += bytes;
}

int aio_fd_read_on(int fd, struct aio_rest *rest)
{
	thread_assert_may_block();
	while (rest->length) {
		ssize_t n = pread(fd, rest->data, rest->length, (off_t)rest->offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : 1;
		take_off(rest, (size_t)n);
	}
	return 0;
}

int aio_fd_write_on(int fd, struct aio_rest *rest)
{
	thread_assert_may_block();
	while (rest->length) {
		ssize_t n = pwrite(fd, rest->data, rest->length, (off_t)rest->offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		take_off(rest, (size_t)n);
	}
	return 0;
}

int aio_fd_read(int fd, void *data, size_t length, uint64_t offset)
{
	struct aio_rest rest = {data, length, offset};
	int result = aio_fd_read_on(fd, &rest);

	return result > 0 ? -ENODATA : result;
}

int aio_fd_write(int fd, const void *data, size_t length, uint64_t offset)
{
	struct aio_rest rest = {(char *)data, length, offset};

	return aio_fd_write_on(fd, &rest);
}

/* ---- A pair --------------------------------------------------------------- */

void aio_file_init(struct aio_file *file, const char *name, enum store store)
{
	*file = (struct aio_file){
		.direct_fd = -1,
		.buffered_fd = -1,
		.alignment = BLOCK_SIZE,
		.name = name,
		.store = store,
	};
}

void aio_file_set_device(struct aio_file *file, const struct stat *st)
{
	file->device = S_ISBLK(st->st_mode) ? st->st_rdev : st->st_dev;
	file->steps.store = file->device;
}

static uint32_t direct_alignment(int fd)
{
	struct statx stx;

	if (statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &stx) == 0 && (stx.stx_mask & STATX_DIOALIGN) &&
	    is_power_of_two(stx.stx_dio_offset_align) && stx.stx_dio_offset_align <= BLOCK_SIZE)
		return MAX(stx.stx_dio_offset_align, 512);
	return BLOCK_SIZE;
}

void aio_file_open_direct(struct aio_file *file, int flags)
{
	g_autofree char *self = g_strdup_printf("/proc/self/fd/%d", file->buffered_fd);

	file->direct_fd = open(self, flags | O_DIRECT | O_CLOEXEC);
	if (file->direct_fd >= 0)
		file->alignment = direct_alignment(file->direct_fd);
	else
		log_debug(LOG_AIO, "%s: no O_DIRECT (%s), using the page cache", file->name, strerror(errno));
}

void aio_file_close(struct aio_file *file)
{
	if (file->direct_fd >= 0)
		close(file->direct_fd);
	if (file->buffered_fd >= 0)
		close(file->buffered_fd);
	file->direct_fd = file->buffered_fd = -1;
}

/* A lock is on a node, and a device may have several: what writes one claims the device
 * too, as the kernel does for what is mounted. The claim goes with the open file. */
static enum answer claim_device(struct aio_file *file)
{
	g_autofree char *self = g_strdup_printf("/proc/self/fd/%d", file->buffered_fd);
	gint64 patience = LOCK_PATIENCE_US;
	int fd;

	while ((fd = open(self, O_RDWR | O_EXCL | O_NONBLOCK | O_CLOEXEC)) < 0) {
		if (errno != EBUSY)
			return ANSWER_UNKNOWN;
		if (patience <= 0)
			return ANSWER_NO;
		g_usleep(LOCK_RETRY_US);
		patience -= LOCK_RETRY_US;
	}
	close(file->buffered_fd);
	file->buffered_fd = fd;
	return ANSWER_YES;
}

static enum answer lock(struct aio_file *file, bool exclusive)
{
	enum answer answer = ANSWER_YES;
	struct stat st;

	if (exclusive && fstat(file->buffered_fd, &st) == 0 && S_ISBLK(st.st_mode))
		answer = claim_device(file);
	return answer == ANSWER_YES ? aio_fd_lock(file->buffered_fd, exclusive) : answer;
}

/* Of the file system on a block device. */
static char *point_of(const struct aio_file *file)
{
	g_autofree char *numbers = NULL;
	struct stat st;

	if (fstat(file->buffered_fd, &st) < 0 || !S_ISBLK(st.st_mode))
		return NULL;
	numbers = g_strdup_printf("%u:%u", major(st.st_rdev), minor(st.st_rdev));
	return mount_point_of(numbers);
}

static bool refuse_in_use(const struct aio_file *file, const char *advice, GError **error)
{
	g_autofree char *point = point_of(file);

	if (point)
		return error_set(error, EBUSY, "%s: has a file system that is mounted on %s", file->name, point);
	return error_set(error, EBUSY, "%s: is in use by another program%s", file->name, advice);
}

enum answer aio_file_lock(struct aio_file *file, bool exclusive, const char *advice, GError **error)
{
	enum answer answer = lock(file, exclusive);

	if (answer == ANSWER_UNKNOWN)
		log_warning("%s: cannot be locked here (%s): nothing keeps a second program from writing it",
			    file->name, strerror(errno));
	if (answer == ANSWER_NO)
		refuse_in_use(file, advice, error);
	return answer;
}

int64_t aio_file_size(const struct aio_file *file)
{
	return aio_fd_size(file->buffered_fd);
}
