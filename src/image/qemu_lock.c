/* QEMU's image locks: how it, qemu-img and we keep off each other's images.
 *
 * Source: QEMU's block/file-posix.c (image locking). A program has rights of an image,
 * by number, and rights that it does not share. For each right that it has it holds a
 * shared lock of byte 100 + number, for each that it does not share one of 200 + number;
 * all are locks of an open file, and nobody ever has an exclusive one. Whoever has locked
 * his own looks whether somebody else has what he does not share, or does not share what
 * he has; two who come at once may both find that, and try again. */
#include "qemu_lock.h"

#include <errno.h>
#include <fcntl.h>
#include <glib.h>

#include "core/error.h"
#include "core/thread.h"

#define HAVE 100
#define KEEP 200

/* BLK_PERM_CONSISTENT_READ, BLK_PERM_WRITE and BLK_PERM_RESIZE. */
enum right { READ = 0, WRITE = 1, RESIZE = 3 };

#define PATIENCE_US G_USEC_PER_SEC
#define RETRY_US (10 * 1000)

static const enum right reader[] = {READ}, writer[] = {READ, WRITE, RESIZE}, kept[] = {WRITE, RESIZE};

static enum answer set_locks(int fd, short type, off_t base, const enum right *rights, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		struct flock lock = {.l_type = type, .l_start = base + rights[i], .l_len = 1};

		if (fcntl(fd, F_OFD_SETLK, &lock) < 0)
			return ANSWER_UNKNOWN;
	}
	return ANSWER_YES;
}

/* YES: nobody else has a lock of these. */
static enum answer are_free(int fd, off_t base, const enum right *rights, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		struct flock lock = {.l_type = F_WRLCK, .l_start = base + rights[i], .l_len = 1};

		if (fcntl(fd, F_OFD_GETLK, &lock) < 0)
			return ANSWER_UNKNOWN;
		if (lock.l_type != F_UNLCK)
			return ANSWER_NO;
	}
	return ANSWER_YES;
}

static enum answer try(int fd, const enum right *rights, unsigned count)
{
	enum answer answer = set_locks(fd, F_RDLCK, HAVE, rights, count);

	if (answer == ANSWER_YES)
		answer = set_locks(fd, F_RDLCK, KEEP, kept, G_N_ELEMENTS(kept));
	if (answer == ANSWER_YES)
		answer = are_free(fd, KEEP, rights, count);
	if (answer == ANSWER_YES)
		answer = are_free(fd, HAVE, kept, G_N_ELEMENTS(kept));
	if (answer == ANSWER_NO) {
		(void)set_locks(fd, F_UNLCK, HAVE, rights, count);
		(void)set_locks(fd, F_UNLCK, KEEP, kept, G_N_ELEMENTS(kept));
	}
	return answer;
}

enum answer qemu_lock_take(struct aio_file *file, bool writable, const char *advice, GError **error)
{
	const enum right *rights = writable ? writer : reader;
	unsigned count = writable ? G_N_ELEMENTS(writer) : G_N_ELEMENTS(reader);
	int fd = file->buffered_fd;
	enum answer answer;

	thread_assert_may_block();
	for (gint64 left = PATIENCE_US; (answer = try(fd, rights, count)) == ANSWER_NO && left > 0; left -= RETRY_US)
		g_usleep(RETRY_US);
	if (answer == ANSWER_NO)
		error_set(error, EBUSY, "%s: is open in QEMU, or in another program with QEMU's image locks%s",
			  file->name, advice);
	return answer;
}

void qemu_lock_lower(int fd)
{
	(void)set_locks(fd, F_UNLCK, HAVE, kept, G_N_ELEMENTS(kept));
}
