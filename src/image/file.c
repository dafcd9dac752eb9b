/* The file under an image: descriptors, lock, blocking transfers (aio/file.h).
 *
 * What nobody writes is read from the page cache where it is there: a base that many
 * disks share, or that was just copied, comes faster from memory than from any disk.
 *
 * A call that fails is made again where the table of errors (core/verdict.h) says so,
 * as the queue does; here the thread waits.
 *
 * The lock is exclusive for a writable image, shared for one that is read; QEMU's own go
 * with it (qemu_lock.c), and loop devices, which take none, are looked for (loop_device.c). */
#include "file.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <string.h>
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
#include "loop_device.h"
#include "qemu_lock.h"

#define DEFAULT_IO_TIMEOUT_NS (120 * NS_PER_S)

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

static bool lock_file(struct image_file *file, bool writable, GError **error)
{
	const char *advice = writable ? "; stop that one first" : " that writes it; stop that one first";
	enum answer answer = aio_file_lock(&file->aio, writable, advice, error);

	file->locked = answer == ANSWER_YES;
	file->reaches = file->locked && aio_fd_lock_reaches(file->aio.buffered_fd) == ANSWER_YES;
	if (file->locked)
		answer = qemu_lock_take(&file->aio, writable, advice, error);
	return answer != ANSWER_NO && loop_device_allows(&file->aio, writable, error);
}

bool image_file_open(struct image_file *file, int fd, const char *path, unsigned flags, GError **error)
{
	bool writable = flags & IMAGE_WRITABLE;
	int open_flags = writable ? O_RDWR : O_RDONLY;
	struct stat st;

	thread_assert_may_block();
	*file = (struct image_file){.path = g_strdup(path)};
	aio_file_init(&file->aio, file->path, writable ? STORE_IMAGE : STORE_PARENT);
	file->aio.buffered_fd = image_file_reopen(fd, path, open_flags);
	if (file->aio.buffered_fd < 0) {
		error_set_errno(error, errno, "%s: cannot be opened%s", path, writable ? " for writing" : "");
		goto fail;
	}
	if (!aio_fd_look(file->aio.buffered_fd, path, &st, error))
		goto fail;
	file->device = st.st_dev;
	file->inode = st.st_ino;
	file->block_device = S_ISBLK(st.st_mode);
	aio_file_set_device(&file->aio, &st);
	if (!(flags & IMAGE_NO_LOCK) && !lock_file(file, writable, error))
		goto fail;
	if (!(flags & IMAGE_NO_DIRECT))
		aio_file_open_direct(&file->aio, open_flags);
	file->aio.try_cache = !writable;
	return true;
fail:
	image_file_close(file);
	return false;
}

void image_file_close(struct image_file *file)
{
	aio_file_close(&file->aio);
	if (file->lock_fd > 0)
		close(file->lock_fd);
	file->lock_fd = 0;
	g_clear_pointer(&file->path, g_free);
}

uint64_t image_file_born_ns(const struct image_file *file)
{
	struct statx st;

	thread_assert_may_block();
	if (statx(file->aio.buffered_fd, "", AT_EMPTY_PATH, STATX_BTIME, &st) < 0 || !(st.stx_mask & STATX_BTIME))
		return 0;
	return (uint64_t)st.stx_btime.tv_sec * NS_PER_S + st.stx_btime.tv_nsec;
}

/* An OFD lock belongs to an open file, however many descriptors that has. */
int image_file_share_lock(struct image_file *file, const struct image_file *from)
{
	int holder = from->lock_fd > 0 ? from->lock_fd : from->aio.buffered_fd;

	if (!from->locked)
		return 0;
	file->lock_fd = fcntl(holder, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
	file->locked = file->lock_fd > 0;
	file->reaches = file->locked && from->reaches;
	return file->locked ? 0 : -errno;
}

void image_file_lower_lock(struct image_file *file)
{
	int holder = file->lock_fd > 0 ? file->lock_fd : file->aio.buffered_fd;

	if (!file->locked)
		return;
	(void)aio_fd_lock(holder, false);
	qemu_lock_lower(holder);
}

uint64_t image_file_allocated(const struct image_file *file)
{
	struct stat st;

	if (file->block_device)
		return MAX(aio_file_size(&file->aio), 0);
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
	struct aio_rest rest = {data, length, offset};
	int result;

	thread_assert_may_block();
	do {
		result = aio_fd_read_on(file->aio.buffered_fd, &rest);
		if (result > 0)
			return -ENODATA;
		if (result == 0)
			result = fault_hit("image.read", file->path);
	} while (try_again(&attempt, result));
	return answer(&attempt, result);
}

int image_file_write(struct image_file *file, const void *data, size_t length, uint64_t offset)
{
	struct attempt attempt = {.file = file, .op = STORE_WRITE};
	struct aio_rest rest = {(char *)data, length, offset};
	int result;

	thread_assert_may_block();
	do {
		result = fault_hit("image.write", file->path);
		if (result == 0)
			result = aio_fd_write_on(file->aio.buffered_fd, &rest);
	} while (try_again(&attempt, result));
	if (rest.length < length)
		trace_append(TRACE_WRITE, file->path, offset, data, (uint32_t)(length - rest.length));
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

/* Claimed and locked, until it is closed. */
static int open_device(const char *path, GError **error)
{
	struct image_file file;
	bool open = image_file_open(&file, IMAGE_BY_PATH, path, IMAGE_WRITABLE | IMAGE_NO_DIRECT, error);
	int fd = open ? file.aio.buffered_fd : -1;

	if (open)
		file.aio.buffered_fd = -1;
	image_file_close(&file);
	return fd;
}

int image_file_create(int directory, const char *path, bool force, bool *block_device, GError **error)
{
	struct stat st;
	int fd;

	thread_assert_may_block();
	*block_device = directory == AT_FDCWD && stat(path, &st) == 0 && S_ISBLK(st.st_mode);
	if (*block_device && force)
		return open_device(path, error);
	if (*block_device) {
		error_set(error, EEXIST, "%s: is a block device; its content is overwritten only with --force", path);
		return -1;
	}
	fd = openat(directory, name_in(directory, path), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		error_set_errno(error, errno, "%s: cannot be created", path);
	return fd;
}
