/* Merging of requests into calls and sharing-out of results.
 *
 * A request that was transferred in part takes part with the rest of it only:
 * it restarts at merge_restart(), and everything here counts from there. On
 * direct_fd the restart is rounded down to the alignment, so up to one unit is
 * transferred twice; progress is judged by request->transferred, which is not
 * rounded. That is what tells a file that ends in the middle of a unit (the
 * second try ends at the same byte) from a device that gave up half-way. */
#include "merge.h"

#include <errno.h>
#include <glib.h>
#include <string.h>

#include "core/bytes.h"

bool merge_is_direct(const struct aio_request *request)
{
	const struct aio_file *file = request->file;
	uint64_t together = request->offset | request->length | (uintptr_t)request->buffer;

	return file->direct_fd >= 0 && is_aligned(together, file->alignment);
}

uint32_t merge_restart(const struct aio_request *request, bool direct)
{
	if (direct)
		return (uint32_t)round_down(request->transferred, request->file->alignment);
	return request->transferred;
}

uint32_t merge_half(const struct aio_request *request, bool direct, uint32_t length)
{
	uint32_t unit = direct ? request->file->alignment : 1;

	return MIN(length, (uint32_t)round_up(((uint64_t)length + 1) / 2, unit));
}

void merge_open(struct merge_call *call, struct aio_request *request, bool direct, uint32_t limit)
{
	list_init(&call->members);
	list_append(&call->members, &request->link);
	call->file = request->file;
	call->op = request->op;
	call->direct = direct;
	call->closed = request->alone || request->op == AIO_DATASYNC;
	call->count = 1;
	call->start = request->offset + merge_restart(request, direct);
	call->end = request->offset + request->length;
	if (limit > 0 && limit < call->end - call->start) {
		call->end = call->start + limit;
		call->closed = true;
	}
}

bool merge_add(struct merge_call *call, struct aio_request *request, bool direct)
{
	uint64_t start = request->offset + merge_restart(request, direct);
	uint64_t end = request->offset + request->length;

	if (call->file != request->file || call->op != request->op || call->direct != direct)
		return false;
	if (call->closed || request->alone || call->count == MERGE_VECTORS)
		return false;
	if (call->end - call->start + (end - start) > MERGE_BYTES)
		return false;

	if (start == call->end) {
		list_append(&call->members, &request->link);
		call->end = end;
	} else if (end == call->start) {
		list_prepend(&call->members, &request->link);
		call->start = start;
	} else {
		return false;
	}
	call->count++;
	return true;
}

unsigned merge_vector(const struct merge_call *call, struct iovec *vector)
{
	uint64_t left = call->end - call->start;
	unsigned count = 0;

	list_foreach(node, &call->members)
	{
		struct aio_request *request = container_of(node, struct aio_request, link);
		uint32_t restart = merge_restart(request, call->direct);

		vector[count].iov_base = (char *)request->buffer + restart;
		vector[count].iov_len = merge_take(request, call->direct, &left);
		count++;
	}
	return count;
}

uint32_t merge_take(const struct aio_request *request, bool direct, uint64_t *left)
{
	uint32_t rest = request->length - merge_restart(request, direct);
	uint32_t got = *left < rest ? (uint32_t)*left : rest;

	*left -= got;
	return got;
}

enum merge_outcome merge_advance(struct aio_request *request, bool direct, bool first, uint32_t got)
{
	uint32_t reached = merge_restart(request, direct) + got;

	if (got == 0 && !first)
		return MERGE_UNREACHED;
	if (reached <= request->transferred)
		return MERGE_STUCK;
	request->transferred = reached;
	return reached == request->length ? MERGE_DONE : MERGE_CONTINUE;
}

int merge_result_at_end(struct aio_request *request)
{
	uint32_t transferred = request->transferred;

	if (request->op != AIO_READ || transferred < request->needed)
		return -EIO;
	memset((char *)request->buffer + transferred, 0, request->length - transferred);
	return 0;
}
