/* The head of the log: its buffers and records, from the first entry until they are
 * durable. */
#ifndef LEAFDISK_CACHE_LOG_LOG_H
#define LEAFDISK_CACHE_LOG_LOG_H

#include "cache/internal.h"

/* Buffers and records. False and ERROR when memory runs out. */
bool log_init(struct cache *cache, GError **error);
void log_clear(struct cache *cache);
uint64_t log_memory_bytes(const struct cache *cache);

/* RECORD's header, in its buffer. */
static inline struct cache_record_ondisk *log_header_of(const struct log_record *record)
{
	return (struct cache_record_ondisk *)slot_data(record->buffer->data, record->slot);
}
/* Data blocks that RECORD's segment has room for. */
unsigned log_blocks_left(const struct log_record *record);

/* The open record, or a new one. NULL: not now (buffers, records or segments are used
 * up, or the cache is suspended). */
struct log_record *log_open_record_locked(struct cache *cache, enum log_purpose purpose);
/* RECORD, which is open, will change LAYER by an entry of WORDS: it says which record did so
 * before. False: it has no room for both. */
bool log_change_locked(struct cache *cache, struct log_record *record, struct cache_layer *layer, unsigned words);
/* RECORD, which is open, is closed if it takes nothing more. */
void log_close_if_full_locked(struct cache *cache, struct log_record *record);
/* One copy into RECORD is done: a grant's slots and words are filled. */
void log_copied_locked(struct cache *cache, struct log_record *record);
/* Closes the open record, if any, and seals what can be. */
void log_close_record_locked(struct cache *cache);
/* All that was reserved until now is to be written and flushed; the sequence
 * of its last record. */
uint64_t log_flush_locked(struct cache *cache);
/* Waits for that, lock released meanwhile. 0, or -errno when the cache is
 * suspended. */
int log_wait_durable_relock(struct cache *cache, uint64_t sequence);

/* RECORD is durable: its memory goes back. */
void log_release_record_locked(struct cache *cache, struct log_record *record);
/* One reference less. */
void log_put_buffer_locked(struct cache *cache, struct cache_buffer *buffer);

#endif
