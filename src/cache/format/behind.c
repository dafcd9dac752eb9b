/* What stands behind a break of the log.
 *
 * A candidate is a header that this cache wrote at its place, behind the break, with a higher
 * sequence and no lower generation than what is before it. Two kinds of those are not of the
 * log: what an earlier round of the ring left has lower sequences, and what a mount wrote
 * behind a record that a crash tore is void, as the next mount went on in the torn one's
 * place. The next mount's records say with which sequence it began, so a candidate of a lower
 * generation and not below that is void.
 *
 * The first record of a segment is at its beginning. So most segments are looked at there
 * only; the one with the break, the next one, and those before the record that the log goes on
 * with are looked at block by block. */
#include "behind.h"

#include <glib.h>
#include <stdlib.h>

#include "aio/file.h"
#include "format.h"
#include "headers.h"

struct candidate {
	uint64_t slot;
	uint64_t sequence;
	uint64_t generation;
	uint64_t mount_sequence;
	uint64_t durable;
	bool void_;
};

struct search {
	const struct behind_break *broken;
	GArray *candidates; /* struct candidate, in log order */
	uint8_t *data;	    /* of one segment */
	uint64_t present;   /* segments: a file that was cut off has no others */
};

static struct candidate *candidate_at(const struct search *search, guint i)
{
	return &g_array_index(search->candidates, struct candidate, i);
}

static bool is_valid_at(const struct search *search, const struct cache_record_ondisk *record, uint64_t slot)
{
	struct cache_record_place place = {
		.position = cache_slot_offset(slot),
		.cache_id = search->broken->cache_id,
		.generation = le64_get(record->generation),
		.sequence = le64_get(record->sequence),
		.previous = le64_get(record->previous),
	};

	return cache_record_validate(record, &place);
}

/* Of the very sequence where the mount that wrote it found something that it could not read:
 * it began in another place. */
static bool goes_on_elsewhere(const struct behind_break *broken, const struct candidate *candidate)
{
	return candidate->sequence == broken->sequence && candidate->generation > broken->generation &&
	       candidate->slot != broken->slot;
}

static bool may_follow(const struct behind_break *broken, const struct candidate *candidate)
{
	return goes_on_elsewhere(broken, candidate) ||
	       (candidate->sequence > broken->sequence && candidate->generation >= broken->generation);
}

static void consider(struct search *search, const struct cache_record_ondisk *record, uint64_t slot)
{
	struct candidate candidate = {
		.slot = slot,
		.sequence = le64_get(record->sequence),
		.generation = le64_get(record->generation),
		.mount_sequence = le64_get(record->mount_sequence),
		.durable = le64_get(record->durable),
	};

	if (may_follow(search->broken, &candidate) && is_valid_at(search, record, slot))
		g_array_append_val(search->candidates, candidate);
}

/* ---- Where to look --------------------------------------------------------- */

/* BLOCKS from SLOT on, within a segment. What cannot be read is passed over. */
static void scan_blocks(struct search *search, uint64_t slot, unsigned blocks)
{
	int fd = search->broken->fd;
	bool whole = aio_fd_read(fd, search->data, (size_t)blocks << BLOCK_SHIFT, cache_slot_offset(slot)) == 0;

	for (unsigned i = 0; i < blocks; i++) {
		uint8_t *block = search->data + ((size_t)i << BLOCK_SHIFT);

		if (whole || aio_fd_read(fd, block, BLOCK_SIZE, cache_slot_offset(slot + i)) == 0)
			consider(search, (const struct cache_record_ondisk *)block, slot + i);
	}
}

static void scan_segment(struct search *search, uint64_t segment)
{
	scan_blocks(search, segment % search->broken->ring_segments * CACHE_SEGMENT_BLOCKS, CACHE_SEGMENT_BLOCKS);
}

static void scan_some_beginnings(struct search *search, uint64_t segment, unsigned count)
{
	struct cache_segment_headers found[CACHE_HEADERS_BATCH];
	uint64_t ring = search->broken->ring_segments;

	cache_headers_read_first(search->broken->fd, segment, count, ring, found);
	for (unsigned i = 0; i < count; i++)
		if (found[i].headers->len)
			consider(search, found[i].headers->pdata[0], (segment + i) % ring * CACHE_SEGMENT_BLOCKS);
	cache_headers_clear(found, count);
}

static void scan_beginnings(struct search *search, uint64_t segment, uint64_t count)
{
	uint64_t ring = search->broken->ring_segments, step;

	for (uint64_t done = 0; done < count; done += step) {
		uint64_t at = (segment + done) % ring;

		step = MIN(count - done, at < search->present ? CACHE_HEADERS_BATCH : ring - at);
		if (at < search->present)
			scan_some_beginnings(search, at, (unsigned)step);
	}
}

/* Segments behind that of the break, up to the tail. */
static uint64_t segments_left(const struct behind_break *broken)
{
	uint64_t distance = cache_slot_distance(broken->tail_slot, broken->slot, broken->ring_segments);

	return broken->ring_segments - distance / CACHE_SEGMENT_BLOCKS - 1;
}

/* WHOLE of the segments behind that of the break are looked at block by block. */
static void scan(struct search *search, uint64_t whole)
{
	const struct behind_break *broken = search->broken;
	uint64_t segment = broken->slot / CACHE_SEGMENT_BLOCKS, left = segments_left(broken);

	g_array_set_size(search->candidates, 0);
	whole = MIN(whole, left);
	scan_blocks(search, broken->slot, CACHE_SEGMENT_BLOCKS - broken->slot % CACHE_SEGMENT_BLOCKS);
	for (uint64_t i = 1; i <= whole; i++)
		scan_segment(search, segment + i);
	scan_beginnings(search, segment + 1 + whole, left - whole);
}

/* ---- What is of the log ---------------------------------------------------- */

static int compare_generations(const void *left, const void *right)
{
	const struct candidate *const *a = left, *const *b = right;

	return ((*a)->generation < (*b)->generation) - ((*a)->generation > (*b)->generation);
}

static void mark_void(struct search *search)
{
	g_autoptr(GPtrArray) sorted = g_ptr_array_new();
	uint64_t generation = UINT64_MAX, began = UINT64_MAX, began_later = UINT64_MAX;

	for (guint i = 0; i < search->candidates->len; i++)
		g_ptr_array_add(sorted, candidate_at(search, i));
	g_ptr_array_sort(sorted, compare_generations);
	for (guint i = 0; i < sorted->len; i++) {
		struct candidate *candidate = sorted->pdata[i];

		if (candidate->generation < generation)
			began_later = MIN(began_later, began);
		generation = candidate->generation;
		candidate->void_ = candidate->sequence >= began_later;
		if (candidate->mount_sequence)
			began = MIN(began, candidate->mount_sequence);
	}
}

/* What has a record of a lower sequence or generation behind it is not of the log. */
static const struct candidate *choose(const struct search *search)
{
	uint64_t sequence = UINT64_MAX, generation = UINT64_MAX;
	const struct candidate *chosen = NULL;

	for (guint i = search->candidates->len; i-- > 0;) {
		const struct candidate *candidate = candidate_at(search, i);

		if (candidate->void_ || candidate->sequence >= sequence || candidate->generation > generation)
			continue;
		sequence = candidate->sequence;
		generation = candidate->generation;
		chosen = candidate;
	}
	return chosen;
}

static uint64_t durable_of(const struct search *search)
{
	uint64_t durable = 0;

	for (guint i = 0; i < search->candidates->len; i++)
		if (!candidate_at(search, i)->void_)
			durable = MAX(durable, candidate_at(search, i)->durable);
	return durable;
}

static void take(const struct search *search, const struct candidate *candidate, struct behind_found *found)
{
	uint8_t *header = g_malloc(BLOCK_SIZE);

	if (aio_fd_read(search->broken->fd, header, BLOCK_SIZE, cache_slot_offset(candidate->slot)) < 0) {
		g_free(header);
		return;
	}
	found->header = (struct cache_record_ondisk *)header;
	found->slot = candidate->slot;
}

/* The segments before the record that the log goes on with are looked at as a whole then. */
static void go_on(struct search *search, struct behind_found *found)
{
	const struct behind_break *broken = search->broken;
	const struct candidate *candidate = choose(search);
	uint64_t first = broken->slot / CACHE_SEGMENT_BLOCKS;
	uint64_t between;

	if (!candidate)
		return;
	between = (candidate->slot / CACHE_SEGMENT_BLOCKS + broken->ring_segments - first) % broken->ring_segments;
	if (between > 1) {
		scan(search, between);
		mark_void(search);
		candidate = choose(search);
	}
	if (candidate)
		take(search, candidate, found);
}

bool behind_look(const struct behind_break *broken, uint64_t known, struct behind_found *found)
{
	g_autoptr(GArray) candidates = g_array_new(FALSE, FALSE, sizeof(struct candidate));
	struct search search = {.broken = broken, .candidates = candidates};
	const struct candidate *next;
	bool damaged;

	*found = (struct behind_found){0};
	search.data = aligned_alloc(BLOCK_SIZE, CACHE_SEGMENT_BYTES);
	search.present = (uint64_t)aio_fd_size(broken->fd) / CACHE_SEGMENT_BYTES;
	scan(&search, 1);
	mark_void(&search);
	found->durable = MAX(durable_of(&search), known);
	next = choose(&search);
	damaged = found->durable >= broken->sequence || (next && goes_on_elsewhere(broken, next));
	if (damaged)
		go_on(&search, found);
	free(search.data);
	return damaged;
}
