/* Where the records of a log are that is read: from sequence to slot and back. */
#ifndef LEAFDISK_CACHE_PLACES_H
#define LEAFDISK_CACHE_PLACES_H

#include <glib.h>
#include <stdint.h>

#include "cache/index/epochs.h"
#include "format/cache.h"

struct places {
	uint64_t tail_slot;
	uint64_t ring_segments;
	GArray *records; /* struct place_of_record, in log order */
};
void places_init(struct places *places, const struct cache_super_ondisk *super);
void places_clear(struct places *places);

/* The next record; SLOT is its header's. */
void places_add(struct places *places, uint64_t sequence, uint64_t slot, unsigned blocks);
/* Of the last record. */
uint64_t places_last_sequence(const struct places *places);
/* Sequence of the record whose header is in SLOT; 0: there is none, the tail has passed it. */
uint64_t places_sequence_at(const struct places *places, uint64_t slot);
/* Behind all of the record with the sequence ORDER; at the tail, where that has passed it. */
struct epoch_place places_of(const struct places *places, uint64_t order);

#endif
