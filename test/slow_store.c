/* A store that is slow, or hangs, for the program that this is preloaded into.
 *
 *     SLOW_POOL   calls on files below this directory are meant
 *     SLOW_GATE   only while this file exists
 *     SLOW_MS     how long each takes in addition
 *     SLOW_HANG   a part of a file's path: calls on it last as long as the gate
 *     SLOW_CALLS  the names of these calls: no other hangs
 *     SLOW_SKIP   so many calls on it do not hang, while the gate exists
 *     SLOW_LOG    gets a line for each: thread, process, thread's name, call, path
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <libaio.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static long real_syscall(long number, long a, long b, long c, long d)
{
	static long (*real)(long, ...);

	if (!real)
		real = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
	return real(number, a, b, c, d, 0L, 0L);
}

static int is_open(const char *gate)
{
	return gate && real_syscall(SYS_access, (long)gate, F_OK, 0, 0) == 0;
}

/* By a call that a mount makes too: others are refused. */
static void get_thread_name(char name[16])
{
	int fd = (int)real_syscall(SYS_openat, AT_FDCWD, (long)"/proc/thread-self/comm", O_RDONLY | O_CLOEXEC, 0);
	long length = fd < 0 ? 0 : real_syscall(SYS_read, fd, (long)name, 16, 0);

	if (fd >= 0)
		real_syscall(SYS_close, fd, 0, 0, 0);
	name[length > 0 ? length - 1 : 0] = '\0';
}

static void note(const char *call, const char *path)
{
	const char *log = getenv("SLOW_LOG");
	char line[PATH_MAX + 128];
	char name[16] = "";
	int length;
	int fd;

	if (!log)
		return;
	get_thread_name(name);
	length = snprintf(line, sizeof(line), "%ld %ld %s %s %s\n", real_syscall(SYS_gettid, 0, 0, 0, 0),
			  (long)getpid(), name, call, path);
	fd = (int)real_syscall(SYS_openat, AT_FDCWD, (long)log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
	real_syscall(SYS_write, fd, (long)line, length, 0);
	real_syscall(SYS_close, fd, 0, 0, 0);
}

static void nap(long ms)
{
	struct timespec time = {ms / 1000, ms % 1000 * 1000000};

	nanosleep(&time, NULL);
}

static int is_skipped(void)
{
	static long calls;
	const char *skip = getenv("SLOW_SKIP");

	return skip && __atomic_add_fetch(&calls, 1, __ATOMIC_RELAXED) <= atol(skip);
}

static void slow(const char *call, const char *path)
{
	const char *pool = getenv("SLOW_POOL");
	const char *gate = getenv("SLOW_GATE");
	const char *hang = getenv("SLOW_HANG");
	const char *calls = getenv("SLOW_CALLS");
	const char *ms = getenv("SLOW_MS");

	if (!pool || strncmp(path, pool, strlen(pool)) != 0 || !is_open(gate))
		return;
	note(call, path);
	if (ms)
		nap(atol(ms));
	if (calls && !strstr(calls, call))
		return;
	if (hang && strstr(path, hang) && !is_skipped())
		while (is_open(gate))
			nap(5);
}

static void slow_fd(const char *call, int fd)
{
	char link[64];
	char path[PATH_MAX];
	long length;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	length = real_syscall(SYS_readlink, (long)link, (long)path, sizeof(path) - 1, 0);
	if (length <= 0)
		return;
	path[length] = '\0';
	slow(call, path);
}

static void slow_at(const char *call, int directory, const char *path)
{
	char link[64];
	char whole[2 * PATH_MAX];
	long length;

	if (!path || !*path) {
		slow_fd(call, directory);
		return;
	}
	if (*path == '/' || directory == AT_FDCWD) {
		slow(call, path);
		return;
	}
	snprintf(link, sizeof(link), "/proc/self/fd/%d", directory);
	length = real_syscall(SYS_readlink, (long)link, (long)whole, PATH_MAX - 1, 0);
	if (length <= 0)
		return;
	snprintf(whole + length, sizeof(whole) - (size_t)length, "/%s", path);
	slow(call, whole);
}

#define OPEN(name)                                                                                                     \
	int name(const char *path, int flags, ...)                                                                     \
	{                                                                                                              \
		va_list list;                                                                                          \
		mode_t mode;                                                                                           \
                                                                                                                       \
		va_start(list, flags);                                                                                 \
		mode = va_arg(list, mode_t);                                                                           \
		va_end(list);                                                                                          \
		slow_at("open", AT_FDCWD, path);                                                                       \
		return REAL(name)(path, flags, mode);                                                                  \
	}
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                                                                                   \
	int name(int directory, const char *path, int flags, ...)                                                      \
	{                                                                                                              \
		va_list list;                                                                                          \
		mode_t mode;                                                                                           \
                                                                                                                       \
		va_start(list, flags);                                                                                 \
		mode = va_arg(list, mode_t);                                                                           \
		va_end(list);                                                                                          \
		slow_at("open", directory, path);                                                                      \
		return REAL(name)(directory, path, flags, mode);                                                       \
	}
OPENAT(openat)
OPENAT(openat64)

/* openat2 has no function of its own. */
long syscall(long number, ...)
{
	va_list list;
	long a[6];

	va_start(list, number);
	for (int i = 0; i < 6; i++)
		a[i] = va_arg(list, long);
	va_end(list);
	if (number == SYS_openat2)
		slow_at("open", (int)a[0], (const char *)a[1]);
	return ((long (*)(long, ...))dlsym(RTLD_NEXT, "syscall"))(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

#define BY_PATH(name, type)                                                                                            \
	int name(const char *path, type *result)                                                                       \
	{                                                                                                              \
		slow_at("stat", AT_FDCWD, path);                                                                       \
		return REAL(name)(path, result);                                                                       \
	}
BY_PATH(stat, struct stat)
BY_PATH(stat64, struct stat64)
BY_PATH(lstat, struct stat)
BY_PATH(lstat64, struct stat64)

#define BY_FD(result, name, call, parameters, arguments)                                                               \
	result name parameters                                                                                         \
	{                                                                                                              \
		slow_fd(call, fd);                                                                                     \
		return REAL(name) arguments;                                                                           \
	}
BY_FD(int, fstat, "stat", (int fd, struct stat *st), (fd, st))
BY_FD(int, fstat64, "stat", (int fd, struct stat64 *st), (fd, st))
BY_FD(int, close, "close", (int fd), (fd))
BY_FD(int, ftruncate, "ftruncate", (int fd, off_t length), (fd, length))
BY_FD(int, ftruncate64, "ftruncate", (int fd, off64_t length), (fd, length))
BY_FD(int, fallocate, "fallocate", (int fd, int mode, off_t at, off_t length), (fd, mode, at, length))
BY_FD(int, fallocate64, "fallocate", (int fd, int mode, off64_t at, off64_t length), (fd, mode, at, length))
BY_FD(int, fsync, "fsync", (int fd), (fd))
BY_FD(int, fdatasync, "fsync", (int fd), (fd))
BY_FD(ssize_t, pread, "read", (int fd, void *data, size_t length, off_t at), (fd, data, length, at))
BY_FD(ssize_t, pread64, "read", (int fd, void *data, size_t length, off64_t at), (fd, data, length, at))
BY_FD(ssize_t, preadv, "read", (int fd, const struct iovec *v, int count, off_t at), (fd, v, count, at))
BY_FD(ssize_t, preadv64, "read", (int fd, const struct iovec *v, int count, off64_t at), (fd, v, count, at))
BY_FD(ssize_t, pwrite, "write", (int fd, const void *data, size_t length, off_t at), (fd, data, length, at))
BY_FD(ssize_t, pwrite64, "write", (int fd, const void *data, size_t length, off64_t at), (fd, data, length, at))
BY_FD(ssize_t, pwritev2, "write", (int fd, const struct iovec *v, int count, off_t at, int flags),
      (fd, v, count, at, flags))
BY_FD(ssize_t, pwritev64v2, "write", (int fd, const struct iovec *v, int count, off64_t at, int flags),
      (fd, v, count, at, flags))

/* What it takes in is read and written by the kernel; that it takes long is the store's
 * doing too. */
int io_submit(io_context_t context, long count, struct iocb **iocbs)
{
	for (long i = 0; i < count; i++)
		if (i == 0 || iocbs[i]->aio_fildes != iocbs[i - 1]->aio_fildes)
			slow_fd("submit", iocbs[i]->aio_fildes);
	return REAL(io_submit)(context, count, iocbs);
}

int fstatat(int directory, const char *path, struct stat *st, int flags)
{
	slow_at("stat", directory, path);
	return REAL(fstatat)(directory, path, st, flags);
}

int fstatat64(int directory, const char *path, struct stat64 *st, int flags)
{
	slow_at("stat", directory, path);
	return REAL(fstatat64)(directory, path, st, flags);
}

int statx(int directory, const char *path, int flags, unsigned mask, struct statx *result)
{
	slow_at("stat", directory, path);
	return REAL(statx)(directory, path, flags, mask, result);
}
