/* Where the records of a log are: both sequences and distances from the tail rise along it. */
#include "places.h"

#include "cache/format/format.h"

struct place_of_record {
	uint64_t sequence;
	uint32_t slot;
	uint32_t blocks;
};

void places_init(struct places *places, const struct cache_super_ondisk *super)
{
	*places = (struct places){
		.tail_slot = le64_get(super->tail_segment) * CACHE_SEGMENT_BLOCKS,
		.ring_segments = le64_get(super->ring_segments),
		.records = g_array_new(FALSE, FALSE, sizeof(struct place_of_record)),
	};
}

void places_clear(struct places *places)
{
	g_clear_pointer(&places->records, g_array_unref);
}

static const struct place_of_record *record_at(const struct places *places, unsigned position)
{
	return &g_array_index(places->records, struct place_of_record, position);
}

void places_add(struct places *places, uint64_t sequence, uint64_t slot, unsigned blocks)
{
	struct place_of_record record = {sequence, (uint32_t)slot, blocks};

	g_array_append_val(places->records, record);
}

uint64_t places_last_sequence(const struct places *places)
{
	return places->records->len ? record_at(places, places->records->len - 1)->sequence : 0;
}

static uint64_t distance_of(const struct places *places, uint64_t slot)
{
	return cache_slot_distance(places->tail_slot, slot, places->ring_segments);
}

/* How many records are before the first one that is not before the KEY of it. */
static unsigned find(const struct places *places, uint64_t (*key_of)(const struct places *, unsigned), uint64_t key)
{
	unsigned low = 0, high = places->records->len;

	while (low < high) {
		unsigned middle = (low + high) / 2;

		if (key_of(places, middle) < key)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static uint64_t sequence_of(const struct places *places, unsigned position)
{
	return record_at(places, position)->sequence;
}

static uint64_t distance_at(const struct places *places, unsigned position)
{
	return distance_of(places, record_at(places, position)->slot);
}

uint64_t places_sequence_at(const struct places *places, uint64_t slot)
{
	unsigned position;

	if (slot >= places->ring_segments * CACHE_SEGMENT_BLOCKS)
		return 0;
	position = find(places, distance_at, distance_of(places, slot));
	if (position >= places->records->len || record_at(places, position)->slot != slot)
		return 0;
	return record_at(places, position)->sequence;
}

struct epoch_place places_of(const struct places *places, uint64_t order)
{
	unsigned position = find(places, sequence_of, order);
	const struct place_of_record *record;

	if (position >= places->records->len || sequence_of(places, position) != order)
		return (struct epoch_place){.slot = (uint32_t)places->tail_slot, .order = order};
	record = record_at(places, position);
	return (struct epoch_place){record->slot, record->blocks, order};
}
