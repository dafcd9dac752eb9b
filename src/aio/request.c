/* Requests: what they are called, and how those on a file have gone. */
#include "call.h"

#include <glib.h>
#include <stdatomic.h>

#include "core/loop.h"

const char *request_op_name(enum aio_op op)
{
	static const char *const names[] = {
		[AIO_READ] = "read",
		[AIO_WRITE] = "write",
		[AIO_WRITE_DURABLE] = "durable write",
		[AIO_DATASYNC] = "datasync",
	};

	return names[op];
}

void aio_note(struct aio_file *file, enum aio_op op, int result)
{
	struct aio_failure *failure = op == AIO_READ ? &file->reading : &file->writing;
	int before = atomic_load_explicit(&failure->error, memory_order_relaxed);

	if (result >= 0 && before == 0)
		return;
	if (result < 0 && before == 0)
		atomic_store(&failure->since_ns, loop_now_ns());
	atomic_store(&failure->error, MIN(result, 0));
}
