/* Where the records of a log are: both sequences and distances from the tail rise along it. */
#include "places.h"

#include "cache/format/format.h"
#include "core/bisect.h"

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

static bool has_less_sequence(const void *places, unsigned position, uint64_t sequence)
{
	return record_at(places, position)->sequence < sequence;
}

static bool has_less_distance(const void *places, unsigned position, uint64_t distance)
{
	return distance_of(places, record_at(places, position)->slot) < distance;
}

uint64_t places_sequence_at(const struct places *places, uint64_t slot)
{
	unsigned position;

	if (slot >= places->ring_segments * CACHE_SEGMENT_BLOCKS)
		return 0;
	position = bisect(places, places->records->len, has_less_distance, distance_of(places, slot));
	if (position >= places->records->len || record_at(places, position)->slot != slot)
		return 0;
	return record_at(places, position)->sequence;
}

struct epoch_place places_of(const struct places *places, uint64_t order)
{
	unsigned position = bisect(places, places->records->len, has_less_sequence, order);
	const struct place_of_record *record;

	if (position >= places->records->len || record_at(places, position)->sequence != order)
		return (struct epoch_place){.slot = (uint32_t)places->tail_slot, .order = order};
	record = record_at(places, position);
	return (struct epoch_place){record->slot, record->blocks, order};
}
