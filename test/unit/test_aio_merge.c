/* Merging requests into calls, and sharing results out, against a model. */
#include "../../src/aio/merge.h"

#include <errno.h>
#include <glib.h>
#include <string.h>

#define UNIT 512u

static _Alignas(4096) unsigned char memory[256 * 4096];

static struct aio_file direct_file = {.direct_fd = 3, .buffered_fd = 4, .alignment = UNIT, .name = "direct"};
static struct aio_file cached_file = {.direct_fd = -1, .buffered_fd = 4, .alignment = 1, .name = "cached"};

static struct aio_request request_at(enum aio_op op, uint64_t offset, uint32_t length)
{
	return (struct aio_request){
		.op = op,
		.file = &direct_file,
		.buffer = memory + offset % sizeof(memory),
		.offset = offset,
		.length = length,
		.needed = length,
	};
}

static void test_direct(void)
{
	struct aio_request request = request_at(AIO_READ, 4096, 4096);

	g_assert_true(merge_is_direct(&request));
	request.offset += UNIT;
	g_assert_true(merge_is_direct(&request));
	request.offset += 1;
	g_assert_false(merge_is_direct(&request));
	request = request_at(AIO_READ, 4096, 4095);
	g_assert_false(merge_is_direct(&request));
	request = request_at(AIO_READ, 4096, 4096);
	request.buffer = memory + 4;
	g_assert_false(merge_is_direct(&request));
	request = request_at(AIO_READ, 4096, 4096);
	request.file = &cached_file;
	g_assert_false(merge_is_direct(&request));
}

static void test_restart(void)
{
	struct aio_request request = request_at(AIO_READ, 0, 4096);

	request.transferred = 1300;
	g_assert_cmpuint(merge_restart(&request, true), ==, 1024);
	g_assert_cmpuint(merge_restart(&request, false), ==, 1300);
}

static void test_neighbours(void)
{
	struct aio_request middle = request_at(AIO_WRITE, 8192, 4096);
	struct aio_request behind = request_at(AIO_WRITE, 12288, 512);
	struct aio_request front = request_at(AIO_WRITE, 4096, 4096);
	struct aio_request apart = request_at(AIO_WRITE, 65536, 4096);
	struct iovec vector[MERGE_VECTORS];
	struct merge_call call;

	merge_open(&call, &middle, true, 0);
	g_assert_true(merge_add(&call, &behind, true));
	g_assert_false(merge_add(&call, &apart, true));
	g_assert_true(merge_add(&call, &front, true));
	g_assert_cmpuint(call.start, ==, 4096);
	g_assert_cmpuint(call.end, ==, 12800);
	g_assert_cmpuint(merge_vector(&call, vector), ==, 3);
	g_assert_true(vector[0].iov_base == front.buffer && vector[0].iov_len == 4096);
	g_assert_true(vector[1].iov_base == middle.buffer && vector[1].iov_len == 4096);
	g_assert_true(vector[2].iov_base == behind.buffer && vector[2].iov_len == 512);
}

static void test_refusals(void)
{
	struct aio_file other_file = direct_file;
	struct aio_request first = request_at(AIO_READ, 0, 4096);
	struct aio_request other = request_at(AIO_WRITE, 4096, 4096);
	struct merge_call call;

	merge_open(&call, &first, true, 0);
	g_assert_false(merge_add(&call, &other, true)); /* direction */
	other.op = AIO_READ;
	g_assert_false(merge_add(&call, &other, false)); /* descriptor */
	other.file = &other_file;
	g_assert_false(merge_add(&call, &other, true)); /* file */
	other.file = &direct_file;
	other.alone = true;
	g_assert_false(merge_add(&call, &other, true));
	other.alone = false;
	g_assert_true(merge_add(&call, &other, true));

	list_remove(&other.link);
	first.alone = true;
	merge_open(&call, &first, true, 0);
	g_assert_false(merge_add(&call, &other, true));
}

static void test_datasync(void)
{
	struct aio_request first = request_at(AIO_DATASYNC, 0, 0);
	struct aio_request second = first;
	struct merge_call call;

	merge_open(&call, &first, false, 0);
	g_assert_false(merge_add(&call, &second, false));
}

static void test_bounds(void)
{
	struct aio_request requests[MERGE_VECTORS + 1];
	struct aio_request large = request_at(AIO_READ, 0, MERGE_BYTES);
	struct aio_request small = request_at(AIO_READ, MERGE_BYTES, UNIT);
	struct merge_call call;

	for (unsigned i = 0; i <= MERGE_VECTORS; i++)
		requests[i] = request_at(AIO_READ, (uint64_t)i * UNIT, UNIT);
	merge_open(&call, &requests[0], true, 0);
	for (unsigned i = 1; i < MERGE_VECTORS; i++)
		g_assert_true(merge_add(&call, &requests[i], true));
	g_assert_false(merge_add(&call, &requests[MERGE_VECTORS], true));

	merge_open(&call, &large, true, 0);
	g_assert_cmpuint(call.end, ==, MERGE_BYTES);
	g_assert_false(merge_add(&call, &small, true));
	/* Larger than the bound is a call of its own. */
	large.length = 2 * MERGE_BYTES;
	merge_open(&call, &large, true, 0);
	g_assert_cmpuint(call.end, ==, 2 * MERGE_BYTES);
}

static void test_limit(void)
{
	struct aio_request first = request_at(AIO_WRITE, 4096, 4096);
	struct aio_request second = request_at(AIO_WRITE, 6144, 4096);
	struct iovec vector[MERGE_VECTORS];
	struct merge_call call;

	merge_open(&call, &first, true, 2048);
	g_assert_cmpuint(call.end, ==, 6144);
	g_assert_false(merge_add(&call, &second, true));
	g_assert_cmpuint(merge_vector(&call, vector), ==, 1);
	g_assert_cmpuint(vector[0].iov_len, ==, 2048);
}

static void test_partly_done(void)
{
	struct aio_request first = request_at(AIO_READ, 0, 4096);
	struct aio_request second = request_at(AIO_READ, 4096, 4096);
	struct iovec vector[MERGE_VECTORS];
	struct merge_call call;

	first.transferred = 2100; /* restarts at 2048 */
	merge_open(&call, &second, true, 0);
	g_assert_true(merge_add(&call, &first, true));
	g_assert_cmpuint(call.start, ==, 2048);
	g_assert_cmpuint(merge_vector(&call, vector), ==, 2);
	g_assert_true(vector[0].iov_base == memory + 2048 && vector[0].iov_len == 2048);
}

static void test_advance(void)
{
	struct aio_request request = request_at(AIO_READ, 0, 4096);

	g_assert_cmpint(merge_advance(&request, true, true, 4096), ==, MERGE_DONE);
	request.transferred = 0;
	g_assert_cmpint(merge_advance(&request, true, false, 0), ==, MERGE_UNREACHED);
	g_assert_cmpint(merge_advance(&request, true, true, 0), ==, MERGE_STUCK);
	/* A file that ends at byte 700 of the request: the second try, from the
	 * unit's start, ends there again. */
	g_assert_cmpint(merge_advance(&request, true, true, 700), ==, MERGE_CONTINUE);
	g_assert_cmpuint(merge_restart(&request, true), ==, 512);
	g_assert_cmpint(merge_advance(&request, true, true, 188), ==, MERGE_STUCK);
	g_assert_cmpuint(request.transferred, ==, 700);
	/* Or goes on, when it has grown. */
	g_assert_cmpint(merge_advance(&request, true, true, 4096 - 512), ==, MERGE_DONE);
}

static void test_end(void)
{
	struct aio_request request = request_at(AIO_READ, 0, 4096);

	memset(memory, 0xee, 4096);
	request.transferred = 700;
	g_assert_cmpint(merge_result_at_end(&request), ==, -EIO);
	g_assert_cmpint(memory[700], ==, 0xee);
	request.needed = 700;
	g_assert_cmpint(merge_result_at_end(&request), ==, 0);
	g_assert_cmpint(memory[699], ==, 0xee);
	g_assert_cmpint(memory[700], ==, 0);
	g_assert_cmpint(memory[4095], ==, 0);
	request.op = AIO_WRITE;
	g_assert_cmpint(merge_result_at_end(&request), ==, -EIO);
}

/* Shares RESULT among members in order; returns how many bytes were booked. */
static uint64_t share(struct merge_call *call, uint64_t result)
{
	uint64_t left = result;
	bool first = true;

	list_foreach(node, &call->members)
	{
		struct aio_request *request = container_of(node, struct aio_request, link);
		uint32_t before = merge_restart(request, call->direct);
		uint32_t got = merge_take(request, call->direct, &left);
		enum merge_outcome outcome = merge_advance(request, call->direct, first, got);

		if (before + got == request->length)
			g_assert_cmpint(outcome, ==, MERGE_DONE);
		else if (got == 0)
			g_assert_cmpint(outcome, ==, first ? MERGE_STUCK : MERGE_UNREACHED);
		first = false;
	}
	return result - left;
}

/* Every result of a call of random members is shared out completely, in order,
 * and every byte is in exactly one vector. */
static void test_random(void)
{
	for (unsigned round = 0; round < 2000; round++) {
		struct aio_request requests[MERGE_VECTORS];
		struct iovec vector[MERGE_VECTORS];
		struct merge_call call;
		unsigned count = (unsigned)g_test_rand_int_range(1, MERGE_VECTORS + 1);
		uint64_t offset = 0;
		uint64_t total = 0;
		uint64_t result;

		for (unsigned i = 0; i < count; i++) {
			uint32_t length = UNIT * (uint32_t)g_test_rand_int_range(1, 9);

			requests[i] = request_at(AIO_READ, offset, length);
			offset += length;
			if (i == 0)
				merge_open(&call, &requests[i], true, 0);
			else
				g_assert_true(merge_add(&call, &requests[i], true));
		}
		g_assert_cmpuint(merge_vector(&call, vector), ==, count);
		for (unsigned i = 0; i < count; i++)
			total += vector[i].iov_len;
		g_assert_cmpuint(total, ==, call.end - call.start);

		result = (uint64_t)g_test_rand_int_range(0, (int)total + 1);
		g_assert_cmpuint(share(&call, result), ==, result);
		for (unsigned i = 0, sum = 0; i < count; i++) {
			uint64_t reached = result > sum ? MIN(result - sum, requests[i].length) : 0;

			g_assert_cmpuint(requests[i].transferred, ==, reached);
			sum += requests[i].length;
		}
	}
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/aio/merge/direct", test_direct);
	g_test_add_func("/aio/merge/restart", test_restart);
	g_test_add_func("/aio/merge/neighbours", test_neighbours);
	g_test_add_func("/aio/merge/refusals", test_refusals);
	g_test_add_func("/aio/merge/datasync", test_datasync);
	g_test_add_func("/aio/merge/bounds", test_bounds);
	g_test_add_func("/aio/merge/limit", test_limit);
	g_test_add_func("/aio/merge/partly-done", test_partly_done);
	g_test_add_func("/aio/merge/advance", test_advance);
	g_test_add_func("/aio/merge/end", test_end);
	g_test_add_func("/aio/merge/random", test_random);
	return g_test_run();
}
