/* Data in the log: slots of the open record, reserved and then filled by whoever puts. */
#ifndef LEAFDISK_CACHE_LOG_DATA_H
#define LEAFDISK_CACHE_LOG_DATA_H

#include "cache/internal.h"

/* Consecutive data slots in one record, to be filled and then given to
 * log_copied_locked(). */
struct log_grant {
	struct log_record *record;
	uint32_t layer; /* its id then */
	uint64_t block;
	unsigned blocks;
	uint32_t slot;
	uint8_t *data; /* slot's place in the buffer */
	le64 *words;   /* for the blocks' checksums */
	uint64_t order;
};

/* Reserves slots for up to LIMIT blocks, at least one; declares the layer
 * first where that is due. False: not now (buffers, records or segments are
 * used up, or the cache is suspended). */
bool log_reserve_locked(struct cache *cache, enum log_purpose purpose, struct cache_layer *layer,
			enum cache_entry_kind kind, uint64_t block, uint64_t limit, struct log_grant *grant);
/* The same for one block of LAYER that moves, DIRTY with ORDER and the flags beside it. */
bool log_reserve_moved_locked(struct cache_layer *layer, uint64_t block, uint64_t order, struct log_grant *grant);
/* The same for blocks that the open record has already: they are overwritten
 * in place. False: it does not have the first of them. */
bool log_overwrite_locked(struct cache *cache, struct cache_layer *layer, uint64_t block, uint64_t limit,
			  struct log_grant *grant);

#endif
