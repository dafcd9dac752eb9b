/* What the operations of a worker share: see worker.h. */
#include "worker.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FAILURES_SHOWN 3

/* From one of them on the daemon is not there any more. */
static bool is_deadly(int error)
{
	return error == ENOTCONN || error == ECONNABORTED || error == ENOSYS;
}

bool is_direct(const struct state *state, unsigned owner)
{
	return (owner / state->disks) & 1;
}

void owned_by(const struct state *state, unsigned owner, unsigned *disk, uint32_t *first, uint32_t *count)
{
	unsigned owners = state->workers / state->disks, index = owner / state->disks;
	uint32_t blocks = state->base_sectors / (BLOCK / SECTOR) / owners;

	*disk = owner % state->disks;
	*first = index * blocks * (BLOCK / SECTOR);
	*count = blocks * (BLOCK / SECTOR);
}

uint64_t worker_random(struct worker *worker, uint64_t below)
{
	worker->random ^= worker->random << 13;
	worker->random ^= worker->random >> 7;
	worker->random ^= worker->random << 17;
	return (worker->random >> 11) % below;
}

uint32_t worker_version(struct worker *worker)
{
	return ++worker->state->versions[worker->number];
}

struct disk *worker_disk(struct worker *worker)
{
	return &worker->state->disk[worker->home];
}

bool worker_is_calm(const struct worker *worker)
{
	uint32_t phase = worker->state->phase;

	return phase == PHASE_CALM || phase == PHASE_STOP;
}

const char *worker_path(const struct worker *worker, char path[256], const char *format, ...)
{
	int length = snprintf(path, 256, "%s/", worker->settings->mount);
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(path + length, 256 - (size_t)length, format, arguments);
	va_end(arguments);
	return path;
}

int errno_of(int result)
{
	return result < 0 ? -errno : result;
}

int worker_command_size(const struct worker *worker, const char *name, uint64_t bytes)
{
	char path[256], text[32];
	int fd, result, length = snprintf(text, sizeof(text), "%llu", (unsigned long long)bytes);

	worker_path(worker, path, ".leafdisk/disks/%s/size", name);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	result = write(fd, text, (size_t)length) < 0 ? -errno : 0;
	close(fd);
	return result;
}

void worker_begin(struct worker *worker, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(worker->slot->what, WHAT_BYTES, format, arguments);
	va_end(arguments);
	worker->was_calm = worker_is_calm(worker);
	worker->slot->began_ns = now_ns();
}

static bool is_one_of(int error, const int *refusals)
{
	for (; refusals && *refusals; refusals++)
		if (*refusals == error)
			return true;
	return false;
}

static void judge(struct worker *worker, int error)
{
	if (worker->state->killing)
		_exit(0);
	if (is_deadly(error) || (worker->was_calm && worker_is_calm(worker)))
		worker_fail(worker, "%s", strerror(error));
}

int worker_end(struct worker *worker, enum kind kind, struct disk *disk, int result, const int *refusals)
{
	worker->slot->began_ns = 0;
	worker->slot->done++;
	if (result >= 0) {
		worker->state->succeeded[kind]++;
	} else if (is_one_of(-result, refusals)) {
		worker->state->refused[kind]++;
	} else {
		/* Known to all before this process closes the disk, so before it is opened afresh. */
		if (disk)
			disk->errors++;
		judge(worker, -result);
		worker->state->erred[kind]++;
	}
	return result;
}

void worker_fail(struct worker *worker, const char *format, ...)
{
	char message[512];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(message, sizeof(message), format, arguments);
	va_end(arguments);
	worker->slot->began_ns = 0;
	/* The first few say it all when the daemon has ended. */
	if (worker->state->failed++ >= FAILURES_SHOWN)
		_exit(1);
	fprintf(stderr, "worker %u, seed %llu: %s: %s\n", worker->number, (unsigned long long)worker->settings->seed,
		worker->slot->what, message);
	_exit(1);
}
