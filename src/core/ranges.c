/* A map of whole numbers to ranks, as a sorted array of ranges.
 *
 * Binary search finds, one splice changes: what a range touches is built anew beside it. */
#include "core/ranges.h"

#include <glib.h>

#include "core/bisect.h"

struct piece {
	uint64_t first, end;
	uint64_t rank;
};

struct ranges {
	GArray *pieces; /* struct piece */
	GArray *built;	/* during a change */
};

struct ranges *ranges_new(void)
{
	struct ranges *ranges = g_new0(struct ranges, 1);

	ranges->pieces = g_array_new(FALSE, FALSE, sizeof(struct piece));
	ranges->built = g_array_new(FALSE, FALSE, sizeof(struct piece));
	return ranges;
}

void ranges_free(struct ranges *ranges)
{
	if (!ranges)
		return;
	g_array_free(ranges->pieces, TRUE);
	g_array_free(ranges->built, TRUE);
	g_free(ranges);
}

static const struct piece *piece_at(const struct ranges *ranges, unsigned position)
{
	return &g_array_index(ranges->pieces, struct piece, position);
}

static bool ends_by(const void *ranges, unsigned position, uint64_t value)
{
	return piece_at(ranges, position)->end <= value;
}

/* The first piece that ends behind VALUE. */
static unsigned find(const struct ranges *ranges, uint64_t value)
{
	return bisect(ranges, ranges->pieces->len, ends_by, value);
}

static void build(struct ranges *ranges, uint64_t first, uint64_t end, uint64_t rank)
{
	struct piece *last =
		ranges->built->len ? &g_array_index(ranges->built, struct piece, ranges->built->len - 1) : NULL;
	struct piece piece = {first, end, rank};

	if (first == end)
		return;
	if (last && last->end == first && last->rank == rank)
		last->end = end;
	else
		g_array_append_val(ranges->built, piece);
}

/* FIRST to END, of which everything before is built, with PIECE in it. */
static void build_over(struct ranges *ranges, const struct piece *piece, uint64_t first, uint64_t end, uint64_t rank)
{
	uint64_t from = MAX(first, piece->first), to = MIN(end, piece->end);

	build(ranges, first, from, rank);
	build(ranges, piece->first, from, piece->rank);
	build(ranges, from, to, MAX(rank, piece->rank));
	build(ranges, to, piece->end, piece->rank);
}

void ranges_raise(struct ranges *ranges, uint64_t first, uint64_t count, uint64_t rank)
{
	unsigned begin = find(ranges, first), position = begin;
	uint64_t end = first + count;

	if (!count)
		return;
	g_array_set_size(ranges->built, 0);
	for (; position < ranges->pieces->len && piece_at(ranges, position)->first < end; position++) {
		const struct piece *piece = piece_at(ranges, position);

		build_over(ranges, piece, first, end, rank);
		first = MIN(piece->end, end);
	}
	build(ranges, first, end, rank);
	if (position > begin)
		g_array_remove_range(ranges->pieces, begin, position - begin);
	g_array_insert_vals(ranges->pieces, begin, ranges->built->data, ranges->built->len);
}

uint64_t ranges_rank(const struct ranges *ranges, uint64_t value)
{
	unsigned position = find(ranges, value);
	const struct piece *piece = position < ranges->pieces->len ? piece_at(ranges, position) : NULL;

	return piece && piece->first <= value ? piece->rank : 0;
}
