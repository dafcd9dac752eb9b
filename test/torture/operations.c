/* Operations on the content of a disk that many processes have open.
 *
 * A process changes its own sectors only, and expects to find them exactly;
 * those of others it reads, and expects old or new. */
#include <errno.h>
#include <fcntl.h>
#include <sys/uio.h>
#include <unistd.h>

#include "worker.h"

struct range {
	uint32_t first, count;
};

static struct range choose_within(struct worker *worker, uint32_t first, uint32_t count)
{
	uint32_t most = worker_random(worker, 4) ? 16 : TRANSFER_SECTORS;
	struct range range;

	range.first = first + (uint32_t)worker_random(worker, count);
	range.count = 1 + (uint32_t)worker_random(worker, most);
	if (worker_random(worker, 2))
		range.first = range.first / 8 * 8;
	if (range.count > first + count - range.first)
		range.count = first + count - range.first;
	return range;
}

static struct range choose_own(struct worker *worker)
{
	return choose_within(worker, worker->first, worker->count);
}

/* ---- Transfers --------------------------------------------------------------- */

int transfer_read(int fd, void *data, uint32_t first, uint32_t count)
{
	size_t done = 0;

	while (done < (size_t)count * SECTOR) {
		ssize_t result = pread(fd, (char *)data + done, (size_t)count * SECTOR - done,
				       (off_t)first * SECTOR + (off_t)done);

		if (result < 0)
			return -errno;
		if (result == 0)
			return -ENODATA;
		done += (size_t)result;
	}
	return 0;
}

int transfer_write(int fd, const void *data, uint32_t first, uint32_t count, bool dsync)
{
	size_t done = 0;

	while (done < (size_t)count * SECTOR) {
		struct iovec part = {(char *)(uintptr_t)data + done, (size_t)count * SECTOR - done};
		ssize_t result = pwritev2(fd, &part, 1, (off_t)first * SECTOR + (off_t)done, dsync ? RWF_DSYNC : 0);

		if (result < 0)
			return -errno;
		done += (size_t)result;
	}
	return 0;
}

/* ---- Open, close ------------------------------------------------------------- */

static int open_disk(struct worker *worker, unsigned disk, int flags)
{
	char path[256];

	worker_path(worker, path, "%s", worker->state->disk[disk].name);
	worker_begin(worker, "open %s, flags %#x", path, flags);
	return worker_end(worker, KIND_OPEN, &worker->state->disk[disk], errno_of(open(path, flags | O_CLOEXEC)), NULL);
}

void operation_open(struct worker *worker)
{
	operation_close(worker);
	worker->fd_dsync = worker_random(worker, 6) == 0;
	worker->fd = open_disk(worker, worker->home,
			       O_RDWR | (worker->direct ? O_DIRECT : 0) | (worker->fd_dsync ? O_DSYNC : 0));
}

static void close_fd(struct worker *worker, struct disk *disk, int fd)
{
	worker_begin(worker, "close %s", disk->name);
	worker_end(worker, KIND_OPEN, disk, errno_of(close(fd)), NULL);
}

void operation_close(struct worker *worker)
{
	if (worker->fd >= 0)
		close_fd(worker, worker_disk(worker), worker->fd);
	worker->fd = -1;
}

static bool opened(struct worker *worker)
{
	if (worker->fd < 0)
		operation_open(worker);
	return worker->fd >= 0;
}

/* ---- Read ------------------------------------------------------------------- */

static void read_and_check(struct worker *worker, int fd, unsigned disk, struct range range)
{
	struct area area = state_area(worker->state, disk);
	struct disk *shown = &worker->state->disk[disk];
	char message[256];
	int result;

	area_before(&area, range.first, range.count, worker->before);
	worker_begin(worker, "read %s, sectors %u+%u", shown->name, range.first, range.count);
	result = transfer_read(fd, worker->memory, range.first, range.count);
	if (worker_end(worker, KIND_READ, shown, result, NULL) < 0)
		return;
	/* The phase is asked last: whatever a store's error did came after it. */
	if (!area_check(&area, range.first, range.count, worker->before, worker->memory, !worker_is_calm(worker),
			message))
		worker_fail(worker, "%s, %s: %s", shown->name, worker->direct ? "direct" : "buffered", message);
}

void operation_read(struct worker *worker)
{
	if (opened(worker))
		read_and_check(worker, worker->fd, worker->home, choose_own(worker));
}

void operation_read_other(struct worker *worker)
{
	struct state *state = worker->state;
	unsigned owner = (unsigned)worker_random(worker, state->workers), disk;
	uint32_t first, count;
	int fd;

	if (is_direct(state, owner) != worker->direct)
		owner = worker->number;
	owned_by(state, owner, &disk, &first, &count);
	fd = open_disk(worker, disk, O_RDONLY | (worker->direct ? O_DIRECT : 0));
	if (fd < 0)
		return;
	read_and_check(worker, fd, disk, choose_within(worker, first, count));
	close_fd(worker, &state->disk[disk], fd);
}

/* ---- Write, flush, zero ------------------------------------------------------ */

static void remember_unsynced(struct worker *worker, struct range range, uint64_t errors)
{
	if (worker->unsynced_count < UNSYNCED_MAX)
		worker->unsynced[worker->unsynced_count++] = (struct unsynced){range.first, range.count, errors};
}

static void write_own(struct worker *worker, bool dsync)
{
	struct range range = choose_own(worker);
	uint32_t version = worker_version(worker);
	uint64_t errors = worker_disk(worker)->errors;
	int result;

	if (!opened(worker))
		return;
	dsync = dsync || worker->fd_dsync;
	area_stamp(&worker->area, range.first, range.count, version, worker->memory);
	area_begin(&worker->area, range.first, range.count, version, false);
	worker_begin(worker, "write %s, sectors %u+%u version %u%s", worker_disk(worker)->name, range.first,
		     range.count, version, dsync ? ", O_DSYNC" : "");
	result = transfer_write(worker->fd, worker->memory, range.first, range.count, dsync);
	if (worker_end(worker, dsync ? KIND_DSYNC : KIND_WRITE, worker_disk(worker), result, NULL) < 0)
		return;
	area_succeed(&worker->area, range.first, range.count, version);
	if (dsync && worker_disk(worker)->errors == errors)
		area_durable(&worker->area, range.first, range.count);
	else
		remember_unsynced(worker, range, errors);
}

void operation_write(struct worker *worker)
{
	write_own(worker, false);
}

void operation_dsync(struct worker *worker)
{
	write_own(worker, true);
}

void operation_fsync(struct worker *worker)
{
	bool data_only = worker_random(worker, 2);
	uint64_t errors;

	if (!opened(worker))
		return;
	worker_begin(worker, "%s %s", data_only ? "fdatasync" : "fsync", worker_disk(worker)->name);
	if (worker_end(worker, KIND_FSYNC, worker_disk(worker),
		       errno_of(data_only ? fdatasync(worker->fd) : fsync(worker->fd)), NULL) < 0)
		return;
	errors = worker_disk(worker)->errors;
	for (unsigned i = 0; i < worker->unsynced_count; i++)
		if (worker->unsynced[i].errors == errors)
			area_durable(&worker->area, worker->unsynced[i].first, worker->unsynced[i].count);
	worker->unsynced_count = 0;
}

static void zero_own(struct worker *worker, enum kind kind, int mode)
{
	struct range range = choose_own(worker);
	uint32_t version = worker_version(worker);
	uint64_t errors = worker_disk(worker)->errors;
	int result;

	if (!opened(worker))
		return;
	if (worker_random(worker, 4) == 0)
		range.count = worker->first + worker->count - range.first;
	area_begin(&worker->area, range.first, range.count, version, true);
	worker_begin(worker, "%s %s, sectors %u+%u version %u", kind_names[kind], worker_disk(worker)->name,
		     range.first, range.count, version);
	result = errno_of(fallocate(worker->fd, mode | FALLOC_FL_KEEP_SIZE, (off_t)range.first * SECTOR,
				    (off_t)range.count * SECTOR));
	if (worker_end(worker, kind, worker_disk(worker), result, NULL) < 0)
		return;
	area_succeed(&worker->area, range.first, range.count, version);
	remember_unsynced(worker, range, errors);
}

void operation_punch(struct worker *worker)
{
	zero_own(worker, KIND_PUNCH, FALLOC_FL_PUNCH_HOLE);
}

void operation_zero(struct worker *worker)
{
	zero_own(worker, KIND_ZERO, FALLOC_FL_ZERO_RANGE);
}

/* ---- Seek ------------------------------------------------------------------- */

static off_t seek(struct worker *worker, uint32_t sector, int whence, const char *what)
{
	static const int refusals[] = {ENXIO, 0};
	off_t found;

	worker_begin(worker, "%s %s, from sector %u", what, worker_disk(worker)->name, sector);
	found = lseek(worker->fd, (off_t)sector * SECTOR, whence);
	return worker_end(worker, KIND_SEEK, worker_disk(worker), errno_of(found < 0 ? -1 : 0), refusals) < 0 ? -1
													      : found;
}

/* Data of its own is no hole. */
void operation_seek(struct worker *worker)
{
	struct range range = choose_own(worker);
	off_t at = (off_t)range.first * SECTOR, data, hole;
	uint32_t known;

	if (!opened(worker))
		return;
	data = seek(worker, range.first, SEEK_DATA, "SEEK_DATA");
	hole = seek(worker, range.first, SEEK_HOLE, "SEEK_HOLE");
	for (known = 0; known < range.count && area_is_data(&worker->area, range.first + known); known++)
		;
	if (known == 0 || !worker_is_calm(worker))
		return;
	if (data != at)
		worker_fail(worker, "SEEK_DATA found %lld, but sector %u is data", (long long)data, range.first);
	if (hole < at + (off_t)known * SECTOR)
		worker_fail(worker, "SEEK_HOLE found %lld, but sectors %u+%u are data", (long long)hole, range.first,
			    known);
}
