/* The superblock's two copies: which one counts, and how both are replaced.
 *
 * The copy with sequence S stands at place S % 2, and each change writes both,
 * with S + 1 and S + 2. So the first write of a change always hits the older
 * copy, and the newest one stays until a newer is durable. */
#include "super.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "aio/file.h"
#include "core/error.h"
#include "core/fault.h"
#include "core/trace.h"
#include "format_super.h"

#define HEAD_BYTES (CACHE_SUPER_OFFSET(CACHE_SUPER_COPIES - 1) + CACHE_SUPER_BYTES)

static const struct cache_super_ondisk *copy_in(const uint8_t *head, unsigned copy)
{
	return (const struct cache_super_ondisk *)(head + CACHE_SUPER_OFFSET(copy));
}

/* Which copy counts, or -1. */
static int newest_copy(const uint8_t *head, unsigned *bad_copies)
{
	int newest = -1;

	*bad_copies = 0;
	for (unsigned copy = 0; copy < CACHE_SUPER_COPIES; copy++) {
		if (!cache_super_is_intact(copy_in(head, copy), copy))
			++*bad_copies;
		else if (newest < 0 ||
			 le64_get(copy_in(head, copy)->sequence) > le64_get(copy_in(head, (unsigned)newest)->sequence))
			newest = (int)copy;
	}
	return newest;
}

bool cache_refuse(GError **error, const char *path, const char *why)
{
	return error_set(
		error, EINVAL,
		"%s: %s; \"leafctl cache create --force --pool POOL %s\" makes an empty cache of it, what it holds is "
		"lost",
		path, why, path);
}

bool cache_refuse_unreadable(GError **error, const char *path, int result)
{
	g_autofree char *why = g_strdup_printf("its log cannot be read (%s)", g_strerror(-result));

	return cache_refuse(error, path, why);
}

static enum cache_super_result refuse(GError **error, const char *path, const char *why)
{
	(void)cache_refuse(error, path, why);
	return CACHE_SUPER_FOREIGN;
}

static enum cache_super_result choose(const uint8_t *head, const char *path, uint64_t file_bytes,
				      struct cache_super_ondisk *super, unsigned *bad_copies, GError **error)
{
	g_autofree char *why = NULL;
	int copy = newest_copy(head, bad_copies);

	if (copy < 0 && buffer_is_zero(head, HEAD_BYTES))
		return CACHE_SUPER_BLANK;
	if (copy < 0)
		return refuse(error, path, "is no cache, or both copies of its superblock are damaged");
	*super = *copy_in(head, (unsigned)copy);
	if (!cache_super_validate(super, (unsigned)copy, file_bytes, &why))
		return refuse(error, path, why);
	return CACHE_SUPER_GOOD;
}

enum cache_super_result cache_super_read(int fd, const char *path, uint64_t file_bytes,
					 struct cache_super_ondisk *super, unsigned *bad_copies, GError **error)
{
	uint8_t *head = aligned_alloc(BLOCK_SIZE, HEAD_BYTES);
	enum cache_super_result answer = CACHE_SUPER_FOREIGN;
	unsigned bad;
	int result;

	memset(head, 0, HEAD_BYTES);
	result = aio_fd_read(fd, head, MIN(round_down(file_bytes, BLOCK_SIZE), HEAD_BYTES), 0);
	if (result < 0)
		error_set_errno(error, -result, "%s: its superblock cannot be read", path);
	else if (file_bytes > 0 && file_bytes < BLOCK_SIZE)
		answer = refuse(error, path, "is no cache");
	else
		answer = choose(head, path, file_bytes, super, &bad, error);
	if (bad_copies)
		*bad_copies = answer == CACHE_SUPER_GOOD ? bad : 0;
	free(head);
	return answer;
}

/* A copy that may not be there is not counted, so that trying again hits the
 * same place. */
static int write_copy(int fd, const char *path, struct cache_super_ondisk *super, struct cache_super_ondisk *buffer)
{
	uint64_t sequence = le64_get(super->sequence) + 1;
	unsigned copy = sequence % CACHE_SUPER_COPIES;
	int result = fault_hit("cache.super", path);

	*buffer = *super;
	buffer->sequence = le64_of(sequence);
	cache_super_seal(buffer, copy);
	if (result == 0)
		result = aio_fd_write(fd, buffer, sizeof(*buffer), CACHE_SUPER_OFFSET(copy));
	if (result < 0)
		return result;
	trace_append(TRACE_WRITE, path, CACHE_SUPER_OFFSET(copy), buffer, sizeof(*buffer));
	trace_append(TRACE_BEGIN, path, 0, NULL, 0);
	if (fdatasync(fd) < 0)
		return -errno;
	trace_append(TRACE_FLUSHED, path, 0, NULL, 0);
	super->sequence = buffer->sequence;
	return 0;
}

int cache_super_write(int fd, const char *path, struct cache_super_ondisk *super)
{
	struct cache_super_ondisk *buffer = aligned_alloc(BLOCK_SIZE, sizeof(*buffer));
	int result = 0;

	for (unsigned copy = 0; copy < CACHE_SUPER_COPIES && result == 0; copy++)
		result = write_copy(fd, path, super, buffer);
	free(buffer);
	return result;
}
