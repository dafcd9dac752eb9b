/* What the disks of a torture run must read as, in memory that all its processes share.
 *
 * A disk is an *area* of sectors. One process at a time writes a sector, and
 * numbers what it does to it; a sector's content is a stamp of its place and the
 * number, or zeros. Four numbers say what it may be read as:
 *
 *     floor    the newest that is known to be there
 *     ceil     the newest that was begun
 *     zero     the newest that made it zeros
 *     durable  the newest that a flush has covered
 *
 * 1. durable <= floor <= ceil.
 * 2. Who reads takes the floor first and the ceil last: what was read lies between them.
 * 3. A change that failed raises the ceil alone: old or new, until the next that succeeds.
 * 4. While a store gives errors, and after a crash, durable takes the place of the floor. */
#ifndef LEAFDISK_TEST_TORTURE_MODEL_H
#define LEAFDISK_TEST_TORTURE_MODEL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SECTOR 512u
#define BLOCK 4096u
#define WORKERS_MAX 64u
#define DISKS_MAX 8u
#define NAME_BYTES 64
#define TAIL_SECTORS 4096u
#define WHAT_BYTES 104

enum kind {
	KIND_OPEN,
	KIND_READ,
	KIND_WRITE,
	KIND_DSYNC,
	KIND_FSYNC,
	KIND_PUNCH,
	KIND_ZERO,
	KIND_GROW,
	KIND_SHRINK,
	KIND_SEEK,
	KIND_CREATE,
	KIND_RENAME,
	KIND_UNLINK,
	KIND_MODE,
	KIND_DRAIN,
	KIND_STATUS,
	KIND_LIST,
	KINDS,
};
extern const char *const kind_names[KINDS];

enum phase {
	PHASE_CALM,   /* no operation may fail */
	PHASE_ERRING, /* any may */
	PHASE_QUIET,  /* everybody closes all files and waits */
	PHASE_STOP,
};

/* What a process is doing now, for who watches; test/test_torture.py reads it. */
struct slot {
	_Atomic uint64_t pid;
	_Atomic uint64_t began_ns; /* CLOCK_MONOTONIC; 0: nothing */
	_Atomic uint64_t done;
	char what[WHAT_BYTES];
};
_Static_assert(sizeof(struct slot) == 128, "read by test_torture.py");

struct sector {
	_Atomic uint32_t floor, ceil, zero, durable;
};

struct area {
	uint32_t id; /* its stamps are no other's */
	uint32_t count;
	struct sector *sectors;
};

struct disk {
	char name[NAME_BYTES];
	_Atomic uint64_t size;	       /* what it grew to */
	_Atomic uint32_t tail_version; /* for who has tail_owner */
	_Atomic uint32_t tail_owner;   /* a process id; 0: free */
	_Atomic uint32_t mode_owner;
	_Atomic uint64_t errors; /* how many operations on it failed */
};

struct state {
	uint32_t magic;
	uint32_t workers;
	uint32_t disks;
	uint32_t base_sectors; /* of a disk, before its tail */
	_Atomic uint32_t phase;
	_Atomic uint32_t killing; /* set before the daemon is killed */
	_Atomic uint32_t failed;
	_Atomic uint32_t quiet; /* processes that have closed everything */
	_Atomic uint32_t versions[WORKERS_MAX];
	_Atomic uint64_t succeeded[KINDS];
	_Atomic uint64_t refused[KINDS];
	_Atomic uint64_t erred[KINDS];
	struct disk disk[DISKS_MAX];
	_Alignas(4096) struct slot slots[WORKERS_MAX + 1]; /* the last one: the parent's */
	_Alignas(4096) struct sector sectors[];
};
_Static_assert(offsetof(struct state, killing) == 20, "written by test_torture.py");
_Static_assert(offsetof(struct state, slots) == 4096, "read by test_torture.py");

/* What readers remember of one sector from before they read. */
struct before {
	uint32_t floor, durable;
};

/* A new state file, or an old one; both end the program when that fails. The
 * disks are web1.img, web2.img, ... */
struct state *state_make(const char *path, unsigned workers, unsigned disks, uint64_t base_bytes);
struct state *state_open(const char *path);

/* The part of a disk that is as large as in the beginning, and what it can grow by. */
struct area state_area(struct state *state, unsigned disk);
struct area state_tail(struct state *state, unsigned disk);

/* Where a sector of a base image is not zeros in the beginning. */
bool initial_data(uint32_t sector);
/* The content of DISK's base image, to PATH. */
void initial_write(struct state *state, unsigned disk, const char *path);

/* COUNT sectors from FIRST get VERSION: begin before the request, succeed after
 * it, durable once a flush that began after it returned 0. */
void area_begin(struct area *area, uint32_t first, uint32_t count, uint32_t version, bool zeros);
void area_succeed(struct area *area, uint32_t first, uint32_t count, uint32_t version);
void area_durable(struct area *area, uint32_t first, uint32_t count);
void area_stamp(const struct area *area, uint32_t first, uint32_t count, uint32_t version, void *data);

void area_before(const struct area *area, uint32_t first, uint32_t count, struct before *before);
/* Whether DATA is what may be there; MESSAGE says what is wrong. DOUBT: rule 4. */
bool area_check(const struct area *area, uint32_t first, uint32_t count, const struct before *before, const void *data,
		bool doubt, char message[256]);
/* From now on a sector that was checked is what DATA says. */
void area_settle(struct area *area, uint32_t first, uint32_t count, const void *data);
/* What was not flushed is in doubt. */
void area_doubt(struct area *area);
/* The sector is known to be data, and nothing is under way. */
bool area_is_data(const struct area *area, uint32_t sector);

uint64_t now_ns(void);

#endif
