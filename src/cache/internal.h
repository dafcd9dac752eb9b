/* The cache in memory, shared by the files of this folder that run in a mount.
 *
 * The log's head is one open record in a segment buffer. Who puts reserves
 * slots in it, copies without the lock, and publishes (content/put.c). A record
 * that takes no more is closed; when its copies are done and every record
 * before it is sealed it is sealed (log/log.c) and the writer's thread writes and
 * flushes it (writer/writer.c, writer/writeout.c). A third party, the reclaim thread, empties the oldest
 * segments and moves the tail (tail/reclaim.c, tail/move.c).
 *
 * Invariants:
 *  1. A LIVE slot's data is valid: in the buffer bound to its segment, or else
 *     in the file.
 *  2. A buffer stays bound to its segment while the head, a record that is not
 *     durable, or a reader needs it. So whatever is not durable is in memory,
 *     and writing it again repairs a failed write or flush.
 *  3. Records are sealed in the order of their sequence, which is the order
 *     of their slots' reservation.
 *  4. The segments from the tail to the head, in ring order, are in use; the
 *     others are free, and the durable superblock knows that they are. The
 *     head never becomes the tail.
 *  5. A segment is cleared only when it has no LIVE slot, no buffer and no
 *     readers.
 *  6. A segment with dirty blocks is not reclaimed: they leave it in their order,
 *     by migration (tail/batch.c), or where their image does not take them they are
 *     moved (tail/move.c).
 *  7. A block that is moved is the newest content of its block that the log
 *     has or will have before the move's own slot: a put in flight marks the
 *     slot it will supersede BUSY, and BUSY slots are not moved.
 *  8. What is counted of the cache, LIVE, pinned and dirty blocks, zero ranges and
 *     degraded layers, is the sum over its layers, and what its slots have.
 *  9. The order of dirty blocks, zero ranges and barriers of a layer is a number that
 *     they keep wherever they are. Above what its epochs say is scattered, it is their
 *     order in the log as well.
 * The tests' build checks them wherever a thread wakes (invariants.c).
 *
 * Locking: LOCK guards everything below it in struct cache, the index, the
 * layers and segments; never held across I/O. */
#ifndef LEAFDISK_CACHE_INTERNAL_H
#define LEAFDISK_CACHE_INTERNAL_H

#include <pthread.h>

#include "aio/queue.h"
#include "cache/cache.h"
#include "cache/index/index.h"
#include "cache/index/layers.h"
#include "core/lock.h"
#include "core/memory.h"
#include "core/time.h"
#include "cache/format/format.h"
#include "storage.h"

#define CACHE_BUFFERS_MAX 16
#define CACHE_RECORDS 256
/* Data blocks that fit in a segment. */
#define SEGMENT_DATA_BLOCKS (CACHE_SEGMENT_BLOCKS - 1)

struct cache_buffer {
	uint8_t *data; /* CACHE_SEGMENT_BYTES, page-aligned */
	uint64_t segment;
	unsigned first;	     /* blocks before are in the file only */
	unsigned references; /* 0: on the list of free ones */
	struct list link;
};

struct cache_segment {
	struct cache_buffer *buffer; /* bound to it, or NULL */
	uint64_t sequence;	     /* of its first record; 0: none sealed */
	uint64_t previous;	     /* checksum of the record before that */
	uint32_t readers;	     /* from the file */
	bool written;		     /* by this mount: see cache_file_of_locked() */
	uint32_t dirty;		     /* slots and zero ranges that their images do not have; see epochs.h */
};

/* A record from its beginning until it is durable. */
struct log_record {
	struct cache *cache;
	struct cache_buffer *buffer;
	uint64_t slot; /* of the header */
	uint64_t sequence;
	unsigned blocks; /* of data */
	unsigned copies; /* under way */
	enum { RECORD_UNWRITTEN, RECORD_WRITING, RECORD_WRITTEN } state;
	struct aio_request aio;
	struct list link; /* log.free, log.building or log.sealed */
};

/* Who appends: each may use up more of the free segments than the one before. */
enum log_purpose {
	LOG_PUT,
	LOG_ENTRY, /* what a layer or a put needs to be true after a restart */
	LOG_CLAIM, /* whose the dirty blocks of a layer are: it lets them go */
	LOG_BATCH, /* what of them goes to the image, and has gone */
	LOG_MOVE,  /* what empties the oldest segment */
};

/* log/log.c */
struct log {
	uint64_t generation;
	uint64_t cache_id;
	uint64_t head_slot;	 /* of the open record, or of the next */
	uint64_t next_sequence;	 /* of the next record */
	uint64_t previous;	 /* checksum of the last sealed record */
	uint64_t durable;	 /* every record up to this sequence is */
	uint64_t mount_sequence; /* of this mount's first record */
	struct list changed;	 /* layers that records have changed, the last one first */
	struct log_record *open;
	struct list free;
	struct list building; /* not sealed: closed ones, then the open one */
	struct list sealed;   /* not durable */
	unsigned settling;    /* who waits until what was closed is sealed */
	unsigned free_records;
	struct list free_buffers;
	unsigned free_buffer_count;
	struct log_record records[CACHE_RECORDS];
	struct cache_buffer buffers[CACHE_BUFFERS_MAX];
	unsigned buffer_count;
	void *memory; /* the buffers' */
};

/* writer/writer.c */
enum writer_state {
	WRITER_GOOD,
	WRITER_FAILED, /* waits for the time to try again, and for what is under way */
	WRITER_TRYING, /* writes again all that is not durable */
};
struct writer {
	enum writer_state state;
	bool stop;
	bool posted;
	bool held; /* what would wake the thread is noted in `wanted` */
	bool wanted;
	bool syncing;
	unsigned writes;       /* under way */
	uint64_t sync_covers;  /* what the flush under way will have made durable */
	uint64_t sync_wanted;  /* sequence that somebody waits for */
	uint64_t seal_at_ns;   /* 0: nothing to seal */
	uint64_t sync_at_ns;   /* 0: nothing to flush */
	uint64_t next_look_ns; /* when the thread wakes by itself; UINT64_MAX: not */
	uint64_t retry_at_ns;  /* FAILED */
	uint64_t retry_ns;     /* between tries */
	uint64_t progress_ns;  /* last answer, while something is under way */
	struct aio_request sync;
	/* Constant, or the thread's own. */
	struct relay *relay; /* its thread */
	struct loop *loop;
	struct aio_queue *queue;
	struct loop_task task;
	struct loop_timer timer;
	bool stopped;
};

/* tail/reclaim.c */
struct reclaim {
	pthread_t thread;
	struct condition wanted;
	bool stop;
	bool waiting; /* for a reader or a put: tell `changed` */
	bool super_failed;
	unsigned unreadable; /* pinned blocks of the segment that is being emptied, and tries */
	uint64_t segment;    /* the next to be emptied; from the tail up to it they are empty */
	uint8_t *data;	     /* one segment */
};

struct cache {
	/* Constant while threads run. */
	struct cache_storage storage;
	uint64_t segment_count;
	uint64_t grow_bytes; /* what the file is to have before its superblock is written; 0: it has */
	bool started;
	bool stopped;

	/* The reclaim thread's; before it starts and after it ends, cache.c's. */
	struct cache_super_ondisk super;

	struct lock lock;
	struct condition changed; /* durability, seals (log.settling), state, buffers; see reclaim.waiting */
	struct index *index;
	struct layers *layers;
	struct cache_segment *segments;
	struct memory_spare batch_spare; /* tail/batch.c: a batch's data */
	struct memory_spare read_spare;	 /* tail/batch_data.c: what is read of the file for it */
	uint64_t ring_segments;
	bool growing; /* a superblock with a longer ring is being written: no wrap now */
	uint64_t tail_segment;
	uint64_t live_blocks;
	uint64_t pinned_blocks;
	uint64_t pinned_pending; /* reserved by puts that are not published */
	uint64_t dirty_blocks;	 /* LIVE ones */
	uint64_t dirty_slots;	 /* with those that were superseded since, and reserved ones */
	uint64_t dirty_zeros;	 /* zero ranges */
	uint64_t dirty_max;	 /* blocks; 0: what the log holds */
	bool owes;		 /* barriers or MIGRATED are not in the log; see cache_dirty_catch_up_locked() */
	bool owes_barriers;
	uint64_t barrier_deadline_ns;
	struct list flushes;   /* cache_flush, in order of their sequence */
	struct condition work; /* for who migrates: see cache_wait_work() */
	bool kicked;
	struct log log;
	struct writer writer;
	struct reclaim reclaim;
	struct list waiters;
	unsigned degraded_layers;
	GArray *drops;		    /* uint32_t: ids of which the log could not be told that they are dropped */
	unsigned incomplete_layers; /* when it was opened */

	enum cache_state state;
	bool silent;	     /* SUSPENDED: the file does not answer */
	struct list watched; /* cache_watch, the oldest first; see watch.c */
	bool watching;	     /* somebody was, since the writer's thread looked */
	char reason[256];
	struct timespec since;
	struct {
		uint64_t looked_ns;    /* last, at the file */
		bool wanted;	       /* soon again */
		struct timespec since; /* it was found to have no name any more; 0: it has one */
	} removed;
	int failure;   /* -errno; SUSPENDED */
	bool announce; /* the last change of state is not in the log yet */
	bool damage_logged;
#ifdef LEAFDISK_FAULTS
	uint64_t checks; /* cache_check_locked() */
#endif
};

/* The first line of each function that is called with the lock held: _locked keeps it,
 * _relock lets it go in between, so that anything may have changed. */
#define cache_assert_locked(cache) lock_assert_mine(&(cache)->lock)

static inline uint64_t segment_of(uint64_t slot)
{
	return slot / CACHE_SEGMENT_BLOCKS;
}
static inline unsigned block_in_segment(uint64_t slot)
{
	return (unsigned)(slot % CACHE_SEGMENT_BLOCKS);
}
/* The file that has SLOT's data. */
static inline struct aio_file *cache_file_of_locked(struct cache *cache, uint64_t slot)
{
	bool kept = cache->storage.keeps && !cache->segments[segment_of(slot)].written;

	cache_assert_locked(cache);
	return kept ? &cache->storage.kept : &cache->storage.aio;
}
/* Where SLOT is in a buffer that holds its segment. */
static inline uint8_t *slot_data(uint8_t *segment, uint64_t slot)
{
	return segment + ((size_t)block_in_segment(slot) << BLOCK_SHIFT);
}

#endif
