/* One process of a torture run, and what its operations share. */
#ifndef LEAFDISK_TEST_TORTURE_WORKER_H
#define LEAFDISK_TEST_TORTURE_WORKER_H

#include "model.h"

#define TRANSFER_SECTORS 256u
#define UNSYNCED_MAX 256u
#define SCRATCH_SECTORS 2048u

struct settings {
	const char *mount;
	const char *leafctl;
	const char *home_mode;
	const char *const *modes; /* that a disk may have for a while, NULL at the end */
	unsigned makers;	  /* so many of the processes have disks of their own */
	uint64_t seed;
	uint64_t operations; /* of each process; 0: until it is told to stop */
};

/* Sectors that were changed since the last flush; those that do not fit count as
 * never flushed. ERRORS: of the disk when the
 * change began; a flush after another error proves nothing. */
struct unsynced {
	uint32_t first, count;
	uint64_t errors;
};

/* A disk that the process makes, changes and removes, all by itself. */
struct scratch {
	char name[NAME_BYTES]; /* empty: there is none */
	unsigned generation;
	uint32_t size; /* in sectors */
	uint32_t version;
	struct area area;
};

struct worker {
	struct state *state;
	const struct settings *settings;
	struct slot *slot;
	unsigned number;
	uint64_t random;
	/* Its sectors of its own disk. Direct and buffered access have blocks of
	 * their own: whoever mixes them must not expect a coherent page cache. */
	unsigned home;
	bool direct;
	uint32_t first, count;
	struct area area;
	int fd; /* -1: closed */
	bool fd_dsync;
	struct unsynced unsynced[UNSYNCED_MAX];
	unsigned unsynced_count;
	struct scratch scratch;
	char *memory; /* TRANSFER_SECTORS of them */
	struct before before[TRANSFER_SECTORS];
	bool was_calm; /* when the operation began */
};

/* The sectors that OWNER has on its disk. */
void owned_by(const struct state *state, unsigned owner, unsigned *disk, uint32_t *first, uint32_t *count);
bool is_direct(const struct state *state, unsigned owner);

uint64_t worker_random(struct worker *worker, uint64_t below);
uint32_t worker_version(struct worker *worker);
struct disk *worker_disk(struct worker *worker);
/* No errors are made, and all that were have been answered. */
bool worker_is_calm(const struct worker *worker);
const char *worker_path(const struct worker *worker, char path[256], const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/* Gives the disk NAME a size by command. 0 or -errno. */
int worker_command_size(const struct worker *worker, const char *name, uint64_t bytes);

/* Every system call that can reach the mount stands between these two. */
void worker_begin(struct worker *worker, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* RESULT: 0 or more, or a negative errno, which is returned. REFUSALS: what an
 * operation that is as it should be may say, 0 at the end; NULL: nothing. Any
 * other error ends the run, but while errors are made. DISK may be NULL. */
int worker_end(struct worker *worker, enum kind kind, struct disk *disk, int result, const int *refusals);
/* Between the two: -errno for -1. */
int errno_of(int result);
/* The run is over, and this is why. */
void worker_fail(struct worker *worker, const char *format, ...) __attribute__((format(printf, 2, 3), noreturn));

/* Whole transfers of sectors; 0 or a negative errno. */
int transfer_read(int fd, void *data, uint32_t first, uint32_t count);
int transfer_write(int fd, const void *data, uint32_t first, uint32_t count, bool dsync);

/* Operations: operations.c, resize.c, scratch.c, control.c. */
void operation_open(struct worker *worker);
void operation_close(struct worker *worker);
void operation_read(struct worker *worker);
void operation_read_other(struct worker *worker);
void operation_write(struct worker *worker);
void operation_dsync(struct worker *worker);
void operation_fsync(struct worker *worker);
void operation_punch(struct worker *worker);
void operation_zero(struct worker *worker);
void operation_seek(struct worker *worker);
void operation_grow(struct worker *worker);
void operation_shrink(struct worker *worker);
void operation_scratch(struct worker *worker);
void scratch_remove(struct worker *worker);
void operation_mode(struct worker *worker);
void operation_drain(struct worker *worker);
void operation_status(struct worker *worker);
void operation_list(struct worker *worker);

#endif
