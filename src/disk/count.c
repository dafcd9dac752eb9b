/* What a disk's requests move, find and take.
 *
 * A request gathers where the cache had its blocks, and adds it to the disk's counters, and to those of all, when
 * it is answered; one that begins anew gathers anew. Only its first and its last block can be read or written in
 * part; at the end of the disk a block is whole. */
#include "count.h"

#include <string.h>

#include "core/time.h"
#include "disk/stats.h"

/* From any loop. */
struct disk_count {
	_Atomic int64_t since_ns; /* CLOCK_REALTIME */
	_Atomic uint64_t counters[DISK_COUNTERS];
	struct histogram latency[DISK_KINDS];
};

const struct disk_counter_info disk_counter_table[DISK_COUNTERS] = {
#define X(name, unit, help) {#name, unit, help},
	DISK_COUNTER_LIST(X)
#undef X
};

const char *const disk_kind_names[DISK_KINDS] = {
#define X(symbol, name) name,
	DISK_KIND_LIST(X)
#undef X
};

/* Each hit class among the counters of all. */
static _Atomic uint64_t *const classes_of_all[] = {
#define X(name, unit, help) &counters.name,
	HIT_CLASS_LIST(X)
#undef X
};

#define FIRST_CLASS DISK_COUNTER_read_misses
#define PLACES (CACHE_IN_BUFFER + 1)
_Static_assert(G_N_ELEMENTS(classes_of_all) == 4 * PLACES, "reads and writes, of whole blocks and of parts");

static int64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return now.tv_sec * (int64_t)NS_PER_S + now.tv_nsec;
}

struct disk_count *count_new(void)
{
	struct disk_count *count = g_new0(struct disk_count, 1);

	count->since_ns = now_ns();
	return count;
}

/* ---- Blocks that a request has found ----------------------------------------------- */

/* Where IO ends on the disk, in bytes. */
static uint64_t end_of(const struct disk_io *io)
{
	uint64_t size = io->disk->size_bytes;

	return io->offset < size ? io->offset + MIN(io->length, size - io->offset) : size;
}

void count_begin(struct disk_io *io)
{
	uint64_t end = end_of(io);

	memset(io->found_whole, 0, sizeof(io->found_whole));
	memset(io->found_part, 0, sizeof(io->found_part));
	io->first_in_part = io->offset % BLOCK_SIZE;
	io->last_in_part = end % BLOCK_SIZE && end < io->disk->size_bytes;
}

static bool has_part_of(const struct disk_io *io, uint64_t block)
{
	return (io->first_in_part && block == io->first_block) ||
	       (io->last_in_part && block == io->first_block + io->blocks - 1);
}

/* Of the blocks at BLOCK, which ones are touched in part: the first, the last. */
static void find_parts(const struct disk_io *io, uint64_t block, uint64_t blocks, bool *first, bool *last)
{
	*first = has_part_of(io, block);
	*last = blocks > 1 && has_part_of(io, block + blocks - 1);
}

/* FOUND has BLOCKS, by their places. */
static void gather(struct disk_io *io, uint64_t block, uint64_t blocks, const struct cache_found *found)
{
	bool first, last;

	find_parts(io, block, blocks, &first, &last);
	for (unsigned place = 0; place < PLACES; place++)
		io->found_whole[place] += found->blocks[place];
	if (first) {
		io->found_whole[found->first]--;
		io->found_part[found->first]++;
	}
	if (last) {
		io->found_whole[found->last]--;
		io->found_part[found->last]++;
	}
}

void count_read(struct disk_io *io, uint64_t block, uint64_t blocks, enum layer_source source)
{
	static const enum cache_place places[] = {
		[LAYER_FROM_IMAGE] = CACHE_NOWHERE,
		[LAYER_FROM_LOG] = CACHE_IN_LOG,
		[LAYER_FROM_BUFFER] = CACHE_IN_BUFFER,
	};
	struct cache_found found = {.first = places[source], .last = places[source]};

	if (io->op != DISK_READ || blocks == 0)
		return;
	found.blocks[places[source]] = (uint32_t)blocks;
	gather(io, block, blocks, &found);
}

void count_put(struct disk_io *io, uint64_t block, uint64_t blocks, const struct cache_found *found)
{
	if (io->op == DISK_WRITE)
		gather(io, block, blocks, found);
}

/* What a write did not put over anything. */
static void gather_rest(struct disk_io *io)
{
	uint32_t *whole = io->found_whole, *part = io->found_part;
	bool first, last;

	find_parts(io, io->first_block, io->blocks, &first, &last);
	part[CACHE_NOWHERE] = first + last - part[CACHE_IN_LOG] - part[CACHE_IN_BUFFER];
	whole[CACHE_NOWHERE] = (uint32_t)io->blocks - first - last - whole[CACHE_IN_LOG] - whole[CACHE_IN_BUFFER];
}

/* ---- When it is answered ------------------------------------------------------------ */

static void add(_Atomic uint64_t *number, uint64_t n)
{
	atomic_fetch_add_explicit(number, n, memory_order_relaxed);
}

static void add_class(struct disk_count *count, unsigned class, uint32_t blocks)
{
	if (blocks == 0)
		return;
	add(&count->counters[FIRST_CLASS + class], blocks);
	add(classes_of_all[class], blocks);
}

static void add_classes(struct disk_count *count, const struct disk_io *io)
{
	unsigned class = io->op == DISK_READ ? 0 : 2 * PLACES;

	for (unsigned place = 0; place < PLACES; place++) {
		add_class(count, class + place, io->found_whole[place]);
		add_class(count, class + PLACES + place, io->found_part[place]);
	}
}

/* DISK_KINDS: it is not counted. */
static enum disk_kind kind_of(enum disk_op op)
{
	static const enum disk_kind kinds[] = {
		[DISK_READ] = DISK_KIND_READ,	 [DISK_WRITE] = DISK_KIND_WRITE, [DISK_DISCARD] = DISK_KIND_DISCARD,
		[DISK_ZERO] = DISK_KIND_DISCARD, [DISK_FLUSH] = DISK_KIND_FLUSH, [DISK_RESIZE] = DISK_KINDS,
		[DISK_GROW] = DISK_KINDS,
	};

	return kinds[op];
}

static void add_moved(struct disk_count *count, struct disk_io *io, int64_t result)
{
	if (io->op == DISK_READ)
		add(&count->counters[DISK_COUNTER_read_bytes], (uint64_t)result);
	else if (io->op == DISK_WRITE)
		add(&count->counters[DISK_COUNTER_write_bytes], (uint64_t)result);
	else if (kind_of(io->op) == DISK_KIND_DISCARD && io->offset < end_of(io))
		add(&count->counters[DISK_COUNTER_discard_bytes], end_of(io) - io->offset);
	if (io->op == DISK_WRITE && result > 0)
		gather_rest(io);
	if (io->op == DISK_READ || io->op == DISK_WRITE)
		add_classes(count, io);
}

void count_finished(struct disk_io *io, int64_t result)
{
	struct disk_count *count = io->disk->count;
	enum disk_kind kind = kind_of(io->op);

	if (kind < DISK_KINDS)
		histogram_add(&count->latency[kind], loop_now_ns() - io->submitted_ns);
	if (result < 0)
		add(&count->counters[DISK_COUNTER_errors], 1);
	else
		add_moved(count, io, result);
}

/* ---- What was counted ----------------------------------------------------------------- */

void disk_get_stats(struct disk *disk, struct disk_stats *stats)
{
	const struct disk_count *count = disk->count;

	*stats = (struct disk_stats){0};
	if (!count)
		return;
	stats->since.tv_sec = count->since_ns / (int64_t)NS_PER_S;
	stats->since.tv_nsec = count->since_ns % (int64_t)NS_PER_S;
	for (unsigned i = 0; i < DISK_COUNTERS; i++)
		stats->counters[i] = atomic_load_explicit(&count->counters[i], memory_order_relaxed);
	for (unsigned kind = 0; kind < DISK_KINDS; kind++)
		histogram_look(&count->latency[kind], &stats->latency[kind]);
}

void disk_reset_stats(struct disk *disk)
{
	struct disk_count *count = disk->count;

	if (!count)
		return;
	count->since_ns = now_ns();
	for (unsigned i = 0; i < DISK_COUNTERS; i++)
		atomic_store_explicit(&count->counters[i], 0, memory_order_relaxed);
	for (unsigned kind = 0; kind < DISK_KINDS; kind++)
		histogram_reset(&count->latency[kind]);
}
