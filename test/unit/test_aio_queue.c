/* The queue on real files: both engines, O_DIRECT and page cache, errors,
 * cancel, and, in the tests' build, every fault point. */
#include "aio/queue.h"

#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "core/trace.h"
#include "core/counters.h"
#include "core/fault.h"

#define UNIT 512u
#define PAGE 4096u
#define FILE_BYTES (1u << 20)
#define REQUESTS 512u

struct op {
	struct aio_request request;
	struct fixture *fixture;
	unsigned callbacks;
	int result;
};

struct fixture {
	struct loop *loop;
	struct aio_queue *queue;
	struct aio_file file;
	char *path;
	unsigned char *memory; /* FILE_BYTES, page aligned */
	unsigned finished;
	struct op ops[REQUESTS];
};

static char *directory;

/* In place of libc's, for the queue: writes to hung_fd wait for the store to answer. */
static atomic_int hung_fd = -1;

ssize_t pwritev2(int fd, const struct iovec *vector, int count, off_t offset, int flags)
{
	while (fd == atomic_load(&hung_fd))
		g_usleep(2000);
	return syscall(SYS_pwritev2, fd, vector, count, offset, 0, flags);
}

static void arm(const char *spec)
{
#ifdef LEAFDISK_FAULTS
	g_autoptr(GError) error = NULL;

	fault_arm(spec, &error);
	g_assert_no_error(error);
#else
	g_assert_cmpstr(spec, ==, "");
#endif
}

static int open_direct(const char *path)
{
	int fd = open(path, O_RDWR | O_DIRECT | O_CLOEXEC);

	if (fd < 0)
		g_test_message("no O_DIRECT in %s: %s", directory, g_strerror(errno));
	return fd;
}

static void fixture_open(struct fixture *f, const struct aio_limits *limits, const char *faults)
{
	g_autoptr(GError) error = NULL;
	static unsigned serial;

	memset(f, 0, sizeof(*f));
	arm(faults);
	f->loop = loop_new(&error);
	g_assert_no_error(error);
	f->queue = aio_queue_new(f->loop, limits, &error);
	g_assert_no_error(error);
	f->path = g_strdup_printf("%s/file%u", directory, serial++);
	f->file.buffered_fd = open(f->path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	g_assert_cmpint(f->file.buffered_fd, >=, 0);
	g_assert_cmpint(ftruncate(f->file.buffered_fd, FILE_BYTES), ==, 0);
	f->file.direct_fd = open_direct(f->path);
	f->file.alignment = UNIT;
	f->file.name = f->path;
	f->memory = mmap(NULL, FILE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	g_assert_true(f->memory != MAP_FAILED);
}

static void fixture_close(struct fixture *f)
{
	arm("");
	g_assert_cmpuint(aio_in_flight(f->queue), ==, 0);
	aio_queue_free(f->queue);
	loop_free(f->loop);
	munmap(f->memory, FILE_BYTES);
	if (f->file.direct_fd >= 0)
		close(f->file.direct_fd);
	close(f->file.buffered_fd);
	unlink(f->path);
	g_free(f->path);
}

static void op_done(struct aio_request *request, int result)
{
	struct op *op = container_of(request, struct op, request);

	op->callbacks++;
	op->result = result;
	op->fixture->finished++;
}

static struct op *submit(struct fixture *f, unsigned index, enum aio_op kind, uint64_t offset, uint32_t length)
{
	struct op *op = &f->ops[index];

	op->fixture = f;
	op->callbacks = 0;
	op->result = 1;
	op->request = (struct aio_request){
		.op = kind,
		.file = &f->file,
		.buffer = f->memory + offset % FILE_BYTES,
		.offset = offset,
		.length = length,
		.needed = length,
		.done = op_done,
	};
	aio_submit(f->queue, &op->request);
	g_assert_cmpuint(op->callbacks, ==, 0);
	return op;
}

static int run_one(struct fixture *f, enum aio_op kind, uint64_t offset, uint32_t length)
{
	struct op *op = submit(f, REQUESTS - 1, kind, offset, length);

	aio_drain(f->queue);
	g_assert_cmpuint(op->callbacks, ==, 1);
	return op->result;
}

static void expect_all(struct fixture *f, unsigned count, int result)
{
	for (unsigned i = 0; i < count; i++) {
		g_assert_cmpuint(f->ops[i].callbacks, ==, 1);
		g_assert_cmpint(f->ops[i].result, ==, result);
	}
}

static void fill_random(struct fixture *f)
{
	for (uint32_t i = 0; i < FILE_BYTES; i += 4) {
		uint32_t word = (uint32_t)g_test_rand_int();

		memcpy(f->memory + i, &word, 4);
	}
}

static void expect_file(struct fixture *f, uint64_t offset, const void *data, size_t length)
{
	g_autofree char *found = g_malloc(length);

	g_assert_cmpint(pread(f->file.buffered_fd, found, length, (off_t)offset), ==, length);
	g_assert_true(memcmp(found, data, length) == 0);
}

/* Writes all blocks in random order, reads them back, both in one batch. */
static void round_trip(struct fixture *f)
{
	const unsigned count = FILE_BYTES / PAGE;
	unsigned order[FILE_BYTES / PAGE];
	g_autofree unsigned char *copy = NULL;

	fill_random(f);
	copy = g_memdup2(f->memory, FILE_BYTES);
	for (unsigned i = 0; i < count; i++) {
		unsigned other = (unsigned)g_test_rand_int_range(0, (int)i + 1);

		order[i] = order[other];
		order[other] = i;
	}
	for (unsigned i = 0; i < count; i++)
		submit(f, i, AIO_WRITE, (uint64_t)order[i] * PAGE, PAGE);
	g_assert_cmpuint(aio_in_flight(f->queue), ==, count);
	aio_drain(f->queue);
	expect_all(f, count, 0);
	g_assert_cmpint(run_one(f, AIO_DATASYNC, 0, 0), ==, 0);
	expect_file(f, 0, copy, FILE_BYTES);

	memset(f->memory, 0, FILE_BYTES);
	for (unsigned i = 0; i < count; i++)
		submit(f, i, AIO_READ, (uint64_t)order[count - 1 - i] * PAGE, PAGE);
	aio_drain(f->queue);
	expect_all(f, count, 0);
	g_assert_true(memcmp(f->memory, copy, FILE_BYTES) == 0);
}

static void test_round_trip(const void *faults)
{
	struct fixture f;

	fixture_open(&f, NULL, faults);
	round_trip(&f);
	f.file.try_cache = true;
	round_trip(&f);
	f.file.try_cache = false;
	close(f.file.direct_fd);
	f.file.direct_fd = -1;
	round_trip(&f);
	fixture_close(&f);
}

/* Whether the first page is not in memory; asking may bring it back. */
static bool is_cold(const struct fixture *f)
{
	char byte;
	struct iovec vector = {&byte, 1};

	return preadv2(f->file.buffered_fd, &vector, 1, 0, RWF_NOWAIT) < 0;
}

static void forget_pages(const struct fixture *f)
{
	g_assert_cmpint(fdatasync(f->file.buffered_fd), ==, 0);
	g_assert_cmpint(posix_fadvise(f->file.buffered_fd, 0, 0, POSIX_FADV_DONTNEED), ==, 0);
}

static void fixture_open_cached(struct fixture *f, unsigned char **copy)
{
	fixture_open(f, NULL, "");
	f->file.try_cache = true;
	fill_random(f);
	*copy = g_memdup2(f->memory, FILE_BYTES);
	g_assert_cmpint(pwrite(f->file.buffered_fd, *copy, FILE_BYTES, 0), ==, FILE_BYTES);
	memset(f->memory, 0, FILE_BYTES);
}

static void test_cached(void)
{
	g_autofree unsigned char *copy = NULL;
	struct fixture f;
	uint64_t submits, cached;

	fixture_open_cached(&f, &copy);
	submits = counters.aio_submits;
	cached = counters.aio_cached;
	for (unsigned i = 0; i < FILE_BYTES / PAGE; i++)
		submit(&f, i, AIO_READ, (uint64_t)i * PAGE, PAGE);
	aio_drain(f.queue);
	expect_all(&f, FILE_BYTES / PAGE, 0);
	g_assert_true(memcmp(f.memory, copy, FILE_BYTES) == 0);
	g_assert_cmpuint(counters.aio_submits, ==, submits);
	g_assert_cmpuint(counters.aio_cached, ==, cached + FILE_BYTES / PAGE);
	fixture_close(&f);
}

/* A read across the end of what is cached gets the rest from the file. */
static void test_half_cached(void)
{
	g_autofree unsigned char *copy = NULL;
	struct fixture f;
	uint64_t misses;

	fixture_open_cached(&f, &copy);
	forget_pages(&f);
	g_assert_cmpint(posix_fadvise(f.file.buffered_fd, 0, 0, POSIX_FADV_RANDOM), ==, 0);
	g_assert_cmpint(pread(f.file.buffered_fd, f.memory, FILE_BYTES / 2, 0), ==, FILE_BYTES / 2);
	memset(f.memory, 0, FILE_BYTES);
	misses = counters.aio_cache_misses;
	g_assert_cmpint(run_one(&f, AIO_READ, 0, FILE_BYTES), ==, 0);
	g_assert_true(memcmp(f.memory, copy, FILE_BYTES) == 0);
	misses = counters.aio_cache_misses - misses;
	forget_pages(&f);
	if (is_cold(&f))
		g_assert_cmpuint(misses, ==, 1);
	else
		g_test_message("the pages stay in memory in %s", directory);
	fixture_close(&f);
}

/* A cold file is tried once in a while only. */
static void test_not_cached(void)
{
	g_autofree unsigned char *copy = NULL;
	struct fixture f;
	uint64_t misses, cached;

	fixture_open_cached(&f, &copy);
	misses = counters.aio_cache_misses;
	cached = counters.aio_cached;
	for (unsigned i = 0; i < FILE_BYTES / PAGE; i++) {
		forget_pages(&f);
		g_assert_cmpint(run_one(&f, AIO_READ, (uint64_t)i * PAGE, PAGE), ==, 0);
	}
	g_assert_true(memcmp(f.memory, copy, FILE_BYTES) == 0);
	forget_pages(&f);
	if (f.file.direct_fd >= 0 && is_cold(&f)) {
		g_assert_cmpuint(counters.aio_cached, ==, cached);
		g_assert_cmpuint(counters.aio_cache_misses - misses, <=, 4);
	}
	fixture_close(&f);
}

static void test_one_submit(void)
{
	struct fixture f;
	uint64_t submits;
	uint64_t merged;

	fixture_open(&f, NULL, "");
	if (f.file.direct_fd < 0) {
		g_test_skip("no O_DIRECT");
		fixture_close(&f);
		return;
	}
	submits = counters.aio_submits;
	merged = counters.aio_merged;
	for (unsigned i = 0; i < 32; i++)
		submit(&f, i, AIO_WRITE, (uint64_t)i * PAGE, PAGE);
	for (unsigned i = 32; i < 64; i++)
		submit(&f, i, AIO_READ, (uint64_t)i * 2 * PAGE, PAGE);
	aio_drain(f.queue);
	expect_all(&f, 64, 0);
	g_assert_cmpuint(counters.aio_submits - submits, ==, 1);
	g_assert_cmpuint(counters.aio_merged - merged, ==, 31);
	fixture_close(&f);
}

static void test_full_context(void)
{
	const struct aio_limits limits = {.depth = 3};
	struct fixture f;
	uint64_t deferred = counters.aio_deferred;

	fixture_open(&f, &limits, "");
	for (unsigned i = 0; i < 120; i++)
		submit(&f, i, AIO_WRITE, (uint64_t)i * 2 * PAGE, PAGE);
	aio_drain(f.queue);
	expect_all(&f, 120, 0);
	g_assert_cmpuint(counters.aio_deferred - deferred, >=, 110);
	fixture_close(&f);
}

static void test_unaligned(void)
{
	struct fixture f;

	fixture_open(&f, NULL, "");
	fill_random(&f);
	g_assert_cmpint(run_one(&f, AIO_WRITE, 5001, 3003), ==, 0);
	expect_file(&f, 5001, f.memory + 5001, 3003);
	f.memory[5001] ^= 1;
	g_assert_cmpint(run_one(&f, AIO_READ, 5001, 1), ==, 0);
	expect_file(&f, 5001, f.memory + 5001, 3003);
	fixture_close(&f);
}

static void test_invalid(void)
{
	struct fixture f;
	int buffered;

	fixture_open(&f, NULL, "");
	buffered = f.file.buffered_fd;
	f.file.buffered_fd = -1;
	g_assert_cmpint(run_one(&f, AIO_READ, 1, PAGE), ==, -EINVAL);
	close(f.file.direct_fd);
	f.file.direct_fd = -1;
	g_assert_cmpint(run_one(&f, AIO_DATASYNC, 0, 0), ==, -EINVAL);
	f.file.buffered_fd = buffered;
	g_assert_cmpint(run_one(&f, AIO_WRITE, UINT64_MAX - 10, 100), ==, -EINVAL);
	g_assert_cmpint(run_one(&f, AIO_WRITE, 0, 0), ==, 0);
	fixture_close(&f);
}

/* The file ends in the middle of a unit; NEEDED decides. */
static void expect_end(struct fixture *f)
{
	struct op *op;

	for (uint32_t needed = 0; needed <= 8192; needed += 904) {
		memset(f->memory, 0xee, 8192);
		op = submit(f, 0, AIO_READ, 0, 8192);
		op->request.needed = needed;
		aio_drain(f->queue);
		g_assert_cmpint(op->result, ==, needed <= 5000 ? 0 : -EIO);
		if (op->result == 0)
			for (unsigned i = 0; i < 8192; i++)
				g_assert_cmpint(f->memory[i], ==, i < 5000 ? 7 : 0);
	}
	g_assert_cmpint(run_one(f, AIO_READ, 65536, PAGE), ==, -EIO);
}

static void test_end_of_file(const void *faults)
{
	struct fixture f;

	fixture_open(&f, NULL, faults);
	memset(f.memory, 7, 5000);
	g_assert_cmpint(pwrite(f.file.buffered_fd, f.memory, 5000, 0), ==, 5000);
	g_assert_cmpint(ftruncate(f.file.buffered_fd, 5000), ==, 0);
	expect_end(&f);
	f.file.try_cache = true;
	expect_end(&f);
	close(f.file.direct_fd);
	f.file.direct_fd = -1;
	expect_end(&f);
	fixture_close(&f);
}

/* Of a merged write whose fourth member's memory is gone, only that fails. */
static void test_bad_member(void)
{
	struct fixture f;
	g_autofree unsigned char *copy = NULL;

	fixture_open(&f, NULL, "");
	fill_random(&f);
	copy = g_memdup2(f.memory, 8 * PAGE);
	munmap(f.memory + 3 * PAGE, PAGE);
	for (unsigned i = 0; i < 8; i++)
		submit(&f, i, AIO_WRITE, (uint64_t)i * PAGE, PAGE);
	aio_drain(f.queue);
	for (unsigned i = 0; i < 8; i++)
		g_assert_cmpint(f.ops[i].result, ==, i == 3 ? -EFAULT : 0);
	expect_file(&f, 0, copy, 3 * PAGE);
	expect_file(&f, 4 * PAGE, copy + 4 * PAGE, 4 * PAGE);
	fixture_close(&f);
}

/* A file may not grow past a limit that is 10 KiB into a merged write of 32. */
static void test_short_write(void)
{
	const uint64_t base = (1u << 30) + FILE_BYTES / 2;
	struct rlimit saved;
	struct rlimit limit;
	struct fixture f;

	fixture_open(&f, NULL, "");
	fill_random(&f);
	signal(SIGXFSZ, SIG_IGN);
	getrlimit(RLIMIT_FSIZE, &saved);
	limit = saved;
	limit.rlim_cur = base + 10240;
	setrlimit(RLIMIT_FSIZE, &limit);
	for (unsigned i = 0; i < 8; i++)
		submit(&f, i, AIO_WRITE, base + (uint64_t)i * PAGE, PAGE);
	aio_drain(f.queue);
	setrlimit(RLIMIT_FSIZE, &saved);
	for (unsigned i = 0; i < 8; i++)
		g_assert_cmpint(f.ops[i].result, ==, i < 2 ? 0 : -EFBIG);
	expect_file(&f, base, f.memory + FILE_BYTES / 2, 10240);
	fixture_close(&f);
}

static void test_read_only(void)
{
	struct fixture f;
	int writable;

	fixture_open(&f, NULL, "");
	writable = f.file.buffered_fd;
	if (f.file.direct_fd >= 0)
		close(f.file.direct_fd);
	f.file.direct_fd = open(f.path, O_RDONLY | O_DIRECT | O_CLOEXEC);
	f.file.buffered_fd = open(f.path, O_RDONLY | O_CLOEXEC);
	for (unsigned i = 0; i < 8; i++)
		submit(&f, i, i % 2 ? AIO_WRITE : AIO_READ, (uint64_t)i * 2 * PAGE, PAGE);
	aio_drain(f.queue);
	for (unsigned i = 0; i < 8; i++)
		g_assert_cmpint(f.ops[i].result, ==, i % 2 ? -EBADF : 0);
	close(writable);
	fixture_close(&f);
}

static void test_cancel(void)
{
	const struct aio_limits limits = {.depth = 1};
	struct aio_file other;
	struct fixture f;

	fixture_open(&f, &limits, "");
	other = f.file;
	for (unsigned i = 0; i < 10; i++)
		submit(&f, i, AIO_WRITE, (uint64_t)i * 2 * PAGE, PAGE);
	submit(&f, 10, AIO_WRITE, FILE_BYTES / 2, PAGE)->request.file = &other;
	aio_unplug(f.queue);
	submit(&f, 11, AIO_WRITE, FILE_BYTES / 2 + 2 * PAGE, PAGE);
	aio_cancel(f.queue, &f.file);
	g_assert_cmpuint(f.finished, ==, 0);
	g_assert_cmpuint(aio_in_flight(f.queue), ==, 12);
	aio_drain(f.queue);
	for (unsigned i = 0; i < 12; i++)
		g_assert_cmpint(f.ops[i].result, ==, i == 0 || i == 10 ? 0 : -ECANCELED);
	fixture_close(&f);
}

static void chain_done(struct aio_request *request, int result)
{
	struct op *op = container_of(request, struct op, request);

	g_assert_cmpint(result, ==, 0);
	if (++op->callbacks < 500) {
		request->op = op->callbacks % 3 ? AIO_READ : AIO_WRITE;
		request->file->try_cache = op->callbacks % 2;
		aio_submit(op->fixture->queue, request);
		if (op->callbacks % 5 == 0)
			aio_unplug(op->fixture->queue);
	}
}

static void test_chain(void)
{
	struct fixture f;

	fixture_open(&f, NULL, "");
	for (unsigned i = 0; i < 4; i++)
		submit(&f, i, AIO_WRITE, (uint64_t)i * 2 * PAGE, PAGE)->request.done = chain_done;
	aio_drain(f.queue);
	for (unsigned i = 0; i < 4; i++)
		g_assert_cmpuint(f.ops[i].callbacks, ==, 500);
	fixture_close(&f);
}

static bool stop;

static void stop_expired(struct loop_timer *timer)
{
	(void)timer;
	stop = true;
}

static void run_for_ms(struct fixture *f, unsigned ms)
{
	struct loop_timer timer;

	stop = false;
	loop_timer_init(&timer, stop_expired);
	loop_timer_set(f->loop, &timer, loop_now_ns() + ms * G_GUINT64_CONSTANT(1000000));
	loop_run(f->loop, &stop);
}

static void run_until_finished(struct fixture *f, unsigned finished)
{
	for (unsigned i = 0; i < 1000 && f->finished < finished; i++)
		run_for_ms(f, 10);
	g_assert_cmpuint(f->finished, ==, finished);
}

/* A file that hangs has neither all calls nor all threads; each of its requests
 * has its turn when it answers. */
static void test_hung_file(const void *faults)
{
	const struct aio_limits limits = {.depth = 32};
	struct aio_file hung;
	struct fixture f;

	fixture_open(&f, &limits, faults);
	hung = f.file;
	hung.direct_fd = -1;
	hung.buffered_fd = dup(f.file.buffered_fd);
	atomic_store(&hung_fd, hung.buffered_fd);
	for (unsigned i = 0; i < 100; i++)
		submit(&f, i, AIO_WRITE, (uint64_t)i * 2 * PAGE, PAGE)->request.file = &hung;
	aio_unplug(f.queue);
	for (unsigned i = 100; i < 120; i++)
		submit(&f, i, i < 119 ? AIO_WRITE : AIO_DATASYNC, (uint64_t)i * 2 * PAGE, i < 119 ? PAGE : 0);
	run_until_finished(&f, 20);
	aio_cancel(f.queue, &hung);
	run_until_finished(&f, 20 + 100 - 17);
	atomic_store(&hung_fd, -1);
	aio_drain(f.queue);
	for (unsigned i = 0; i < 120; i++)
		g_assert_cmpint(f.ops[i].result, ==, i < 17 || i >= 100 ? 0 : -ECANCELED);
	close(hung.buffered_fd);
	fixture_close(&f);
}

/* What had no call when its file hung has one later, without anybody's help. */
static void test_hung_file_answers(void)
{
	const struct aio_limits limits = {.depth = 8};
	struct aio_file hung;
	struct fixture f;

	fixture_open(&f, &limits, "");
	hung = f.file;
	hung.direct_fd = -1;
	hung.buffered_fd = dup(f.file.buffered_fd);
	atomic_store(&hung_fd, hung.buffered_fd);
	for (unsigned i = 0; i < 100; i++)
		submit(&f, i, AIO_WRITE, (uint64_t)i * 2 * PAGE, PAGE)->request.file = &hung;
	run_for_ms(&f, 20);
	g_assert_cmpuint(f.finished, ==, 0);
	atomic_store(&hung_fd, -1);
	aio_drain(f.queue);
	expect_all(&f, 100, 0);
	close(hung.buffered_fd);
	fixture_close(&f);
}

/* After work of every kind the loop sleeps: no signal left, no timer set. */
static void test_idle(void)
{
	struct rusage before;
	struct rusage after;
	struct fixture f;

	fixture_open(&f, NULL, "");
	round_trip(&f);
	g_assert_cmpint(run_one(&f, AIO_WRITE, 1, 1), ==, 0);
	run_for_ms(&f, 20);
	getrusage(RUSAGE_SELF, &before);
	run_for_ms(&f, 200);
	getrusage(RUSAGE_SELF, &after);
	g_assert_cmpint(after.ru_nvcsw - before.ru_nvcsw, <=, 5);
	fixture_close(&f);
}

static struct fixture *timer_fixture;

static void late_expired(struct loop_timer *timer)
{
	(void)timer;
	submit(timer_fixture, 0, AIO_READ, 0, PAGE);
}

/* A request that a timer submits, the last thing in a turn, is not slept on. */
static void test_submitted_late(void)
{
	struct loop_timer timer;
	struct fixture f;

	fixture_open(&f, NULL, "");
	timer_fixture = &f;
	loop_timer_init(&timer, late_expired);
	loop_timer_set(f.loop, &timer, loop_now_ns() + 5000000);
	run_for_ms(&f, 500);
	g_assert_cmpuint(f.finished, ==, 1);
	g_assert_cmpint(f.ops[0].result, ==, 0);
	fixture_close(&f);
}

/* Random requests of random sizes, against a copy. No two share a page: direct
 * and buffered I/O on one page at a time are not coherent (open(2)). */
static struct op *submit_random(struct fixture *f, unsigned index, unsigned page, unsigned pages)
{
	uint64_t offset = (uint64_t)page * PAGE;
	uint32_t length = pages * PAGE;

	if (g_test_rand_int_range(0, 4) == 0) {
		uint32_t cut = (uint32_t)g_test_rand_int_range(0, 2000);

		offset += cut;
		length -= cut + (uint32_t)g_test_rand_int_range(0, 2000);
	} else if (g_test_rand_bit()) {
		offset += UNIT;
		length -= 2 * UNIT;
	}
	return submit(f, index, g_test_rand_bit() ? AIO_WRITE : AIO_READ, offset, length);
}

static void random_round(struct fixture *f, unsigned char *copy)
{
	unsigned count = 0;

	fill_random(f);
	f->file.try_cache = g_test_rand_bit();
	for (unsigned page = 0; page < FILE_BYTES / PAGE - 5; count++) {
		unsigned pages = (unsigned)g_test_rand_int_range(1, 6);
		struct aio_request *request = &submit_random(f, count, page, pages)->request;

		if (request->op == AIO_WRITE)
			memcpy(copy + request->offset, request->buffer, request->length);
		page += pages + (g_test_rand_bit() ? 0 : 1);
		if (g_test_rand_int_range(0, 20) == 0)
			aio_unplug(f->queue);
	}
	aio_drain(f->queue);
	expect_all(f, count, 0);
	for (unsigned i = 0; i < count; i++) {
		struct aio_request *request = &f->ops[i].request;

		g_assert_true(memcmp(request->buffer, copy + request->offset, request->length) == 0);
	}
}

static void random_rounds(struct fixture *f, unsigned rounds)
{
	g_autofree unsigned char *copy = g_malloc0(FILE_BYTES);

	for (unsigned round = 0; round < rounds; round++)
		random_round(f, copy);
	expect_file(f, 0, copy, FILE_BYTES);
}

static void test_random(const void *faults)
{
	const struct aio_limits limits = {.depth = 16};
	struct fixture f;

	fixture_open(&f, &limits, faults);
	random_rounds(&f, 20);
	fixture_close(&f);
}

#ifdef LEAFDISK_FAULTS

static void test_write_fault(void)
{
	g_autofree unsigned char *zeroes = g_malloc0(8 * PAGE);
	struct fixture f;

	fixture_open(&f, NULL, "aio.write:EIO@3x1");
	fill_random(&f);
	for (unsigned i = 0; i < 8; i++)
		submit(&f, i, AIO_WRITE, (uint64_t)i * PAGE, PAGE);
	aio_drain(f.queue);
	for (unsigned i = 0; i < 8; i++)
		g_assert_cmpint(f.ops[i].result, ==, i == 2 ? -EIO : 0);
	expect_file(&f, 0, f.memory, 2 * PAGE);
	expect_file(&f, 2 * PAGE, zeroes, PAGE);
	expect_file(&f, 3 * PAGE, f.memory + 3 * PAGE, 5 * PAGE);
	fixture_close(&f);
}

static void test_transient_fault(void)
{
	struct fixture f;
	uint64_t retries = counters.aio_retries;

	fixture_open(&f, NULL, "aio.write:EAGAIN@1x3;aio.read:EINTR@1x2;aio.datasync:EBUSY@1x1");
	fill_random(&f);
	g_assert_cmpint(run_one(&f, AIO_WRITE, 0, PAGE), ==, 0);
	g_assert_cmpint(run_one(&f, AIO_READ, 0, PAGE), ==, 0);
	g_assert_cmpint(run_one(&f, AIO_DATASYNC, 0, 0), ==, 0);
	g_assert_cmpuint(counters.aio_retries - retries, ==, 6);
	fixture_close(&f);
}

static void test_timeout(void)
{
	const struct aio_limits limits = {.io_timeout_ns = 50000000};
	struct fixture f;
	uint64_t start;

	fixture_open(&f, &limits, "aio.read:EAGAIN");
	start = loop_now_ns();
	g_assert_cmpint(run_one(&f, AIO_READ, 0, PAGE), ==, -EAGAIN);
	g_assert_cmpuint(loop_now_ns() - start, >=, 50000000);
	g_assert_cmpuint(counters.aio_retries, <, 1000);
	fixture_close(&f);
}

static void test_cancel_retry(void)
{
	struct fixture f;

	fixture_open(&f, NULL, "aio.read:EAGAIN");
	submit(&f, 0, AIO_READ, 0, PAGE);
	run_for_ms(&f, 20);
	g_assert_cmpuint(f.finished, ==, 0);
	aio_cancel(f.queue, &f.file);
	aio_drain(f.queue);
	g_assert_cmpint(f.ops[0].result, ==, -ECANCELED);
	fixture_close(&f);
}

static void test_permanent_fault(void)
{
	struct fixture f;

	fixture_open(&f, NULL, "aio.read:EIO@1x1;aio.datasync:ENOSPC@1x1");
	g_assert_cmpint(run_one(&f, AIO_READ, 0, PAGE), ==, -EIO);
	g_assert_cmpint(run_one(&f, AIO_READ, 0, PAGE), ==, 0);
	g_assert_cmpint(run_one(&f, AIO_DATASYNC, 0, 0), ==, -ENOSPC);
	g_assert_cmpint(run_one(&f, AIO_DATASYNC, 0, 0), ==, 0);
	fixture_close(&f);
}

/* The context has no room, once with nothing in it and for some calls of each
 * batch: nothing fails and nothing spins. */
static void test_refused_submit(void)
{
	struct fixture f;

	fixture_open(&f, NULL, "aio.submit:EAGAIN@1x3");
	round_trip(&f);
	arm("aio.submit:EAGAIN@2x1;aio.submit:short@1x1");
	round_trip(&f);
	fixture_close(&f);
}

static void test_refused_forever(void)
{
	const struct aio_limits limits = {.io_timeout_ns = 30000000};
	struct fixture f;

	fixture_open(&f, &limits, "aio.submit:EAGAIN");
	if (f.file.direct_fd >= 0)
		g_assert_cmpint(run_one(&f, AIO_READ, 0, PAGE), ==, -EAGAIN);
	arm("aio.submit:EINVAL@1x1");
	g_assert_cmpint(run_one(&f, AIO_DATASYNC, 0, 0), ==, 0);
	fixture_close(&f);
}

struct trace {
	char *data;
	gsize length;
	gsize at;
};

/* The next record of the file NAME: its type, or 0 at the end. */
static char next_record(struct trace *trace, const char *name, struct trace_record_ondisk *record)
{
	while (trace->at < trace->length) {
		const char *found = trace->data + trace->at + sizeof(*record);
		size_t name_bytes;

		memcpy(record, trace->data + trace->at, sizeof(*record));
		name_bytes = le32_get(record->name_bytes);
		trace->at += sizeof(*record) + name_bytes + le32_get(record->length);
		if (name_bytes == strlen(name) && memcmp(found, name, name_bytes) == 0)
			return record->type;
	}
	return 0;
}

static void test_trace(void)
{
	g_autofree char *path = g_build_filename(directory, "trace.bin", NULL);
	struct trace_record_ondisk record;
	struct trace trace = {0};
	struct fixture f;

	fixture_open(&f, NULL, "aio.write:short@1x1;aio.datasync:EIO@2x1");
	fill_random(&f);
	run_one(&f, AIO_WRITE, 8192, PAGE);
	run_one(&f, AIO_DATASYNC, 0, 0);
	run_one(&f, AIO_DATASYNC, 0, 0);
	g_assert_true(g_file_get_contents(path, &trace.data, &trace.length, NULL));
	g_assert_cmpint(next_record(&trace, f.path, &record), ==, 'W');
	g_assert_cmpuint(le64_get(record.offset), ==, 8192);
	g_assert_cmpuint(le32_get(record.length), ==, 2048);
	g_assert_true(memcmp(trace.data + trace.at - 2048, f.memory + 8192, 2048) == 0);
	g_assert_cmpint(next_record(&trace, f.path, &record), ==, 'W');
	g_assert_cmpuint(le64_get(record.offset), ==, 8192 + 2048);
	g_assert_cmpint(next_record(&trace, f.path, &record), ==, 'B');
	g_assert_cmpint(next_record(&trace, f.path, &record), ==, 'F');
	g_assert_cmpint(next_record(&trace, f.path, &record), ==, 'B');
	g_assert_cmpint(next_record(&trace, f.path, &record), ==, 0);
	g_free(trace.data);
	fixture_close(&f);
}

/* Takes 11 s: one report, and the request still succeeds. */
static void test_report(void)
{
	struct fixture f;

	if (!g_test_slow()) {
		g_test_skip("takes 11 s; run with -m slow");
		return;
	}
	fixture_open(&f, NULL, "aio.read:EAGAIN");
	submit(&f, 0, AIO_READ, 0, PAGE);
	run_for_ms(&f, 11000);
	g_assert_true(f.ops[0].request.reported);
	arm("");
	aio_drain(f.queue);
	g_assert_cmpint(f.ops[0].result, ==, 0);
	fixture_close(&f);
}

static void add_fault_tests(void)
{
	g_test_add_data_func("/aio/queue/round-trip/getevents", "aio.ring:EINVAL", test_round_trip);
	g_test_add_data_func("/aio/queue/round-trip/threads", "aio.setup:EAGAIN", test_round_trip);
	g_test_add_data_func("/aio/queue/round-trip/short", "aio.write:short;aio.read:short", test_round_trip);
	g_test_add_data_func("/aio/queue/end-of-file/threads", "aio.setup:EAGAIN", test_end_of_file);
	g_test_add_data_func("/aio/queue/random/getevents", "aio.ring:EINVAL", test_random);
	g_test_add_data_func("/aio/queue/random/threads", "aio.setup:ENOSYS", test_random);
	g_test_add_data_func("/aio/queue/random/short", "aio.write:short@20;aio.read:short@9", test_random);
	g_test_add_data_func("/aio/queue/random/transient",
			     "aio.write:EAGAIN@20x30;aio.read:EINTR@9x60;aio.submit:short@3x9;aio.submit:EAGAIN@13x9",
			     test_random);
	g_test_add_data_func("/aio/queue/hung-file/threads", "aio.setup:EAGAIN", test_hung_file);
	g_test_add_func("/aio/queue/fault/write", test_write_fault);
	g_test_add_func("/aio/queue/fault/transient", test_transient_fault);
	g_test_add_func("/aio/queue/fault/timeout", test_timeout);
	g_test_add_func("/aio/queue/fault/cancel", test_cancel_retry);
	g_test_add_func("/aio/queue/fault/permanent", test_permanent_fault);
	g_test_add_func("/aio/queue/fault/submit", test_refused_submit);
	g_test_add_func("/aio/queue/fault/submit-forever", test_refused_forever);
	g_test_add_func("/aio/queue/trace", test_trace);
	g_test_add_func("/aio/queue/report", test_report);
}
#else
static void add_fault_tests(void)
{
}
#endif

int main(int argc, char **argv)
{
	const char *base = g_getenv("TMPDIR") ?: "/var/tmp";
	g_autofree char *trace = NULL;
	int result;

	g_test_init(&argc, &argv, NULL);
	directory = g_build_filename(base, "leafdisk-aio-XXXXXX", NULL);
	g_assert_nonnull(g_mkdtemp(directory));
	g_setenv("LEAFDISK_TRACE", directory, true);

	g_test_add_data_func("/aio/queue/round-trip", "", test_round_trip);
	g_test_add_func("/aio/queue/cached", test_cached);
	g_test_add_func("/aio/queue/half-cached", test_half_cached);
	g_test_add_func("/aio/queue/not-cached", test_not_cached);
	g_test_add_func("/aio/queue/one-submit", test_one_submit);
	g_test_add_func("/aio/queue/full-context", test_full_context);
	g_test_add_func("/aio/queue/unaligned", test_unaligned);
	g_test_add_func("/aio/queue/invalid", test_invalid);
	g_test_add_data_func("/aio/queue/end-of-file", "", test_end_of_file);
	g_test_add_func("/aio/queue/bad-member", test_bad_member);
	g_test_add_func("/aio/queue/short-write", test_short_write);
	g_test_add_func("/aio/queue/read-only", test_read_only);
	g_test_add_func("/aio/queue/cancel", test_cancel);
	g_test_add_func("/aio/queue/chain", test_chain);
	g_test_add_data_func("/aio/queue/hung-file", "", test_hung_file);
	g_test_add_func("/aio/queue/hung-file/answers", test_hung_file_answers);
	g_test_add_func("/aio/queue/idle", test_idle);
	g_test_add_func("/aio/queue/submitted-late", test_submitted_late);
	g_test_add_data_func("/aio/queue/random", "", test_random);
	add_fault_tests();
	result = g_test_run();

	trace = g_build_filename(directory, "trace.bin", NULL);
	unlink(trace);
	rmdir(directory);
	g_free(directory);
	return result;
}
