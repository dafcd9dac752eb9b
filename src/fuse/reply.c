/* Answers with an errno.
 *
 * What the kernel makes of an errno, by Linux 6.12, fs/fuse and fs/namei.c:
 *
 *   ENOSYS     OPEN, OPENDIR, CREATE, FLUSH, FSYNC, FSYNCDIR, FALLOCATE, LSEEK,
 *              ACCESS, RENAME2 and others: never sent again, for any file of the
 *              mount; after FSYNC and FLUSH they count as done, after OPEN a file
 *              has no handle. libfuse says it by itself for what is not in
 *              session_ops, and only there it is meant.
 *   ECHILD     of a lookup or an open: walk the path again
 *   ESTALE     the same, once; that is what a node that is gone is to say, and
 *              does no harm otherwise
 *   EINTR      of a lookup: not to be believed, ask again; elsewhere whoever
 *              called (Python, the C library's loops) calls again for ever
 *   EAGAIN,    a file that does not block has no such answer; whoever gets it
 *   ERESTART   waits for a change that poll(2) does not tell, or calls again
 *   > 511      the kernel's own numbers (ERESTARTSYS, EIOCBQUEUED, ...): the
 *              answer is refused, and the caller waits for ever
 *   below 0    the same
 *   134 - 511  no errno
 *
 * And what programs make of it when it is about data: that the file cannot do
 * such a thing, so that nothing is lost. EINVAL and EOPNOTSUPP of fsync(2) are
 * passed over (dd, PostgreSQL), EINVAL of a direct read is taken for a matter of
 * alignment (QEMU), EBADF is the program's own descriptor, ENXIO of SEEK_DATA the
 * end of the data; so disk_seek() has ENXIO for that alone. FALLOCATE is
 * different: EOPNOTSUPP there makes the caller write zeros, which is right. */
#include "reply.h"

#include <errno.h>
#include <linux/fuse.h>

#include "fuse/control/tree.h"
#include "core/fault.h"

/* The last errno that programs know. */
#define ERRNO_MAX EHWPOISON

static bool is_of_data(uint32_t opcode)
{
	switch (opcode) {
	case FUSE_READ:
	case FUSE_WRITE:
	case FUSE_FLUSH:
	case FUSE_FSYNC:
	case FUSE_LSEEK:
		return true;
	default:
		return false;
	}
}

enum reply_kind reply_kind_of(uint32_t opcode, uint64_t ino)
{
	return is_of_data(opcode) && !control_owns(ino) ? REPLY_DATA : REPLY_OTHER;
}

static bool says_something_else(enum reply_kind kind, int errnum)
{
	switch (errnum) {
	case ENOSYS:
	case ECHILD:
	case EINTR:
	case EAGAIN:
	case ERESTART:
		return true;
	case EINVAL:
	case EBADF:
	case ENOTTY:
	case EOPNOTSUPP:
		return kind == REPLY_DATA;
	default:
		return false;
	}
}

int reply_errno(enum reply_kind kind, int error)
{
	if (error == REPLY_INTERRUPTED)
		return EINTR;
	if (error > 0 || error < -ERRNO_MAX || says_something_else(kind, -error))
		return EIO;
	return -error;
}

/* The tests see what the kernel does with an errno that is sent as it is. */
void reply_error(fuse_req_t fuse, enum reply_kind kind, int error)
{
	int raw = error ? fault_hit("reply.raw", NULL) : 0;

	fuse_reply_err(fuse, raw ? -raw : reply_errno(kind, error));
}
