/* Counters: one list of name, unit and help text, from which the control
 * files, the metrics and the man page come. Incremented from any thread. */
#ifndef LEAFDISK_CORE_COUNTERS_H
#define LEAFDISK_CORE_COUNTERS_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

/* X(identifier, unit, help): where the cache had the blocks that guests read and write: each is in one of
 * these classes, in this order. Of what is written the cache may have had what it supersedes. */
#define HIT_CLASS_LIST(X)                                                                                              \
	X(read_misses, "blocks", "blocks read whole that the cache did not have")                                      \
	X(read_hits, "blocks", "blocks read whole that the cache had in its log")                                      \
	X(read_buffer_hits, "blocks", "blocks read whole that the cache had in its buffer")                            \
	X(read_part_misses, "blocks", "blocks read in part that the cache did not have")                               \
	X(read_part_hits, "blocks", "blocks read in part that the cache had in its log")                               \
	X(read_part_buffer_hits, "blocks", "blocks read in part that the cache had in its buffer")                     \
	X(write_misses, "blocks", "blocks written whole that the cache did not have")                                  \
	X(write_hits, "blocks", "blocks written whole that the cache had in its log")                                  \
	X(write_buffer_hits, "blocks", "blocks written whole that the cache had in its buffer")                        \
	X(write_part_misses, "blocks", "blocks written in part that the cache did not have")                           \
	X(write_part_hits, "blocks", "blocks written in part that the cache had in its log")                           \
	X(write_part_buffer_hits, "blocks", "blocks written in part that the cache had in its buffer")

/* X(identifier, unit, help) */
#define COUNTER_LIST(X)                                                                                                \
	X(read_requests, "requests", "read requests from the front end")                                               \
	X(read_bytes, "bytes", "bytes returned to read requests")                                                      \
	X(write_requests, "requests", "write requests from the front end")                                             \
	X(write_bytes, "bytes", "bytes taken from write requests")                                                     \
	X(flush_requests, "requests", "flushes asked for by the front end")                                            \
	X(discard_requests, "requests", "discard and zero requests from the front end")                                \
	HIT_CLASS_LIST(X)                                                                                              \
	X(unaligned_writes, "requests", "writes that needed a read-modify-write")                                      \
	X(range_waits, "requests", "requests that waited for an overlapping one")                                      \
	X(errors, "requests", "requests answered with an error")                                                       \
	X(aio_submits, "calls", "io_submit calls")                                                                     \
	X(aio_requests, "requests", "requests handed to the queue")                                                    \
	X(aio_merged, "requests", "requests merged into a neighbour")                                                  \
	X(aio_deferred, "requests", "requests that waited for room in the context")                                    \
	X(aio_retries, "requests", "requests tried again after a transient error")                                     \
	X(aio_continued, "requests", "requests continued after a short result")                                        \
	X(aio_cached, "requests", "requests served from the page cache at once")                                       \
	X(aio_cache_misses, "requests", "requests that the page cache was asked for in vain")                          \
	X(aio_offloaded, "requests", "requests served by a background thread")                                         \
	X(image_commits, "commits", "journal records written")                                                         \
	X(image_checkpoints, "checkpoints", "chunk tables written back")                                               \
	X(image_chunks_allocated, "chunks", "chunks allocated")                                                        \
	X(image_chunks_freed, "chunks", "chunks freed and punched")                                                    \
	X(cache_saved_bytes, "bytes", "bytes read from the cache and not from the pool")                               \
	X(cache_fetched_blocks, "blocks", "blocks read from a layer on their way into the cache")                      \
	X(cache_fetches_shared, "fetches", "reads that waited for another's fetch of the same block")                  \
	X(cache_bypasses, "reads", "reads of long sequential runs that did not fill the cache")                        \
	X(map_regions, "regions", "merged-map regions computed")                                                       \
	X(cache_hits, "blocks", "blocks read from the cache")                                                          \
	X(cache_misses, "blocks", "blocks of the pool asked of the cache that it did not have")                        \
	X(cache_put_blocks, "blocks", "blocks put into the cache")                                                     \
	X(cache_overwritten_blocks, "blocks", "blocks overwritten in the buffer, before they were written")            \
	X(cache_waits, "puts", "puts that found no room in the cache's log at the moment")                             \
	X(cache_records, "records", "records written to the cache's log")                                              \
	X(cache_record_bytes, "bytes", "bytes of these records")                                                       \
	X(cache_syncs, "flushes", "flushes of the cache's file")                                                       \
	X(cache_reclaimed_segments, "segments", "segments of the cache's log that were emptied")                       \
	X(cache_moved_blocks, "blocks", "blocks appended again when their segment was emptied")                        \
	X(cache_dropped_blocks, "blocks", "clean blocks dropped when their segment was emptied")                       \
	X(migrate_batches, "batches", "batches written back to the pool")                                              \
	X(migrate_blocks, "blocks", "blocks of these")                                                                 \
	X(cache_damaged_blocks, "blocks", "cached blocks found damaged or unreadable")

struct counters {
#define X(name, unit, help) _Atomic uint64_t name;
	COUNTER_LIST(X)
#undef X
};

struct counter_info {
	const char *name;
	const char *unit;
	const char *help;
	size_t offset;
};

/* Ends with a NULL name. */
extern const struct counter_info counter_table[];
/* The process's counters. */
extern struct counters counters;

uint64_t counter_value(const struct counter_info *info);
/* All count from 0 again. */
void counters_reset(void);

#define counter_add(name, n) atomic_fetch_add_explicit(&counters.name, (n), memory_order_relaxed)

#endif
