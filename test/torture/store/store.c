/* A store that is slow and gives errors, for a program that is started with this
 * in LD_PRELOAD.
 *
 *     LEAFDISK_STORE         the store: this directory and all that is below it
 *     LEAFDISK_STORE_MS      each call on it takes so much longer
 *     LEAFDISK_STORE_ODDS    one call in so many fails with EIO; 0 or nothing: none
 *     LEAFDISK_STORE_GATE    no call fails while this file is not there
 *
 * What is handed to io_submit(2) reaches the kernel later and never fails here: the
 * caller does not wait, as it does not for a store that is far away. All else is
 * done by the caller, after it has slept. */
#include <dlfcn.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <libaio.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_MS 1000000u
#define RETRY_NS NS_PER_MS

typedef long (*system_call)(long number, ...);

/* The C library's: this file has a syscall() of its own. */
static long call(long number, long a, long b, long c, long d, long e, long f)
{
	static _Atomic(system_call) next;
	system_call function = next;

	if (!function) {
		*(void **)(&function) = dlsym(RTLD_NEXT, "syscall");
		next = function;
	}
	return function(number, a, b, c, d, e, f);
}

static unsigned long setting(const char *name)
{
	const char *value = getenv(name);

	return value ? strtoul(value, NULL, 10) : 0;
}

static void sleep_ns(uint64_t ns)
{
	struct timespec left = {(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)};

	while (nanosleep(&left, &left) != 0)
		;
}

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* ---- What belongs to the store ------------------------------------------------ */

static bool is_below(const char *path)
{
	const char *store = getenv("LEAFDISK_STORE");
	size_t length = store ? strlen(store) : 0;

	return length > 0 && strncmp(path, store, length) == 0 && (path[length] == '/' || path[length] == '\0');
}

static bool has_fd(int fd)
{
	char link[64], path[PATH_MAX];
	long length;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	length = call(SYS_readlink, (long)link, (long)path, sizeof(path) - 1, 0, 0, 0);
	if (length < 0)
		return false;
	path[length] = '\0';
	return is_below(path);
}

static bool has_path(int directory, const char *path)
{
	if (!path || path[0] == '/' || directory == AT_FDCWD)
		return path && is_below(path);
	return has_fd(directory);
}

/* What is in memory already is not asked of the store. */
static bool is_waited_for(int fd, int flags)
{
	return !(flags & RWF_NOWAIT) && has_fd(fd);
}

/* ---- What befalls a call ------------------------------------------------------- */

static bool is_unlucky(void)
{
	static _Atomic uint64_t count;
	unsigned long odds = setting("LEAFDISK_STORE_ODDS");
	const char *gate = getenv("LEAFDISK_STORE_GATE");
	uint64_t number = ++count * 0x9e3779b97f4a7c15u;

	if (odds == 0 || (number >> 32) % odds != 0)
		return false;
	return !gate || call(SYS_access, (long)gate, F_OK, 0, 0, 0, 0) == 0;
}

/* False: the call fails, and errno is set. */
static bool pass(bool on_store)
{
	int saved = errno;

	if (!on_store)
		return true;
	sleep_ns(setting("LEAFDISK_STORE_MS") * NS_PER_MS);
	errno = saved;
	if (!is_unlucky())
		return true;
	errno = EIO;
	return false;
}

#define CALL(type, name, parameters, on_store, ...)                                                                    \
	type name parameters;                                                                                          \
	type name parameters                                                                                           \
	{                                                                                                              \
		return pass(on_store) ? (type)call(__VA_ARGS__) : -1;                                                  \
	}

CALL(ssize_t, pread, (int fd, void *data, size_t length, off_t at), has_fd(fd), SYS_pread64, fd, (long)data,
     (long)length, at, 0, 0)
CALL(ssize_t, pwrite, (int fd, const void *data, size_t length, off_t at), has_fd(fd), SYS_pwrite64, fd, (long)data,
     (long)length, at, 0, 0)
CALL(ssize_t, preadv, (int fd, const struct iovec *parts, int count, off_t at), has_fd(fd), SYS_preadv, fd, (long)parts,
     count, at, 0, 0)
CALL(ssize_t, pwritev, (int fd, const struct iovec *parts, int count, off_t at), has_fd(fd), SYS_pwritev, fd,
     (long)parts, count, at, 0, 0)
CALL(ssize_t, preadv2, (int fd, const struct iovec *parts, int count, off_t at, int flags), is_waited_for(fd, flags),
     SYS_preadv2, fd, (long)parts, count, at, 0, flags)
CALL(ssize_t, pwritev2, (int fd, const struct iovec *parts, int count, off_t at, int flags), has_fd(fd), SYS_pwritev2,
     fd, (long)parts, count, at, 0, flags)
CALL(int, fsync, (int fd), has_fd(fd), SYS_fsync, fd, 0, 0, 0, 0, 0)
CALL(int, fdatasync, (int fd), has_fd(fd), SYS_fdatasync, fd, 0, 0, 0, 0, 0)
CALL(int, ftruncate, (int fd, off_t size), has_fd(fd), SYS_ftruncate, fd, size, 0, 0, 0, 0)
CALL(int, fallocate, (int fd, int mode, off_t at, off_t length), has_fd(fd), SYS_fallocate, fd, mode, at, length, 0, 0)
CALL(off_t, lseek, (int fd, off_t at, int whence), whence >= SEEK_DATA && has_fd(fd), SYS_lseek, fd, at, whence, 0, 0,
     0)
CALL(int, stat, (const char *path, struct stat *st), has_path(AT_FDCWD, path), SYS_newfstatat, AT_FDCWD, (long)path,
     (long)st, 0, 0, 0)
CALL(int, lstat, (const char *path, struct stat *st), has_path(AT_FDCWD, path), SYS_newfstatat, AT_FDCWD, (long)path,
     (long)st, AT_SYMLINK_NOFOLLOW, 0, 0)
CALL(int, fstat, (int fd, struct stat *st), has_fd(fd), SYS_fstat, fd, (long)st, 0, 0, 0, 0)
CALL(int, fstatat, (int directory, const char *path, struct stat *st, int flags), has_path(directory, path),
     SYS_newfstatat, directory, (long)path, (long)st, flags, 0, 0)
CALL(int, statx, (int directory, const char *path, int flags, unsigned mask, struct statx *st),
     has_path(directory, path), SYS_statx, directory, (long)path, flags, mask, (long)st, 0)
CALL(int, futimens, (int fd, const struct timespec times[2]), has_fd(fd), SYS_utimensat, fd, 0, (long)times, 0, 0, 0)
CALL(int, unlinkat, (int directory, const char *path, int flags), has_path(directory, path), SYS_unlinkat, directory,
     (long)path, flags, 0, 0, 0)
CALL(int, unlink, (const char *path), has_path(AT_FDCWD, path), SYS_unlink, (long)path, 0, 0, 0, 0, 0)
CALL(int, rename, (const char *from, const char *to), has_path(AT_FDCWD, to), SYS_rename, (long)from, (long)to, 0, 0, 0,
     0)
CALL(int, renameat, (int old, const char *from, int new, const char *to), has_path(new, to), SYS_renameat, old,
     (long)from, new, (long)to, 0, 0)
CALL(int, renameat2, (int old, const char *from, int new, const char *to, unsigned flags), has_path(new, to),
     SYS_renameat2, old, (long)from, new, (long)to, (long)flags, 0)

/* ---- Open ---------------------------------------------------------------------- */

static int open_at(int directory, const char *path, int flags, va_list arguments)
{
	mode_t mode = flags & (O_CREAT | (O_TMPFILE & ~O_DIRECTORY)) ? va_arg(arguments, mode_t) : 0;

	return pass(has_path(directory, path)) ? (int)call(SYS_openat, directory, (long)path, flags, mode, 0, 0) : -1;
}

int openat(int directory, const char *path, int flags, ...)
{
	va_list arguments;
	int fd;

	va_start(arguments, flags);
	fd = open_at(directory, path, flags, arguments);
	va_end(arguments);
	return fd;
}

int open(const char *path, int flags, ...)
{
	va_list arguments;
	int fd;

	va_start(arguments, flags);
	fd = open_at(AT_FDCWD, path, flags, arguments);
	va_end(arguments);
	return fd;
}

/* For openat2(2), which the C library has no function for. */
long syscall(long number, ...)
{
	va_list arguments;
	long a[6];

	va_start(arguments, number);
	for (int i = 0; i < 6; i++)
		a[i] = va_arg(arguments, long);
	va_end(arguments);
	if (number == SYS_openat2 && !pass(has_path((int)a[0], (const char *)a[1])))
		return -1;
	return call(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

/* ---- Asynchronous I/O ------------------------------------------------------------ */

struct late {
	struct late *next;
	io_context_t context;
	struct iocb *iocb;
	uint64_t due_ns;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t added = PTHREAD_COND_INITIALIZER;
static struct late *oldest, **end = &oldest;
static pthread_once_t started = PTHREAD_ONCE_INIT;

static int submit_now(io_context_t context, long count, struct iocb **iocbs)
{
	long result = call(SYS_io_submit, (long)context, count, (long)iocbs, 0, 0, 0);

	return result < 0 ? -errno : (int)result;
}

static struct late *take_oldest(void)
{
	struct late *late;

	pthread_mutex_lock(&lock);
	while (!oldest)
		pthread_cond_wait(&added, &lock);
	late = oldest;
	oldest = late->next;
	if (!oldest)
		end = &oldest;
	pthread_mutex_unlock(&lock);
	return late;
}

/* The caller has been told that the kernel took it, so it must. */
static void submit_late(struct late *late)
{
	uint64_t now = now_ns();
	int result;

	if (late->due_ns > now)
		sleep_ns(late->due_ns - now);
	while ((result = submit_now(late->context, 1, &late->iocb)) == -EAGAIN)
		sleep_ns(RETRY_NS);
	if (result != 1)
		errx(3, "store: io_submit: %s", strerror(-result));
}

static void *submitter(void *unused)
{
	(void)unused;
	for (;;) {
		struct late *late = take_oldest();

		submit_late(late);
		free(late);
	}
	return NULL;
}

static void start_submitter(void)
{
	pthread_t thread;

	if (pthread_create(&thread, NULL, submitter, NULL) != 0)
		errx(3, "store: no thread");
	pthread_detach(thread);
}

static void submit_later(io_context_t context, struct iocb *iocb, uint64_t due_ns)
{
	struct late *late = malloc(sizeof(*late));

	if (!late)
		errx(3, "store: no memory");
	*late = (struct late){.context = context, .iocb = iocb, .due_ns = due_ns};
	pthread_mutex_lock(&lock);
	*end = late;
	end = &late->next;
	pthread_cond_signal(&added);
	pthread_mutex_unlock(&lock);
}

int io_submit(io_context_t context, long count, struct iocb **iocbs)
{
	unsigned long ms = setting("LEAFDISK_STORE_MS");
	uint64_t due_ns = now_ns() + ms * NS_PER_MS;

	for (long i = 0; i < count; i++) {
		int result = 1;

		if (ms > 0 && has_fd((int)iocbs[i]->aio_fildes)) {
			pthread_once(&started, start_submitter);
			submit_later(context, iocbs[i], due_ns);
		} else {
			result = submit_now(context, 1, &iocbs[i]);
		}
		if (result != 1)
			return i > 0 ? (int)i : result;
	}
	return (int)count;
}
