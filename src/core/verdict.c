/* The table of errors: class of errno by store and operation.
 *
 * A row is one operation of one store; its columns are the classes. What stands
 * here holds for `store_errors=report` and `nospace=report`: an option that has
 * outages or full stores waited for turns REPORT into WAIT in that column.
 *
 * What has no row is reported. Why the rows are as they are:
 *     image, flush    the kernel reports a failed write-back once; a second
 *                     flush that succeeds says nothing of what the first lost,
 *                     for want of room or for any other reason.
 *     image, commit   likewise; but without room the metadata of before still
 *                     stands, and the next commit writes everything again.
 *     image, reserve  without room nothing is lost yet: what wants it finds it, or
 *                     says so itself, and a full store does not keep a disk from
 *                     being read, or from giving room back.
 *     image, zero     where zeros cannot be asked for they can be written.
 *     write-back      the cache has it all, so nothing is lost by waiting.
 *     cache           nothing that is acknowledged depends on it alone once it
 *                     is suspended: reads go to the images, dirty blocks too.
 *     record, read    an answer that is not to be had is not "nobody's"; what is
 *                     no record could have been anybody's.
 *     record, write   an image's lock says as much to this host, where nothing
 *                     but the image has its newest changes; that is the caller's
 *                     to know. A writer of records names each step WRITE. */
#include "core/verdict.h"

#include <errno.h>
#include <stdbool.h>

enum error_class error_class_of(enum store_op op, int error)
{
	bool favour = op == STORE_ZERO || op == STORE_PUNCH || op == STORE_STAMP;

	switch (-error) {
	case EAGAIN:
	case EBUSY:
	case EINTR:
	case ENOMEM:
		return ERROR_TRANSIENT;
	case EMFILE:
	case ENFILE:
		return ERROR_DESCRIPTORS;
	case ENOSPC:
	case EDQUOT:
	case EFBIG:
		return ERROR_NO_ROOM;
	case EOPNOTSUPP:
	case ENOSYS:
	case EINVAL:
		return ERROR_UNSUPPORTED;
	case EPERM:
		return favour ? ERROR_UNSUPPORTED : ERROR_READ_ONLY;
	case EROFS:
	case EACCES:
		return ERROR_READ_ONLY;
	case ENOENT:
		return ERROR_ABSENT;
	default:
		return ERROR_OUTAGE;
	}
}

#define RETRY VERDICT_RETRY
#define WAIT VERDICT_WAIT
#define REPORT VERDICT_REPORT
#define DEGRADE VERDICT_DEGRADE
#define FAIL VERDICT_FAIL
#define IGNORE VERDICT_IGNORE

/* clang-format off */
static const enum verdict table[STORES][STORE_OPS][ERROR_CLASSES] = {
/*                           transient descriptors no room unsupported read-only absent outage */
	[STORE_IMAGE] = {
		[STORE_READ]       = {RETRY,   REPORT,  REPORT,  REPORT,  REPORT,  REPORT,  REPORT},
		[STORE_WRITE]      = {RETRY,   REPORT,  REPORT,  REPORT,  REPORT,  REPORT,  REPORT},
		[STORE_FLUSH]      = {RETRY,   FAIL,    FAIL,    FAIL,    FAIL,    FAIL,    FAIL},
		[STORE_COMMIT]     = {RETRY,   FAIL,    REPORT,  FAIL,    FAIL,    FAIL,    FAIL},
		[STORE_EXTEND]     = {RETRY,   REPORT,  REPORT,  REPORT,  REPORT,  REPORT,  REPORT},
		[STORE_RESERVE]    = {RETRY,   REPORT,  IGNORE,  REPORT,  REPORT,  REPORT,  REPORT},
		[STORE_ZERO]       = {RETRY,   REPORT,  REPORT,  DEGRADE, REPORT,  REPORT,  REPORT},
		[STORE_PUNCH]      = {RETRY,   REPORT,  REPORT,  IGNORE,  REPORT,  REPORT,  REPORT},
		[STORE_STAMP]      = {REPORT,  REPORT,  REPORT,  DEGRADE, REPORT,  REPORT,  REPORT},
		[STORE_WRITE_BACK] = {WAIT,    WAIT,    WAIT,    WAIT,    WAIT,    WAIT,    WAIT},
	},
	[STORE_PARENT] = {
		[STORE_READ]       = {RETRY,   REPORT,  REPORT,  REPORT,  REPORT,  REPORT,  REPORT},
	},
	[STORE_CACHE] = {
		[STORE_READ]       = {RETRY,   DEGRADE, DEGRADE, DEGRADE, DEGRADE, DEGRADE, DEGRADE},
		[STORE_WRITE]      = {RETRY,   DEGRADE, DEGRADE, DEGRADE, DEGRADE, DEGRADE, DEGRADE},
		[STORE_FLUSH]      = {RETRY,   DEGRADE, DEGRADE, DEGRADE, DEGRADE, DEGRADE, DEGRADE},
		[STORE_COMMIT]     = {DEGRADE, DEGRADE, DEGRADE, DEGRADE, DEGRADE, DEGRADE, DEGRADE},
		[STORE_PUNCH]      = {IGNORE,  IGNORE,  IGNORE,  IGNORE,  IGNORE,  IGNORE,  IGNORE},
	},
	[STORE_RECORD] = {
		[STORE_OPEN]       = {WAIT,    WAIT,    WAIT,    WAIT,    WAIT,    IGNORE,  WAIT},
		[STORE_READ]       = {WAIT,    WAIT,    WAIT,    FAIL,    WAIT,    IGNORE,  WAIT},
		[STORE_WRITE]      = {REPORT,  REPORT,  DEGRADE, DEGRADE, DEGRADE, REPORT,  REPORT},
	},
};
/* clang-format on */

enum verdict verdict_of(enum store store, enum store_op op, int error)
{
	return table[store][op][error_class_of(op, error)];
}

enum verdict verdict_final(enum store store, enum store_op op, int error)
{
	enum verdict verdict = verdict_of(store, op, error);

	return verdict == VERDICT_RETRY ? table[store][op][ERROR_OUTAGE] : verdict;
}
