/* Building, sealing and validating records of the cache's log. No I/O, no state;
 * nothing of a record is used before its validation. */
#ifndef LEAFDISK_CACHE_FORMAT_FORMAT_H
#define LEAFDISK_CACHE_FORMAT_FORMAT_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "format/cache.h"

/* Byte offset of a segment, and of a slot: slots number the 4 KiB blocks of
 * the ring, CACHE_SEGMENT_BLOCKS in each segment. */
static inline uint64_t cache_segment_offset(uint64_t segment)
{
	return CACHE_SEGMENTS_OFFSET + segment * CACHE_SEGMENT_BYTES;
}
static inline uint64_t cache_slot_offset(uint64_t slot)
{
	return CACHE_SEGMENTS_OFFSET + (slot << BLOCK_SHIFT);
}

/* An entry of a record. */
struct cache_entry {
	uint32_t layer;
	enum cache_entry_kind kind;
	uint64_t block;
	uint64_t blocks;     /* of what has data or a range */
	unsigned first_data; /* of what has data: which data block of the record BLOCK is */
	const le64 *words;
	unsigned word_count;
	const le64 *checksums; /* of what has data: one for each block */
	/* Of DIRTY, ZERO and BARRIER, moved or not; of MIGRATE and MIGRATED: of the barrier
	 * that they name, 0 in version 1. */
	uint64_t order;
	bool superseded; /* MOVED: no read finds it */
	bool damaged;	 /* MOVED: its data is not what was put */
	bool version_1;
};

/* CLEAN, DIRTY, MOVED. */
bool cache_kind_has_data(unsigned kind);
/* What is missed when its record is missing: all but CLEAN, DROP, LAST, and LAYER of a layer
 * that is not written back. CLEAN too where it mirrors what is written, as older copies may
 * be in the log. */
bool cache_entry_is_change(const struct cache_entry *entry);
bool cache_layer_is_change(const struct cache_layer_ondisk *layer);

/* Building: begin; add until there is no room; seal when the data is in place. */
void cache_record_begin(struct cache_record_ondisk *record);
/* Words that a new entry could still have; -1: no entry fits. */
int cache_record_room(const struct cache_record_ondisk *record);
/* A new entry's words, to be filled in; NULL when they do not fit. Those that are
 * checksums of data are counted in record->blocks. */
le64 *cache_record_add(struct cache_record_ondisk *record, uint32_t layer, enum cache_entry_kind kind, uint64_t block,
		       unsigned words);
/* One data block, CLEAN or DIRTY: extends the last entry where BLOCK continues it. The word
 * for its checksum; NULL when it does not fit. Counts it in record->blocks. */
le64 *cache_record_add_block(struct cache_record_ondisk *record, uint32_t layer, enum cache_entry_kind kind,
			     uint64_t block);
/* The same, MOVED: ORDER is that of the block, with the flags beside it. */
le64 *cache_record_add_moved(struct cache_record_ondisk *record, uint32_t layer, uint64_t block, uint64_t order);
/* The word of data block INDEX, and in *BLOCKS how many follow each other from
 * there on in one entry. */
le64 *cache_record_words(struct cache_record_ondisk *record, unsigned index, unsigned *blocks);
struct cache_record_place {
	uint64_t position;
	uint64_t cache_id;
	uint64_t generation;
	uint64_t sequence;
	uint64_t previous;
	uint64_t mount_sequence;
};
void cache_record_seal(struct cache_record_ondisk *record, const struct cache_record_place *place, uint64_t durable);

/* Whether RECORD is a header that this cache once wrote at POSITION. */
bool cache_record_is_intact(const struct cache_record_ondisk *record, uint64_t position, uint64_t cache_id);
/* Whether RECORD is a valid header that continues PLACE: position, cache id,
 * sequence and previous equal, generation not lower, durable below sequence,
 * inside the segment, and every entry well formed (kinds, ranges, words,
 * number of data blocks). */
bool cache_record_validate(const struct cache_record_ondisk *record, const struct cache_record_place *place);
/* CURSOR starts as 0. False after the last entry. Only on validated records. */
struct cache_cursor {
	unsigned offset;
	unsigned data;
};
bool cache_record_next(const struct cache_record_ondisk *record, struct cache_cursor *cursor,
		       struct cache_entry *entry);
/* What ENTRY, a LAYER, says, and its name; what version 1 does not know is zero. g_free. */
char *cache_entry_layer(const struct cache_entry *entry, struct cache_layer_ondisk *layer);
/* Whether data block INDEX of RECORD is DATA (4096 bytes). */
bool cache_record_check_data(const struct cache_record_ondisk *record, unsigned index, const void *data);

/* The checksum of one data block, and the half of it that memory keeps. */
uint64_t cache_data_checksum(const void *data);
static inline uint32_t cache_checksum_short(uint64_t checksum)
{
	return (uint32_t)checksum;
}

/* How far SLOT is behind slot FROM in log order. */
static inline uint64_t cache_slot_distance(uint64_t from, uint64_t slot, uint64_t ring_segments)
{
	return slot >= from ? slot - from : slot + ring_segments * CACHE_SEGMENT_BLOCKS - from;
}

/* Slot of the record after the one at SLOT with BLOCKS data blocks; SEGMENTS
 * in the ring. */
uint64_t cache_next_record_slot(uint64_t slot, unsigned blocks, uint64_t ring_segments);

#endif
