/* The file under an image: descriptors, lock, blocking transfers.
 *
 * Both descriptors are of one file: O_DIRECT for whole aligned blocks, the
 * page cache for the rest. The kernel keeps them coherent. What nobody writes is
 * read from the page cache where it is there: a base that many disks share, or
 * that was just copied, comes faster from memory than from any disk.
 *
 * A call that fails is made again where the table of errors (core/verdict.h) says so,
 * as the queue does; here the thread waits.
 *
 * The lock is an open-file-description lock on byte 0: exclusive for a
 * writable image, shared for one that is read. Only one byte, because other
 * programs (QEMU) put locks of their own meaning further up in the file. */
#include "file.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "aio/retry.h"
#include "core/bytes.h"
#include "core/counters.h"
#include "core/error.h"
#include "core/fault.h"
#include "core/log.h"
#include "core/thread.h"
#include "core/time.h"
#include "core/trace.h"
#include "image/image.h"
#include "image/settings.h"

/* As in linux/fs.h, which also defines a BLOCK_SIZE of its own. */
#define DEVICE_SIZE_IOCTL _IOR(0x12, 114, size_t)

/* A daemon whose mount has just gone still holds its images for a moment. */
#define LOCK_PATIENCE_US (G_USEC_PER_SEC)
#define LOCK_RETRY_US (10 * 1000)

#define DEFAULT_IO_TIMEOUT_NS (120 * NS_PER_S)

static bool lock_file(struct image_file *file, bool writable, GError **error)
{
	struct flock lock = {.l_type = writable ? F_WRLCK : F_RDLCK, .l_whence = SEEK_SET, .l_len = 1};
	gint64 patience = LOCK_PATIENCE_US;

	while (fcntl(file->aio.buffered_fd, F_OFD_SETLK, &lock) < 0) {
		if (errno != EAGAIN && errno != EACCES) {
			log_warning("%s: cannot be locked here (%s): nothing keeps a second program from writing it",
				    file->path, strerror(errno));
			return true;
		}
		if (patience <= 0)
			return error_set(error, EBUSY, "%s: is in use by another program%s; stop that one first",
					 file->path, writable ? "" : " that writes it");
		g_usleep(LOCK_RETRY_US);
		patience -= LOCK_RETRY_US;
	}
	file->locked = true;
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

static void open_direct(struct image_file *file, int flags)
{
	g_autofree char *self = g_strdup_printf("/proc/self/fd/%d", file->aio.buffered_fd);

	file->aio.direct_fd = open(self, flags | O_DIRECT | O_CLOEXEC);
	if (file->aio.direct_fd >= 0)
		file->aio.alignment = direct_alignment(file->aio.direct_fd);
	else
		log_debug(LOG_IMAGE, "%s: no O_DIRECT (%s), using the page cache", file->path, strerror(errno));
}

/* An open of the descriptor's link in /proc is one of its very file. */
int image_file_reopen(int fd, const char *path, int open_flags)
{
	char link[sizeof("/proc/self/fd/") + 3 * sizeof(int)];
	int fault = fault_hit("image.open", path);

	if (fault) {
		errno = -fault;
		return -1;
	}
	g_snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	return open(fd == IMAGE_BY_PATH ? path : link, open_flags | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
}

bool image_file_open(struct image_file *file, int fd, const char *path, unsigned flags, GError **error)
{
	bool writable = flags & IMAGE_WRITABLE;
	int open_flags = writable ? O_RDWR : O_RDONLY;
	struct stat st;

	thread_assert_may_block();
	*file = (struct image_file){
		.path = g_strdup(path),
		.aio = {.direct_fd = -1, .buffered_fd = -1, .alignment = BLOCK_SIZE},
	};
	file->aio.name = file->path;
	file->aio.buffered_fd = image_file_reopen(fd, path, open_flags);
	if (file->aio.buffered_fd < 0 || fstat(file->aio.buffered_fd, &st) < 0) {
		error_set_errno(error, errno, "%s: cannot be opened%s", path, writable ? " for writing" : "");
		goto fail;
	}
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode)) {
		error_set(error, EINVAL, "%s: is neither a file nor a block device", path);
		goto fail;
	}
	file->device = st.st_dev;
	file->inode = st.st_ino;
	file->block_device = S_ISBLK(st.st_mode);
	if (!(flags & IMAGE_NO_LOCK) && !lock_file(file, writable, error))
		goto fail;
	if (!(flags & IMAGE_NO_DIRECT))
		open_direct(file, open_flags);
	file->aio.try_cache = !writable;
	file->aio.store = writable ? STORE_IMAGE : STORE_PARENT;
	return true;
fail:
	image_file_close(file);
	return false;
}

void image_file_close(struct image_file *file)
{
	if (file->aio.direct_fd >= 0)
		close(file->aio.direct_fd);
	if (file->aio.buffered_fd >= 0)
		close(file->aio.buffered_fd);
	if (file->lock_fd > 0)
		close(file->lock_fd);
	file->aio.direct_fd = file->aio.buffered_fd = -1;
	file->lock_fd = 0;
	g_clear_pointer(&file->path, g_free);
}

/* An OFD lock belongs to an open file, however many descriptors that has. */
int image_file_share_lock(struct image_file *file, const struct image_file *from)
{
	int holder = from->lock_fd > 0 ? from->lock_fd : from->aio.buffered_fd;

	if (!from->locked)
		return 0;
	file->lock_fd = fcntl(holder, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
	file->locked = file->lock_fd > 0;
	return file->locked ? 0 : -errno;
}

int64_t image_file_size(const struct image_file *file)
{
	struct stat st;
	uint64_t bytes;

	if (file->block_device)
		return ioctl(file->aio.buffered_fd, DEVICE_SIZE_IOCTL, &bytes) < 0 ? -errno : (int64_t)bytes;
	return fstat(file->aio.buffered_fd, &st) < 0 ? -errno : st.st_size;
}

uint64_t image_file_allocated(const struct image_file *file)
{
	struct stat st;

	if (file->block_device)
		return MAX(image_file_size(file), 0);
	return fstat(file->aio.buffered_fd, &st) < 0 ? 0 : (uint64_t)st.st_blocks * 512;
}

/* ---- Blocking transfers ------------------------------------------------------ */

static _Atomic uint64_t io_timeout_ns = DEFAULT_IO_TIMEOUT_NS;

void image_set_io_timeout(uint64_t timeout_ns)
{
	io_timeout_ns = timeout_ns ? timeout_ns : DEFAULT_IO_TIMEOUT_NS;
}

/* One operation, of as many calls as it takes. */
struct attempt {
	struct image_file *file;
	enum store_op op;
	unsigned tries; /* again */
	uint64_t start_ns;
};

/* True: the call that answered RESULT is to be made again, now. */
static bool try_again(struct attempt *attempt, int result)
{
	uint64_t now = loop_now_ns(), at_ns;

	if (result >= 0 || verdict_of(attempt->file->aio.store, attempt->op, result) != VERDICT_RETRY)
		return false;
	if (attempt->tries == 0)
		attempt->start_ns = now;
	if (!retry_schedule(attempt->tries++, attempt->start_ns, io_timeout_ns, now, &at_ns))
		return false;
	counter_add(aio_retries, 1);
	g_usleep((at_ns - now) / NS_PER_US);
	return true;
}

/* The disk's state is to show it, unless the caller has another way. */
static int answer(const struct attempt *attempt, int result)
{
	struct aio_file *file = &attempt->file->aio;
	enum verdict verdict = verdict_final(file->store, attempt->op, result);

	if (result == 0 || (verdict != VERDICT_IGNORE && verdict != VERDICT_DEGRADE))
		aio_note(file, attempt->op == STORE_READ ? AIO_READ : AIO_WRITE, result);
	return result;
}

/* What POINT, or the CALL that answered -1, says. */
static int result_of(int fault, int call)
{
	if (fault)
		return fault;
	return call < 0 ? -errno : 0;
}

int image_file_read(struct image_file *file, void *data, size_t length, uint64_t offset)
{
	struct attempt attempt = {.file = file, .op = STORE_READ};
	char *p = data;
	int result;

	thread_assert_may_block();
	do {
		ssize_t n = 1;

		while (length && (n = pread(file->aio.buffered_fd, p, length, (off_t)offset)) > 0) {
			p += n;
			offset += (uint64_t)n;
			length -= (size_t)n;
		}
		result = n < 0 ? -errno : fault_hit("image.read", file->path);
		if (n == 0)
			return -ENODATA;
	} while (try_again(&attempt, result));
	return answer(&attempt, result);
}

/* The part that a call wrote is not written again. */
static int write_some(struct image_file *file, const char **data, size_t *length, uint64_t *offset)
{
	int fault = fault_hit("image.write", file->path);

	if (fault)
		return fault;
	while (*length) {
		ssize_t n = pwrite(file->aio.buffered_fd, *data, *length, (off_t)*offset);

		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		*data += n;
		*offset += (uint64_t)n;
		*length -= (size_t)n;
	}
	return 0;
}

int image_file_write(struct image_file *file, const void *data, size_t length, uint64_t offset)
{
	struct attempt attempt = {.file = file, .op = STORE_WRITE};
	uint64_t at = offset;
	const char *p = data;
	size_t left = length;
	int result;

	thread_assert_may_block();
	do
		result = write_some(file, &p, &left, &at);
	while (try_again(&attempt, result));
	if (left < length)
		trace_append(TRACE_WRITE, file->path, offset, data, (uint32_t)(length - left));
	return answer(&attempt, result);
}

static int sync_by(struct image_file *file, int (*call)(int fd))
{
	struct attempt attempt = {.file = file, .op = STORE_FLUSH};
	int result;

	thread_assert_may_block();
	do {
		int fault = fault_hit("image.sync", file->path);

		if (!fault)
			trace_append(TRACE_BEGIN, file->path, 0, NULL, 0);
		result = result_of(fault, fault ? 0 : call(file->aio.buffered_fd));
	} while (try_again(&attempt, result));
	if (result == 0)
		trace_append(TRACE_FLUSHED, file->path, 0, NULL, 0);
	return answer(&attempt, result);
}

int image_file_sync(struct image_file *file)
{
	return sync_by(file, fdatasync);
}

int image_file_sync_times(struct image_file *file)
{
	return sync_by(file, fsync);
}

static int allocate(struct image_file *file, enum store_op op, int mode, uint64_t offset, uint64_t length)
{
	struct attempt attempt = {.file = file, .op = op};
	int result;

	thread_assert_may_block();
	do {
		int fault = fault_hit(op == STORE_PUNCH ? "image.punch" : "image.zero", file->path);

		result = result_of(fault, fault ? 0
						: fallocate(file->aio.buffered_fd, mode | FALLOC_FL_KEEP_SIZE,
							    (off_t)offset, (off_t)length));
	} while (try_again(&attempt, result));
	return answer(&attempt, result);
}

int image_file_punch(struct image_file *file, uint64_t offset, uint64_t length)
{
	int result = allocate(file, STORE_PUNCH, FALLOC_FL_PUNCH_HOLE, offset, length);

	return verdict_final(file->aio.store, STORE_PUNCH, result) == VERDICT_IGNORE ? 0 : result;
}

int image_file_zero(struct image_file *file, int mode, uint64_t offset, uint64_t length)
{
	return allocate(file, STORE_ZERO, mode, offset, length);
}

int image_file_set_length(struct image_file *file, uint64_t bytes)
{
	struct attempt attempt = {.file = file, .op = STORE_EXTEND};
	int result;

	thread_assert_may_block();
	do {
		int fault = fault_hit("image.extend", file->path);

		result = result_of(fault, fault ? 0 : ftruncate(file->aio.buffered_fd, (off_t)bytes));
	} while (try_again(&attempt, result));
	return answer(&attempt, result);
}

int image_file_stat(const struct image_file *file, struct stat *st)
{
	return fstat(file->aio.buffered_fd, st) < 0 ? -errno : 0;
}

static const char *name_in(int directory, const char *path)
{
	const char *slash = directory == AT_FDCWD ? NULL : strrchr(path, '/');

	return slash ? slash + 1 : path;
}

void image_file_remove(int directory, const char *path)
{
	(void)unlinkat(directory, name_in(directory, path), 0);
}

int image_file_create(int directory, const char *path, bool force, bool *block_device, GError **error)
{
	struct stat st;
	int fd;

	thread_assert_may_block();
	*block_device = directory == AT_FDCWD && stat(path, &st) == 0 && S_ISBLK(st.st_mode);
	if (*block_device && !force) {
		error_set(error, EEXIST, "%s: is a block device; its content is overwritten only with --force", path);
		return -1;
	}
	fd = openat(directory, name_in(directory, path),
		    *block_device ? O_RDWR | O_EXCL | O_CLOEXEC : O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		error_set_errno(error, errno, "%s: cannot be created", path);
	return fd;
}
