/* A disk from its creation to its removal: one step at each call. Its process is
 * the only one that uses it, so nothing is refused for long: a last close(2) that
 * the kernel has not told of yet makes a name EBUSY for a moment. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "worker.h"

#define AREA_IDS_BEGIN 0x100u

static const int busy[] = {EBUSY, 0};

/* A run that was killed leaves its disks to the next one. */
static void next_name(struct worker *worker, char name[NAME_BYTES])
{
	snprintf(name, NAME_BYTES, "own%u-%u-%llx.img", worker->number, ++worker->scratch.generation,
		 (unsigned long long)worker->settings->seed);
}

/* After an error nobody knows which of its names it has, if any. */
static void abandon(struct scratch *scratch)
{
	scratch->name[0] = '\0';
}

static int open_scratch(struct worker *worker, int flags)
{
	char path[256];

	worker_path(worker, path, "%s", worker->scratch.name);
	worker_begin(worker, "%s %s", flags & O_CREAT ? "create" : "open", path);
	return worker_end(worker, flags & O_CREAT ? KIND_CREATE : KIND_OPEN, NULL,
			  errno_of(open(path, flags | O_CLOEXEC | (worker->direct ? O_DIRECT : 0), 0600)), NULL);
}

static int close_scratch(struct worker *worker, int fd)
{
	worker_begin(worker, "close %s", worker->scratch.name);
	return worker_end(worker, KIND_OPEN, NULL, errno_of(close(fd)), NULL);
}

/* Zeros from FROM on. */
static void note_size(struct scratch *scratch, uint32_t from, uint32_t size)
{
	scratch->version++;
	area_begin(&scratch->area, from, SCRATCH_SECTORS - from, scratch->version, true);
	area_succeed(&scratch->area, from, SCRATCH_SECTORS - from, scratch->version);
	scratch->size = size;
}

static bool grow_scratch(struct worker *worker, int fd, uint32_t size)
{
	struct scratch *scratch = &worker->scratch;
	int result;

	worker_begin(worker, "%s %s, to %u sectors", kind_names[KIND_GROW], scratch->name, size);
	result = worker_end(worker, KIND_GROW, NULL, errno_of(ftruncate(fd, (off_t)size * SECTOR)), NULL);
	if (result < 0)
		return false;
	note_size(scratch, scratch->size, size);
	return true;
}

static bool check_scratch(struct worker *worker, int fd, uint32_t first, uint32_t count)
{
	struct scratch *scratch = &worker->scratch;
	char message[256];
	int result;

	area_before(&scratch->area, first, count, worker->before);
	worker_begin(worker, "read %s, sectors %u+%u", scratch->name, first, count);
	result = transfer_read(fd, worker->memory, first, count);
	if (worker_end(worker, KIND_READ, NULL, result, NULL) < 0)
		return false;
	if (!area_check(&scratch->area, first, count, worker->before, worker->memory, false, message) &&
	    worker_is_calm(worker))
		worker_fail(worker, "%s: %s", scratch->name, message);
	return true;
}

static bool write_scratch(struct worker *worker, int fd, uint32_t first, uint32_t count)
{
	struct scratch *scratch = &worker->scratch;
	int result;

	scratch->version++;
	area_stamp(&scratch->area, first, count, scratch->version, worker->memory);
	area_begin(&scratch->area, first, count, scratch->version, false);
	worker_begin(worker, "write %s, sectors %u+%u", scratch->name, first, count);
	result = transfer_write(fd, worker->memory, first, count, false);
	if (worker_end(worker, KIND_WRITE, NULL, result, NULL) < 0)
		return false;
	area_succeed(&scratch->area, first, count, scratch->version);
	return true;
}

static bool use_open(struct worker *worker, int fd)
{
	struct scratch *scratch = &worker->scratch;
	uint32_t size = 8 + (uint32_t)worker_random(worker, SCRATCH_SECTORS - 8), first, count;

	if (size > scratch->size && !grow_scratch(worker, fd, size))
		return false;
	if (scratch->size == 0)
		return true;
	first = (uint32_t)worker_random(worker, scratch->size);
	count = 1 + (uint32_t)worker_random(worker, TRANSFER_SECTORS);
	if (count > scratch->size - first)
		count = scratch->size - first;
	return check_scratch(worker, fd, first, count) && write_scratch(worker, fd, first, count) &&
	       check_scratch(worker, fd, first, count);
}

/* One that an error befell is left alone. */
static void use_scratch(struct worker *worker, int flags)
{
	int fd = open_scratch(worker, flags);
	bool good = fd >= 0 && use_open(worker, fd);

	if (fd >= 0 && close_scratch(worker, fd) < 0)
		good = false;
	if (!good || !worker_is_calm(worker))
		abandon(&worker->scratch);
}

static void create(struct worker *worker)
{
	struct scratch *scratch = &worker->scratch;

	next_name(worker, scratch->name);
	scratch->size = 0;
	scratch->area.id = AREA_IDS_BEGIN + worker->number * 0x100 + (scratch->generation & 0xff);
	memset(scratch->area.sectors, 0, SCRATCH_SECTORS * sizeof(struct sector));
	use_scratch(worker, O_RDWR | O_CREAT | O_EXCL);
}

/* It is open nowhere, and yet its last close may not have arrived. */
static void shrink_scratch(struct worker *worker)
{
	struct scratch *scratch = &worker->scratch;
	uint32_t size = 1 + (uint32_t)worker_random(worker, SCRATCH_SECTORS);
	int result;

	if (size >= scratch->size)
		return;
	worker_begin(worker, "%s %s, to %u sectors", kind_names[KIND_SHRINK], scratch->name, size);
	result = worker_command_size(worker, scratch->name, (uint64_t)size * SECTOR);
	result = worker_end(worker, KIND_SHRINK, NULL, result, busy);
	if (result == 0)
		note_size(scratch, size, size);
	else if (result != -EBUSY)
		abandon(scratch);
}

static void rename_scratch(struct worker *worker)
{
	struct scratch *scratch = &worker->scratch;
	char from[256], to[256], name[NAME_BYTES];
	int result;

	next_name(worker, name);
	worker_path(worker, from, "%s", scratch->name);
	worker_path(worker, to, "%s", name);
	worker_begin(worker, "rename %s to %s", from, name);
	result = worker_end(worker, KIND_RENAME, NULL, errno_of(rename(from, to)), busy);
	if (result == 0)
		memcpy(scratch->name, name, sizeof(name));
	else if (result != -EBUSY)
		abandon(scratch);
}

void scratch_remove(struct worker *worker)
{
	char path[256];
	int result;

	if (!worker->scratch.name[0])
		return;
	worker_path(worker, path, "%s", worker->scratch.name);
	worker_begin(worker, "unlink %s", path);
	result = worker_end(worker, KIND_UNLINK, NULL, errno_of(unlink(path)), busy);
	if (result != -EBUSY)
		abandon(&worker->scratch);
}

void operation_scratch(struct worker *worker)
{
	static void (*const steps[])(struct worker *) = {rename_scratch, scratch_remove, shrink_scratch};
	uint64_t step = worker_random(worker, 6);

	if (worker->number >= worker->settings->makers)
		return;
	if (!worker->scratch.name[0])
		create(worker);
	else if (step < 3)
		steps[step](worker);
	else
		use_scratch(worker, O_RDWR);
}
