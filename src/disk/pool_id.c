/* The identity of a pool: a random number in POOL/.leafdisk/pool-id.
 *
 * It moves with the pool, and a second pool at the same path has another one. A
 * pool that nobody may write is known by its path. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "core/error.h"
#include "disk/pool.h"

#define ID_BYTES 16
#define TEXT_BYTES (2 * ID_BYTES + 1)

static bool parse_id(const char *text, size_t bytes, uint8_t id[ID_BYTES])
{
	if (bytes != TEXT_BYTES || text[TEXT_BYTES - 1] != '\n')
		return false;
	for (unsigned i = 0; i < ID_BYTES; i++) {
		int high = g_ascii_xdigit_value(text[2 * i]), low = g_ascii_xdigit_value(text[2 * i + 1]);

		if (high < 0 || low < 0)
			return false;
		id[i] = (uint8_t)(high << 4 | low);
	}
	return true;
}

/* 0; -ENOENT; another -errno; -EINVAL when it is no identity. */
static int read_id(const char *file, uint8_t id[ID_BYTES])
{
	char text[TEXT_BYTES + 1];
	int fd = open(file, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	ssize_t bytes;
	int errnum;

	if (fd < 0)
		return errno == ENOTDIR ? -ENOENT : -errno;
	bytes = read(fd, text, sizeof(text));
	errnum = errno;
	close(fd);
	if (bytes < 0)
		return -errnum;
	return parse_id(text, (size_t)bytes, id) ? 0 : -EINVAL;
}

static int write_text(const char *file)
{
	char text[TEXT_BYTES + 1];
	uint8_t id[ID_BYTES];
	int fd = open(file, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	int result = 0;

	if (fd < 0)
		return -errno;
	while (getrandom(id, sizeof(id), 0) != sizeof(id))
		;
	for (unsigned i = 0; i < ID_BYTES; i++)
		snprintf(text + 2 * i, 3, "%02x", id[i]);
	text[TEXT_BYTES - 1] = '\n';
	errno = EIO;
	if (write(fd, text, TEXT_BYTES) != TEXT_BYTES || fsync(fd) < 0)
		result = -errno;
	close(fd);
	return result;
}

/* 0 too when somebody else was faster. */
static int create_id(const char *directory, const char *file)
{
	g_autofree char *temporary = g_strdup_printf("%s.%d.tmp", file, (int)getpid());
	int result;

	if (mkdir(directory, 0700) < 0 && errno != EEXIST)
		return -errno;
	unlink(temporary);
	result = write_text(temporary);
	if (result == 0 && link(temporary, file) < 0 && errno != EEXIST && rename(temporary, file) < 0)
		result = -errno;
	unlink(temporary);
	return result;
}

static bool id_of_path(const char *path, uint8_t id[ID_BYTES], GError **error)
{
	char *real = realpath(path, NULL);
	XXH128_canonical_t canonical;

	if (!real)
		return error_set_errno(error, errno, "%s: the pool cannot be opened", path);
	XXH128_canonicalFromHash(&canonical, XXH3_128bits(real, strlen(real)));
	memcpy(id, canonical.digest, ID_BYTES);
	free(real);
	return true;
}

static bool may_not_be_written(int result)
{
	return result == -EROFS || result == -EACCES || result == -EPERM;
}

bool disk_pool_read_id(const char *path, bool create, uint8_t id[16], GError **error)
{
	g_autofree char *directory = g_build_filename(path, ".leafdisk", NULL);
	g_autofree char *file = g_build_filename(directory, "pool-id", NULL);
	int result = read_id(file, id);

	if (result == -ENOENT && create && g_file_test(path, G_FILE_TEST_IS_DIR)) {
		result = create_id(directory, file);
		if (result == 0)
			result = read_id(file, id);
		else if (may_not_be_written(result))
			result = -ENOENT;
	}
	if (result == -ENOENT)
		return id_of_path(path, id, error);
	if (result == -EINVAL)
		return error_set(error, EINVAL,
				 "%s: is not the identity of a pool (32 hexadecimal digits); when it is removed the "
				 "next mount makes a new one, and caches of the old one must be reset",
				 file);
	return result == 0 || error_set_errno(error, -result, "%s: the pool's identity cannot be read or made", file);
}
