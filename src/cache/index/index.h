/* The index: what each slot of the log holds, and where each block is.
 *
 * One array entry of 24 bytes for each slot of the ring, hash chains through
 * the array, one bucket of 4 bytes for two slots and one counter of 4 bytes for
 * 64: 26.1 bytes for each slot, and no allocation after index_new(). A slot is empty, LIVE (the newest
 * content of its block, found by index_find()) or superseded (its key stays
 * known until the slot is cleared, because migration reads the log in order).
 *
 * More than fifteen functions, because chains, counters and slots are one structure.
 * Not locked: the cache's lock is held. */
#ifndef LEAFDISK_CACHE_INDEX_INDEX_H
#define LEAFDISK_CACHE_INDEX_INDEX_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/list.h"

#define INDEX_NO_SLOT UINT32_MAX

enum index_flags {
	INDEX_LIVE = 1 << 0,
	INDEX_PINNED = 1 << 1, /* nobody else has it; dirty where its layer is written back */
	INDEX_PROVEN = 1 << 2, /* its data has been checked, or was put by this process */
	INDEX_HOT = 1 << 3,    /* read since it was put or last moved */
	INDEX_LOST = 1 << 4,   /* pinned, and its data is damaged */
	INDEX_DATA = 1 << 5,   /* the slot holds a data block; clear: empty, or a record's header */
	INDEX_BUSY = 1 << 6,   /* a put that will supersede it is under way */
};

struct index_entry {
	uint32_t layer;
	uint64_t block;
	unsigned flags;
	uint32_t checksum; /* cache_checksum_short() of the data */
	uint64_t order;	   /* see format/cache.h */
};

struct index;

/* Pages that are never used are never touched. NULL and ERROR when the memory
 * cannot be mapped. */
struct index *index_new(uint64_t slots, GError **error);
void index_free(struct index *index);
/* More slots at the end. */
bool index_grow(struct index *index, uint64_t slots, GError **error);
/* What is mapped. */
uint64_t index_memory_bytes(const struct index *index);

/* The LIVE slot of the block, or INDEX_NO_SLOT. */
uint32_t index_find(const struct index *index, uint32_t layer, uint64_t block);
/* SLOT, which is empty, becomes the block's LIVE slot; the one that was it is
 * superseded. Returns that one, or INDEX_NO_SLOT. */
uint32_t index_insert(struct index *index, uint32_t slot, const struct index_entry *entry);
/* SLOT, which is empty, holds ENTRY, superseded already. */
void index_insert_superseded(struct index *index, uint32_t slot, const struct index_entry *entry);
/* The block's LIVE slot becomes superseded and is returned, or INDEX_NO_SLOT. */
uint32_t index_remove(struct index *index, uint32_t layer, uint64_t block);
/* Every LIVE slot of the range becomes superseded; REMOVED is told of each
 * (the entry as it was). In time proportional to the smaller of the range and
 * the index. */
void index_remove_range(struct index *index, uint32_t layer, uint64_t block, uint64_t blocks,
			void (*removed)(void *opaque, uint32_t slot, const struct index_entry *entry), void *opaque);
/* The blocks of the range with LIVE slots, sorted: uint64_t, g_array_unref. In time as that. */
GArray *index_list(const struct index *index, uint32_t layer, uint64_t block, uint64_t blocks);
/* How many blocks from BLOCK on, up to LIMIT, have consecutive LIVE slots from
 * SLOT on (the slot of BLOCK): one read serves them. Never crosses a segment. */
uint64_t index_run(const struct index *index, uint32_t slot, uint32_t layer, uint64_t block, uint64_t limit);
/* How many blocks from BLOCK on, up to LIMIT, have no LIVE slot. */
uint64_t index_gap(const struct index *index, uint32_t layer, uint64_t block, uint64_t limit);

/* index_gap() of a range that is longer than what the index has: all slots are
 * looked at, in pieces, between which the lock may be let go. A block that gets its
 * slot meanwhile, so one that moves too, counts. */
struct index_walk {
	uint32_t layer;
	uint64_t block;
	uint64_t gap; /* the answer, once the walk is done */
	uint64_t next;
	struct list link;
};
void index_walk_begin(struct index *index, struct index_walk *walk, uint32_t layer, uint64_t block, uint64_t limit);
/* One more piece. True: done. */
bool index_walk_on(const struct index *index, struct index_walk *walk);
/* Done or not. */
void index_walk_end(struct index_walk *walk);

void index_get(const struct index *index, uint32_t slot, struct index_entry *entry);
void index_set_checksum(struct index *index, uint32_t slot, uint32_t checksum);
void index_set_flags(struct index *index, uint32_t slot, unsigned set, unsigned clear);
/* SLOT becomes empty. */
void index_clear(struct index *index, uint32_t slot);

#endif
