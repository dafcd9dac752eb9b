/* The first look at a request: refuse it, serve it from memory, or place it.
 *
 * Reads that the page cache may hold are tried inline (RWF_NOWAIT): a hit never
 * leaves the loop, a partial hit is continued like any short result. Linux 5.9
 * and 5.10 could answer 0 before the end of the file, so 0 is a miss as well,
 * and so is an error: the try that follows will name it.
 *
 * A miss costs more than a system call: the kernel begins to read the pages,
 * which direct_fd then reads as well. So the tries on a file with both
 * descriptors go by an estimate (estimate.h). */
#include <errno.h>
#include <sys/uio.h>

#include "call.h"
#include "core/counters.h"
#include "estimate.h"

static bool is_valid(const struct aio_request *request)
{
	const struct aio_file *file = request->file;

	if (request->op == AIO_DATASYNC)
		return file->direct_fd >= 0 || file->buffered_fd >= 0;
	if (request->offset > INT64_MAX || request->length > INT64_MAX - request->offset)
		return false;
	return file->buffered_fd >= 0 || merge_is_direct(request);
}

static bool may_be_cached(const struct aio_request *request)
{
	struct aio_file *file = request->file;

	if (request->op != AIO_READ || file->buffered_fd < 0)
		return false;
	if (request->tries > 0 || request->transferred > 0 || request->alone)
		return false;
	return !merge_is_direct(request) || (file->try_cache && estimate_says_try(&file->cache));
}

/* True when the page cache had all of it. */
static bool read_cached(struct aio_queue *queue, struct aio_request *request)
{
	struct iovec vector = {request->buffer, request->length};
	ssize_t got = preadv2(request->file->buffered_fd, &vector, 1, (off_t)request->offset, RWF_NOWAIT);
	bool all = got > 0 && (uint64_t)got == request->length;
	uint64_t left = request->length;

	estimate_note(&request->file->cache, all);
	if (!all) {
		counter_add(aio_cache_misses, 1);
		request->transferred = got > 0 ? (uint32_t)got : 0;
		return false;
	}
	counter_add(aio_cached, 1);
	settle_member(queue, request, false, true, &left);
	return true;
}

void accept_request(struct aio_queue *queue, struct aio_request *request)
{
	if (!is_valid(request)) {
		wait_finish(queue, request, -EINVAL);
	} else if (request->op != AIO_DATASYNC && request->length == 0) {
		wait_finish(queue, request, 0);
	} else if (may_be_cached(request) && read_cached(queue, request)) {
		return;
	} else if (shares_may_begin(&queue->shares, request->file)) {
		call_place(queue, request);
	} else {
		counter_add(aio_deferred, 1);
		shares_wait(&queue->shares, request->file, &request->link);
	}
}
