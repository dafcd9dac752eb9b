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
#include "content.h"
#include "format_super.h"

bool cache_refuse(GError **error, const char *path, const char *why)
{
	return error_set(
		error, EINVAL,
		"%s: %s; \"leafctl cache create --force --pool POOL %s\" makes an empty cache of it, what it holds is "
		"lost",
		path, why, path);
}

bool cache_refuse_other(GError **error, const char *path, const char *what)
{
	return error_set(error, EINVAL, "%s: %s; a cache is a file or device of its own: name another", path, what);
}

static enum cache_super_result refuse(GError **error, const char *path, const char *why)
{
	(void)cache_refuse(error, path, why);
	return CACHE_SUPER_FOREIGN;
}

static enum cache_super_result refuse_other(GError **error, const char *path, const char *what)
{
	(void)cache_refuse_other(error, path, what);
	return CACHE_SUPER_FOREIGN;
}

/* ---- Which copy counts ------------------------------------------------------ */

struct copies {
	struct cache_super_ondisk *blocks; /* one after the other, page-aligned */
	int newest;			   /* -1: none */
	unsigned bad;
	int error; /* why one of them cannot be read, or 0 */
};

/* What is behind the end of a file is zeros. */
static int read_copy(int fd, uint64_t file_bytes, struct cache_super_ondisk *block, unsigned copy)
{
	memset(block, 0, sizeof(*block));
	if (CACHE_SUPER_OFFSET(copy) + sizeof(*block) > file_bytes)
		return 0;
	return aio_fd_read(fd, block, sizeof(*block), CACHE_SUPER_OFFSET(copy));
}

static void read_copies(int fd, uint64_t file_bytes, struct copies *copies)
{
	for (unsigned copy = 0; copy < CACHE_SUPER_COPIES; copy++) {
		const struct cache_super_ondisk *block = &copies->blocks[copy];
		int result = read_copy(fd, file_bytes, &copies->blocks[copy], copy);

		if (result < 0)
			copies->error = result;
		if (result < 0 || !cache_super_is_intact(block, copy))
			copies->bad++;
		else if (copies->newest < 0 ||
			 le64_get(block->sequence) > le64_get(copies->blocks[copies->newest].sequence))
			copies->newest = (int)copy;
	}
}

/* No copy is a superblock. */
static enum cache_super_result tell_content(int fd, const char *path, uint64_t file_bytes, GError **error)
{
	bool known;
	g_autofree char *text = cache_content_text(fd, file_bytes, &known);

	if (!text)
		return CACHE_SUPER_BLANK;
	return known ? refuse_other(error, path, text) : refuse(error, path, text);
}

static enum cache_super_result choose(int fd, const char *path, uint64_t file_bytes, const struct copies *copies,
				      struct cache_super_ondisk *super, GError **error)
{
	g_autofree char *why = NULL;

	if (copies->newest < 0 && copies->error < 0) {
		error_set_errno(error, -copies->error, "%s: its superblock cannot be read", path);
		return CACHE_SUPER_FOREIGN;
	}
	if (copies->newest < 0)
		return tell_content(fd, path, file_bytes, error);
	*super = copies->blocks[copies->newest];
	if (!cache_super_validate(super, (unsigned)copies->newest, &why))
		return refuse(error, path, why);
	return CACHE_SUPER_GOOD;
}

enum cache_super_result cache_super_read(int fd, const char *path, uint64_t file_bytes,
					 struct cache_super_ondisk *super, unsigned *bad_copies, GError **error)
{
	struct copies copies = {.newest = -1};
	enum cache_super_result answer;

	if (file_bytes > 0 && file_bytes < BLOCK_SIZE)
		return refuse_other(error, path, "is no cache");
	copies.blocks = aligned_alloc(BLOCK_SIZE, CACHE_SUPER_COPIES * sizeof(*copies.blocks));
	read_copies(fd, file_bytes, &copies);
	answer = choose(fd, path, file_bytes, &copies, super, error);
	if (bad_copies)
		*bad_copies = answer == CACHE_SUPER_GOOD ? copies.bad : 0;
	free(copies.blocks);
	return answer;
}

/* ---- Writing ----------------------------------------------------------------- */

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
