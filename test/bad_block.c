/* LD_PRELOAD: reads with pread(2) of the file BAD_FILE that touch the block at byte BAD_OFFSET fail with EIO. */
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

#define BLOCK 4096

ssize_t pread64(int fd, void *data, size_t bytes, off64_t offset);

static int is_bad(int fd, size_t bytes, off64_t offset)
{
	const char *file = getenv("BAD_FILE"), *at = getenv("BAD_OFFSET");
	char link[64], path[4096];
	ssize_t length;

	if (!file || !at || offset >= atoll(at) + BLOCK || offset + (off64_t)bytes <= atoll(at))
		return 0;
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	length = readlink(link, path, sizeof(path) - 1);
	if (length < 0)
		return 0;
	path[length] = '\0';
	return strcmp(path, file) == 0;
}

static ssize_t read_or_fail(const char *name, int fd, void *data, size_t bytes, off64_t offset)
{
	ssize_t (*real)(int, void *, size_t, off64_t) = dlsym(RTLD_NEXT, name);

	if (!is_bad(fd, bytes, offset))
		return real(fd, data, bytes, offset);
	errno = EIO;
	return -1;
}

ssize_t pread(int fd, void *data, size_t bytes, off_t offset)
{
	return read_or_fail("pread", fd, data, bytes, offset);
}

ssize_t pread64(int fd, void *data, size_t bytes, off64_t offset)
{
	return read_or_fail("pread64", fd, data, bytes, offset);
}
