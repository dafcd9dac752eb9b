/* The head of the log: reservation of slots, entries, sealing. */
#ifndef LEAFDISK_CACHE_LOG_LOG_H
#define LEAFDISK_CACHE_LOG_LOG_H

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
};

/* Buffers and records. False and ERROR when memory runs out. */
bool log_init(struct cache *cache, GError **error);
void log_clear(struct cache *cache);
uint64_t log_memory_bytes(const struct cache *cache);

/* Reserves slots for up to LIMIT blocks, at least one; declares the layer
 * first where that is due. False: not now (buffers, records or segments are
 * used up, or the cache is suspended). */
bool log_reserve_locked(struct cache *cache, enum log_purpose purpose, struct cache_layer *layer,
			enum cache_entry_kind kind, uint64_t block, uint64_t limit, struct log_grant *grant);
/* The grant's slots and words are filled. */
void log_copied_locked(struct cache *cache, struct log_record *record);

/* The same for blocks that the open record has already: they are overwritten
 * in place. False: it does not have the first of them. */
bool log_overwrite_locked(struct cache *cache, struct cache_layer *layer, uint64_t block, uint64_t limit,
			  struct log_grant *grant);

/* Entries without data. False: not now. */
bool log_declare_locked(struct cache *cache, enum log_purpose purpose, struct cache_layer *layer);
/* With its zero ranges, which are nowhere else; again when that is not in the
 * log as a whole. */
bool log_declare_orphan_locked(struct cache *cache, enum log_purpose purpose, struct cache_layer *layer);
bool log_forget_locked(struct cache *cache, uint32_t layer, uint64_t block, uint64_t blocks);
bool log_drop_locked(struct cache *cache, uint32_t layer);
/* *PLACE: where the entry is. */
bool log_zero_locked(struct cache *cache, uint32_t layer, uint64_t block, uint64_t blocks, struct epoch_place *place);
/* The caller closes the record: nothing of the next epoch is in it. */
bool log_barrier_locked(struct cache *cache, enum log_purpose purpose, uint32_t layer, struct epoch_place *place);
/* KIND: CACHE_ENTRY_MIGRATE or _MIGRATED, of the barrier at PLACE. */
bool log_migrate_locked(struct cache *cache, enum cache_entry_kind kind, uint32_t layer, struct epoch_place place);

/* Closes the open record, if any, and seals what can be. */
void log_close_record_locked(struct cache *cache);
/* All that was reserved until now is to be written and flushed; the sequence
 * of its last record. */
uint64_t log_flush_locked(struct cache *cache);
/* Waits for that, lock released meanwhile. 0, or -errno when the cache is
 * suspended. */
int log_wait_durable_locked(struct cache *cache, uint64_t sequence);

/* RECORD is durable: its memory goes back. */
void log_release_record_locked(struct cache *cache, struct log_record *record);
/* One reference less. */
void log_put_buffer_locked(struct cache *cache, struct cache_buffer *buffer);

#endif
