/* Growing and shrinking a disk that others use.
 *
 * A disk has a tail beyond the sectors that it had in the beginning. One process
 * at a time has it, tries the other size, and knows what must be there. Shrinking is
 * by command, and refused while another process has the disk open. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "worker.h"

struct tail {
	struct worker *worker;
	struct disk *disk;
	struct area area;
	int fd;		/* -1: it could not be opened again */
	uint32_t count; /* of its sectors, now */
};

static uint32_t base_of(const struct tail *tail)
{
	return tail->worker->state->base_sectors;
}

static bool take(struct worker *worker)
{
	uint32_t nobody = 0;

	return atomic_compare_exchange_strong(&worker_disk(worker)->tail_owner, &nobody, (uint32_t)getpid());
}

static void close_tail(struct tail *tail)
{
	if (tail->fd < 0)
		return;
	worker_begin(tail->worker, "close %s after it was resized", tail->disk->name);
	worker_end(tail->worker, KIND_OPEN, tail->disk, errno_of(close(tail->fd)), NULL);
}

/* While errors are made a resize that failed may have been one, and a disk that
 * failed may be found with either size when it is opened afresh. */
static bool learn_size(struct tail *tail)
{
	bool sure = tail->disk->errors == 0 && worker_is_calm(tail->worker);
	struct stat st;

	if (tail->fd < 0)
		return false;
	worker_begin(tail->worker, "fstat %s", tail->disk->name);
	if (worker_end(tail->worker, KIND_LIST, tail->disk, errno_of(fstat(tail->fd, &st)), NULL) < 0)
		return false;
	if (sure && worker_is_calm(tail->worker) && (uint64_t)st.st_size != tail->disk->size)
		worker_fail(tail->worker, "%lld bytes, expected %llu", (long long)st.st_size,
			    (unsigned long long)tail->disk->size);
	tail->disk->size = (uint64_t)st.st_size;
	tail->count = (uint32_t)(tail->disk->size / SECTOR) - base_of(tail);
	return true;
}

static int reopen(const struct tail *tail)
{
	char path[256];

	worker_path(tail->worker, path, "%s", tail->disk->name);
	return errno_of(open(path, O_RDWR | O_DIRECT | O_CLOEXEC));
}

static bool open_tail(struct tail *tail, struct worker *worker)
{
	char path[256];

	*tail = (struct tail){.worker = worker, .disk = worker_disk(worker)};
	tail->area = state_tail(worker->state, worker->home);
	worker_path(worker, path, "%s", tail->disk->name);
	worker_begin(worker, "open %s to resize it", path);
	tail->fd = worker_end(worker, KIND_OPEN, tail->disk, reopen(tail), NULL);
	if (learn_size(tail))
		return true;
	close_tail(tail);
	return false;
}

/* The disk is closed for it. */
static int shrink_to(struct tail *tail, uint64_t bytes)
{
	int result;

	close(tail->fd);
	result = worker_command_size(tail->worker, tail->disk->name, bytes);
	tail->fd = reopen(tail);
	return result == 0 && tail->fd < 0 ? tail->fd : result;
}

static int grow_to(struct tail *tail, uint64_t bytes)
{
	return errno_of(ftruncate(tail->fd, (off_t)bytes));
}

/* What appears is zeros, what goes becomes them; what is refused has not been. */
static void resize(struct tail *tail, enum kind kind, uint32_t count, const int *refusals)
{
	uint32_t from = count < tail->count ? count : tail->count;
	uint32_t changed = count < tail->count ? tail->count - count : count - tail->count;
	uint32_t version = ++tail->disk->tail_version;
	uint64_t bytes = (uint64_t)(base_of(tail) + count) * SECTOR;
	static struct sector saved[TAIL_SECTORS];
	int result;

	memcpy(saved, tail->area.sectors + from, changed * sizeof(*saved));
	area_begin(&tail->area, from, changed, version, true);
	worker_begin(tail->worker, "%s %s, to %llu bytes", kind_names[kind], tail->disk->name,
		     (unsigned long long)bytes);
	result = kind == KIND_GROW ? grow_to(tail, bytes) : shrink_to(tail, bytes);
	result = worker_end(tail->worker, kind, tail->disk, result, refusals);
	if (result == -EBUSY && refusals)
		memcpy(tail->area.sectors + from, saved, changed * sizeof(*saved));
	else if (result < 0)
		learn_size(tail);
	if (result < 0)
		return;
	tail->disk->size = bytes;
	tail->count = count;
	area_succeed(&tail->area, from, changed, version);
	area_durable(&tail->area, from, changed);
}

static void check_tail(struct tail *tail, uint32_t first, uint32_t count)
{
	struct worker *worker = tail->worker;
	char message[256];
	int result;

	area_before(&tail->area, first, count, worker->before);
	worker_begin(worker, "read %s, sectors %u+%u of its tail", tail->disk->name, first, count);
	result = transfer_read(tail->fd, worker->memory, base_of(tail) + first, count);
	if (worker_end(worker, KIND_READ, tail->disk, result, NULL) < 0)
		return;
	if (!area_check(&tail->area, first, count, worker->before, worker->memory, !worker_is_calm(worker), message))
		worker_fail(worker, "%s, its tail: %s", tail->disk->name, message);
}

static void write_tail(struct tail *tail, uint32_t first, uint32_t count)
{
	struct worker *worker = tail->worker;
	uint32_t version = ++tail->disk->tail_version;
	int result;

	area_stamp(&tail->area, first, count, version, worker->memory);
	area_begin(&tail->area, first, count, version, false);
	worker_begin(worker, "write %s, sectors %u+%u of its tail", tail->disk->name, first, count);
	result = transfer_write(tail->fd, worker->memory, base_of(tail) + first, count, false);
	if (worker_end(worker, KIND_WRITE, tail->disk, result, NULL) == 0)
		area_succeed(&tail->area, first, count, version);
}

static void use_tail(struct tail *tail)
{
	uint32_t first, count;

	if (tail->count == 0 || tail->fd < 0)
		return;
	first = (uint32_t)worker_random(tail->worker, tail->count);
	count = 1 + (uint32_t)worker_random(tail->worker, 64);
	if (count > tail->count - first)
		count = tail->count - first;
	check_tail(tail, first, count);
	if (worker_random(tail->worker, 2))
		write_tail(tail, first, count);
}

static void grow(struct tail *tail)
{
	uint32_t room = TAIL_SECTORS - tail->count;

	if (room > 0)
		resize(tail, KIND_GROW,
		       tail->count + 1 + (uint32_t)worker_random(tail->worker, room < 256 ? room : 256), NULL);
}

static void shrink(struct tail *tail)
{
	static const int refusals[] = {EBUSY, 0};

	if (tail->count > 0)
		resize(tail, KIND_SHRINK, (uint32_t)worker_random(tail->worker, tail->count), refusals);
}

static void with_tail(struct worker *worker, void (*work)(struct tail *tail))
{
	struct tail tail;

	if (!take(worker))
		return;
	if (open_tail(&tail, worker)) {
		use_tail(&tail);
		work(&tail);
		use_tail(&tail);
		close_tail(&tail);
	}
	worker_disk(worker)->tail_owner = 0;
}

void operation_grow(struct worker *worker)
{
	with_tail(worker, grow);
}

void operation_shrink(struct worker *worker)
{
	operation_close(worker);
	with_tail(worker, shrink);
}
