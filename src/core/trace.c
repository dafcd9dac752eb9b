/* The write trace that crash tests replay; see trace.h.
 *
 * One file per process, opened at the first record. Each record is one writev
 * on an O_APPEND descriptor under a lock, so records of several queues do not
 * mix. */
#include "core/trace.h"

#ifdef LEAFDISK_FAULTS

#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <pthread.h>
#include <string.h>
#include <sys/uio.h>

#include "core/lock.h"
#include "core/log.h"

static pthread_once_t trace_once = PTHREAD_ONCE_INIT;
static struct lock trace_lock = LOCK_INIT(LOCK_RANK_TRACE);
static int trace_fd = -1;

static void trace_open(void)
{
	const char *directory = g_getenv("LEAFDISK_TRACE");
	g_autofree char *path = NULL;

	if (!directory)
		return;
	path = g_build_filename(directory, "trace.bin", NULL);
	trace_fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	if (trace_fd < 0)
		log_error("%s: cannot open the write trace: %s", path, strerror(errno));
}

void trace_append(enum trace_type type, const char *name, uint64_t offset, const void *data, uint32_t length)
{
	struct trace_record_ondisk record = {.type = (char)type};
	size_t name_bytes = strlen(name);
	struct iovec vector[] = {
		{&record, sizeof(record)},
		{(void *)(uintptr_t)name, name_bytes},
		{(void *)(uintptr_t)data, length},
	};

	pthread_once(&trace_once, trace_open);
	if (trace_fd < 0)
		return;
	record.name_bytes = le32_of((uint32_t)name_bytes);
	record.offset = le64_of(offset);
	record.length = le32_of(length);

	LOCK_GUARD(&trace_lock);
	if (writev(trace_fd, vector, 3) != (ssize_t)(sizeof(record) + name_bytes + length))
		log_error("the write trace is incomplete: %s", strerror(errno));
}

#endif
