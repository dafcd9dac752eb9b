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

/* What would be called without this file: a sanitizer's own function, which is to
 * know of the call, or the C library's. */
#define NEXT(name)                                                                                                     \
	({                                                                                                             \
		static _Atomic(__typeof__(&name)) found;                                                               \
		__typeof__(&name) next = found;                                                                        \
                                                                                                                       \
		if (!next) {                                                                                           \
			*(void **)(&next) = dlsym(RTLD_NEXT, #name);                                                   \
			found = next;                                                                                  \
		}                                                                                                      \
		next;                                                                                                  \
	})

/* This file has a syscall() of its own. */
static long call(long number, long a, long b, long c, long d, long e, long f)
{
	return NEXT(syscall)(number, a, b, c, d, e, f);
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

#define CALL(type, name, parameters, arguments, on_store)                                                              \
	type name parameters;                                                                                          \
	type name parameters                                                                                           \
	{                                                                                                              \
		return pass(on_store) ? NEXT(name) arguments : -1;                                                     \
	}

CALL(ssize_t, pread, (int fd, void *data, size_t length, off_t at), (fd, data, length, at), has_fd(fd))
CALL(ssize_t, pwrite, (int fd, const void *data, size_t length, off_t at), (fd, data, length, at), has_fd(fd))
CALL(ssize_t, preadv, (int fd, const struct iovec *parts, int count, off_t at), (fd, parts, count, at), has_fd(fd))
CALL(ssize_t, pwritev, (int fd, const struct iovec *parts, int count, off_t at), (fd, parts, count, at), has_fd(fd))
CALL(ssize_t, preadv2, (int fd, const struct iovec *parts, int count, off_t at, int flags),
     (fd, parts, count, at, flags), is_waited_for(fd, flags))
CALL(ssize_t, pwritev2, (int fd, const struct iovec *parts, int count, off_t at, int flags),
     (fd, parts, count, at, flags), has_fd(fd))
CALL(int, fsync, (int fd), (fd), has_fd(fd))
CALL(int, fdatasync, (int fd), (fd), has_fd(fd))
CALL(int, ftruncate, (int fd, off_t size), (fd, size), has_fd(fd))
CALL(int, fallocate, (int fd, int mode, off_t at, off_t length), (fd, mode, at, length), has_fd(fd))
CALL(off_t, lseek, (int fd, off_t at, int whence), (fd, at, whence), whence >= SEEK_DATA && has_fd(fd))
CALL(int, stat, (const char *path, struct stat *st), (path, st), has_path(AT_FDCWD, path))
CALL(int, lstat, (const char *path, struct stat *st), (path, st), has_path(AT_FDCWD, path))
CALL(int, fstat, (int fd, struct stat *st), (fd, st), has_fd(fd))
CALL(int, fstatat, (int directory, const char *path, struct stat *st, int flags), (directory, path, st, flags),
     has_path(directory, path))
CALL(int, statx, (int directory, const char *path, int flags, unsigned mask, struct statx *st),
     (directory, path, flags, mask, st), has_path(directory, path))
CALL(int, futimens, (int fd, const struct timespec times[2]), (fd, times), has_fd(fd))
CALL(int, unlinkat, (int directory, const char *path, int flags), (directory, path, flags), has_path(directory, path))
CALL(int, unlink, (const char *path), (path), has_path(AT_FDCWD, path))
CALL(int, rename, (const char *from, const char *to), (from, to), has_path(AT_FDCWD, to))
CALL(int, renameat, (int old, const char *from, int new, const char *to), (old, from, new, to), has_path(new, to))
CALL(int, renameat2, (int old, const char *from, int new, const char *to, unsigned flags), (old, from, new, to, flags),
     has_path(new, to))

/* ---- Open ---------------------------------------------------------------------- */

static mode_t mode_of(int flags, va_list arguments)
{
	return flags & (O_CREAT | (O_TMPFILE & ~O_DIRECTORY)) ? va_arg(arguments, mode_t) : 0;
}

int openat(int directory, const char *path, int flags, ...)
{
	va_list arguments;
	mode_t mode;

	va_start(arguments, flags);
	mode = mode_of(flags, arguments);
	va_end(arguments);
	return pass(has_path(directory, path)) ? NEXT(openat)(directory, path, flags, mode) : -1;
}

int open(const char *path, int flags, ...)
{
	va_list arguments;
	mode_t mode;

	va_start(arguments, flags);
	mode = mode_of(flags, arguments);
	va_end(arguments);
	return pass(has_path(AT_FDCWD, path)) ? NEXT(open)(path, flags, mode) : -1;
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
