/* Blocking transfers: what is short goes on. */
#include "transfer.h"

#include <errno.h>
#include <sys/types.h>
#include <unistd.h>

int cache_transfer_read(int fd, void *data, size_t length, uint64_t offset)
{
	char *p = data;

	while (length) {
		ssize_t n = pread(fd, p, length, (off_t)offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -ENODATA;
		p += n;
		offset += (uint64_t)n;
		length -= (size_t)n;
	}
	return 0;
}

int cache_transfer_write(int fd, const void *data, size_t length, uint64_t offset)
{
	const char *p = data;

	while (length) {
		ssize_t n = pwrite(fd, p, length, (off_t)offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		p += n;
		offset += (uint64_t)n;
		length -= (size_t)n;
	}
	return 0;
}
