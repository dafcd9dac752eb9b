/* The model of a torture run: see model.h. */
#include "model.h"

#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define STATE_MAGIC 0x4c444b54u
#define PLACE_MARK 0x1eaf000000000000u
#define VERSION_MARK 0xd15c000000000000u
#define INITIAL_VERSION 1u
#define UNITS (SECTOR / sizeof(struct unit))

/* A sector is full of these, so that one that is torn tells of both its halves. */
struct unit {
	uint64_t place;
	uint64_t version;
};

const char *const kind_names[KINDS] = {
	"open", "read",	  "write",  "dsync",  "fsync", "punch", "zero",	  "grow", "shrink",
	"seek", "create", "rename", "unlink", "mode",  "drain", "status", "list",
};

uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static size_t sectors_of_disk(const struct state *state)
{
	return state->base_sectors + TAIL_SECTORS;
}

static struct state *map_file(const char *path, int flags, size_t bytes)
{
	struct stat st;
	void *memory;
	int fd = open(path, flags | O_RDWR | O_CLOEXEC, 0600);

	if (fd < 0 || (bytes && ftruncate(fd, (off_t)bytes) != 0) || fstat(fd, &st) != 0)
		err(2, "%s", path);
	memory = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (memory == MAP_FAILED)
		err(2, "%s", path);
	close(fd);
	return memory;
}

bool initial_data(uint32_t sector)
{
	return sector / 600 % 3 == 0;
}

struct state *state_make(const char *path, unsigned workers, unsigned disks, uint64_t base_bytes)
{
	size_t sectors = (base_bytes / SECTOR + TAIL_SECTORS) * disks;
	struct state *state = map_file(path, O_CREAT | O_TRUNC, sizeof(*state) + sectors * sizeof(struct sector));

	state->magic = STATE_MAGIC;
	state->workers = workers;
	state->disks = disks;
	state->base_sectors = (uint32_t)(base_bytes / SECTOR);
	for (unsigned w = 0; w < workers; w++)
		state->versions[w] = INITIAL_VERSION;
	for (unsigned d = 0; d < disks; d++) {
		struct area area = state_area(state, d);

		snprintf(state->disk[d].name, NAME_BYTES, "web%u.img", d + 1);
		state->disk[d].size = base_bytes;
		for (uint32_t i = 0; i < area.count; i++)
			if (initial_data(i))
				area.sectors[i].floor = area.sectors[i].ceil = area.sectors[i].durable =
					INITIAL_VERSION;
	}
	return state;
}

struct state *state_open(const char *path)
{
	struct state *state = map_file(path, 0, 0);

	if (state->magic != STATE_MAGIC)
		errx(2, "%s: no state of a torture run", path);
	return state;
}

struct area state_area(struct state *state, unsigned disk)
{
	return (struct area){
		.id = 2 * disk,
		.count = state->base_sectors,
		.sectors = state->sectors + disk * sectors_of_disk(state),
	};
}

struct area state_tail(struct state *state, unsigned disk)
{
	return (struct area){
		.id = 2 * disk + 1,
		.count = TAIL_SECTORS,
		.sectors = state->sectors + disk * sectors_of_disk(state) + state->base_sectors,
	};
}

void initial_write(struct state *state, unsigned disk, const char *path)
{
	struct area area = state_area(state, disk);
	FILE *file = fopen(path, "wb");
	char data[SECTOR];

	if (!file)
		err(2, "%s", path);
	for (uint32_t i = 0; i < area.count; i++) {
		memset(data, 0, sizeof(data));
		if (initial_data(i))
			area_stamp(&area, i, 1, INITIAL_VERSION, data);
		fwrite(data, sizeof(data), 1, file);
	}
	if (fclose(file) != 0)
		err(2, "%s", path);
}

static struct unit unit_of(const struct area *area, uint32_t sector, uint32_t version)
{
	return (struct unit){PLACE_MARK | (uint64_t)area->id << 32 | sector, VERSION_MARK | version};
}

void area_stamp(const struct area *area, uint32_t first, uint32_t count, uint32_t version, void *data)
{
	struct unit *units = data;

	for (uint32_t i = 0; i < count; i++)
		for (size_t u = 0; u < UNITS; u++)
			units[i * UNITS + u] = unit_of(area, first + i, version);
}

void area_begin(struct area *area, uint32_t first, uint32_t count, uint32_t version, bool zeros)
{
	for (struct sector *s = area->sectors + first; s < area->sectors + first + count; s++) {
		if (zeros)
			s->zero = version;
		s->ceil = version;
	}
}

void area_succeed(struct area *area, uint32_t first, uint32_t count, uint32_t version)
{
	for (uint32_t i = first; i < first + count; i++)
		area->sectors[i].floor = version;
}

void area_durable(struct area *area, uint32_t first, uint32_t count)
{
	for (struct sector *s = area->sectors + first; s < area->sectors + first + count; s++)
		s->durable = s->floor;
}

void area_before(const struct area *area, uint32_t first, uint32_t count, struct before *before)
{
	for (uint32_t i = 0; i < count; i++) {
		/* In this order: a durable that is read first is the lower of the two. */
		before[i].durable = area->sectors[first + i].durable;
		before[i].floor = area->sectors[first + i].floor;
	}
}

static bool is_zero(const struct unit *unit)
{
	return unit->place == 0 && unit->version == 0;
}

static bool unit_allowed(const struct area *area, uint32_t sector, uint32_t floor, const struct unit *unit)
{
	const struct sector *s = &area->sectors[sector];
	uint32_t version = (uint32_t)unit->version;

	if (is_zero(unit))
		return s->zero >= floor;
	return unit->place == unit_of(area, sector, 0).place &&
	       (unit->version & ~UINT64_C(0xffffffff)) == VERSION_MARK && version >= floor && version <= s->ceil;
}

static void describe(const struct area *area, uint32_t sector, uint32_t floor, const struct unit *unit,
		     char message[256])
{
	const struct sector *s = &area->sectors[sector];
	char found[96] = "zeros";

	if ((unit->place & 0xffff000000000000u) == PLACE_MARK)
		snprintf(found, sizeof(found), "version %u of sector %u of area %u", (uint32_t)unit->version,
			 (uint32_t)unit->place, (uint32_t)(unit->place >> 32) & 0xffff);
	else if (!is_zero(unit))
		snprintf(found, sizeof(found), "%016llx %016llx", (unsigned long long)unit->place,
			 (unsigned long long)unit->version);
	snprintf(message, 256, "sector %u of area %u holds %s; expected %u to %u, zeros %u, durable %u", sector,
		 area->id, found, floor, s->ceil, s->zero, s->durable);
}

bool area_check(const struct area *area, uint32_t first, uint32_t count, const struct before *before, const void *data,
		bool doubt, char message[256])
{
	const struct unit *units = data;

	for (uint32_t i = 0; i < count; i++) {
		uint32_t floor = doubt ? before[i].durable : before[i].floor;

		for (size_t u = 0; u < UNITS; u++) {
			if (unit_allowed(area, first + i, floor, &units[i * UNITS + u]))
				continue;
			describe(area, first + i, floor, &units[i * UNITS + u], message);
			return false;
		}
	}
	return true;
}

void area_settle(struct area *area, uint32_t first, uint32_t count, const void *data)
{
	const struct unit *units = data;

	for (uint32_t i = 0; i < count; i++) {
		struct sector *s = &area->sectors[first + i];
		const struct unit *unit = &units[i * UNITS];
		uint32_t version = is_zero(unit) ? s->zero : (uint32_t)unit->version;

		s->zero = is_zero(unit) ? version : 0;
		s->floor = s->ceil = s->durable = version;
	}
}

void area_doubt(struct area *area)
{
	for (uint32_t i = 0; i < area->count; i++)
		area->sectors[i].floor = area->sectors[i].durable;
}

bool area_is_data(const struct area *area, uint32_t sector)
{
	const struct sector *s = &area->sectors[sector];
	uint32_t floor = s->floor;

	return floor == s->ceil && s->zero < floor;
}
