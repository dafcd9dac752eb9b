/* What is in a file or device that is no cache. */
#include "content.h"

#include <errno.h>
#include <glib.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "aio/content.h"
#include "aio/file.h"
#include "core/bytes.h"
#include "format/cache.h"
#include "format/leaf.h"

#define PIECE_BYTES (UINT64_C(1) << 20)
#define ENDS_BYTES (2 * PIECE_BYTES)

/* A cache without a superblock. */
static bool has_records(int fd, uint64_t bytes)
{
	le32 magic;

	for (uint64_t at = CACHE_SEGMENTS_OFFSET; at < bytes; at += CACHE_SEGMENT_BYTES)
		if (aio_fd_read(fd, &magic, sizeof(magic), at) == 0 &&
		    (le32_get(magic) == CACHE_RECORD_MAGIC || le32_get(magic) == CACHE_RECORD_MAGIC_1))
			return true;
	return false;
}

bool cache_content_is_leaf(int fd)
{
	char magic[sizeof(LEAF_MAGIC) - 1];

	return aio_fd_read(fd, magic, sizeof(magic), 0) == 0 && memcmp(magic, LEAF_MAGIC, sizeof(magic)) == 0;
}

static char *find_known(int fd)
{
	return cache_content_is_leaf(fd) ? g_strdup("is a leaf image") : content_text(fd);
}

/* ---- Anything ---------------------------------------------------------------- */

/* 0: zeros; 1: not; -errno. */
static int look(int fd, void *buffer, uint64_t offset, uint64_t bytes)
{
	int result = aio_fd_read(fd, buffer, bytes, offset);

	return result < 0 ? result : !buffer_is_zero(buffer, bytes);
}

static int look_at_range(int fd, void *buffer, uint64_t offset, uint64_t end)
{
	int result = 0;

	for (uint64_t length; offset < end && result == 0; offset += length) {
		length = MIN(end - offset, PIECE_BYTES);
		result = look(fd, buffer, offset, length);
	}
	return result;
}

static int look_at_file(int fd, void *buffer, uint64_t bytes)
{
	int result = 0;

	for (off_t end, offset = 0; result == 0 && (offset = lseek(fd, offset, SEEK_DATA)) >= 0; offset = end) {
		end = lseek(fd, offset, SEEK_HOLE);
		if (end < 0)
			return -errno;
		result = look_at_range(fd, buffer, (uint64_t)offset, (uint64_t)end);
	}
	if (result != 0 || errno == ENXIO)
		return result;
	return look_at_range(fd, buffer, 0, bytes);
}

static int look_at_device(int fd, void *buffer, uint64_t bytes)
{
	uint64_t end = MIN(bytes, ENDS_BYTES);
	int result = look_at_range(fd, buffer, 0, end);

	for (uint64_t offset = end; offset + PIECE_BYTES <= bytes && result == 0; offset += PIECE_BYTES)
		result = look(fd, buffer, offset, BLOCK_SIZE);
	return result != 0 ? result : look_at_range(fd, buffer, MAX(end, bytes - end), bytes);
}

char *cache_content_text(int fd, uint64_t bytes, bool *known)
{
	char *text = find_known(fd);
	struct stat st;
	void *buffer;
	int result;

	*known = text;
	if (!text && has_records(fd, bytes))
		text = g_strdup("is a cache, and both copies of its superblock are damaged");
	if (text)
		return text;
	buffer = aligned_alloc(BLOCK_SIZE, PIECE_BYTES);
	result = fstat(fd, &st) == 0 && S_ISBLK(st.st_mode) ? look_at_device(fd, buffer, bytes)
							    : look_at_file(fd, buffer, bytes);
	free(buffer);
	if (result < 0)
		return g_strdup_printf("cannot be read (%s)", g_strerror(-result));
	return result ? g_strdup("has data that is no cache") : NULL;
}
