/* What a layer that is written back has in the log and not yet in its image:
 * where its dirty blocks begin, and its zero ranges and barriers, by their order.
 *
 * The dirty blocks themselves are in the index: slots of the layer that are
 * PINNED, LIVE or superseded. Barriers that follow each other closely are kept
 * as one, so their number stays far below that of slots.
 *
 * Not locked: the cache's lock is held. */
#ifndef LEAFDISK_CACHE_INDEX_EPOCHS_H
#define LEAFDISK_CACHE_INDEX_EPOCHS_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/intervals.h"

/* A point between two data blocks of the log: behind BLOCKS data blocks of the
 * record whose header is in SLOT, and whose sequence is ORDER. Of one layer no two epochs
 * end in one record. */
struct epoch_place {
	uint32_t slot;
	uint32_t blocks;
	uint64_t order;
};

static inline bool epoch_place_equal(struct epoch_place one, struct epoch_place other)
{
	return one.order == other.order;
}

struct epoch_event {
	struct epoch_place place;
	bool moved;	    /* its place is not where it was put */
	uint64_t put;	    /* epochs.put then */
	uint64_t block;	    /* of a zero range */
	uint64_t blocks;    /* 0: a barrier */
	uint64_t oldest_ns; /* of a barrier: what follows it is younger than this */
	uint64_t barriers;  /* that it stands for */
	/* The log may have barriers between this order and its place, which it stands for; not
	 * later than those of what follows. Of a zero range: its own order, or that of what follows. */
	uint64_t first;
};

static inline bool epoch_event_is_barrier(const struct epoch_event *event)
{
	return event->blocks == 0;
}

struct epochs {
	GArray *events; /* struct epoch_event */
	bool any;	/* FIRST is valid */
	uint32_t first; /* slot: no dirty block of the layer is before it, and not before the tail */
	uint64_t dirty; /* slots that are dirty, or reserved for it */
	uint64_t put;	/* blocks and zero ranges ever put, for distances */
	uint64_t done;	/* PUT at the last barrier that the image has */
	uint64_t zeros; /* events that are zero ranges */
	/* 0: nothing is dirty, loop_now_ns() otherwise. */
	uint64_t oldest_ns;
	/* The end of the batch that the image may have already; the next one
	 * ends there or later. */
	bool begun;
	bool begun_logged; /* a MIGRATE says so */
	bool begun_ahead;  /* and no batch has been taken since: the image does not have it */
	struct epoch_place begun_place;
	uint64_t begun_segment; /* of that MIGRATE */
	/* Orders up to this may be anywhere in the log, as what has them was moved; behind
	 * it, what is dirty stands in the log in its order. 0: all does. */
	uint64_t scattered;
	/* What the log could not take yet, or need not while it has little room. */
	bool owes_barrier; /* the last event, which has the place of the next record */
	bool owes_migrated;
	bool migrated_scattered; /* what is newer of a block may be before what is older, and go first */
	struct epoch_place migrated_place;
};

struct epochs *epochs_new(void);
void epochs_free(struct epochs *epochs); /* NULL is allowed */
uint64_t epochs_memory_bytes(const struct epochs *epochs);

bool epochs_is_empty(const struct epochs *epochs);
/* BLOCKS dirty slots from SLOT on are reserved, in log order. */
void epochs_add_blocks(struct epochs *epochs, uint32_t slot, unsigned blocks, uint64_t now_ns);
void epochs_add_zero(struct epochs *epochs, struct epoch_place place, uint64_t block, uint64_t blocks, uint64_t now_ns);
void epochs_add_barrier(struct epochs *epochs, struct epoch_place place, uint64_t now_ns);
/* As recovery finds them in the log: the last event that was added was moved; a barrier
 * that was, anywhere among the others. */
void epochs_note_moved(struct epochs *epochs);
void epochs_add_moved_barrier(struct epochs *epochs, struct epoch_place place, uint64_t now_ns);
/* And once all are there they are in order. Distances are counted anew then: begin, each
 * dirty block once, end. */
void epochs_sort(struct epochs *epochs);
void epochs_count_block(struct epochs *epochs, uint64_t order);
void epochs_end_count(struct epochs *epochs);
/* Something came since the last barrier. */
bool epochs_is_open(const struct epochs *epochs);
/* Blocks and zero ranges since the last barrier. */
uint64_t epochs_open_blocks(const struct epochs *epochs);
/* An epoch with something in it is complete. */
bool epochs_has_barrier(const struct epochs *epochs);

/* Those of ZEROS that are dirty still; NULL: none. ZEROS is freed. */
struct intervals *epochs_keep_zeros(const struct epochs *epochs, struct intervals *zeros);
/* The number of epochs, with the one that is not complete yet. */
uint64_t epochs_count(const struct epochs *epochs);

/* What has an order up to ORDER is not where it was put. */
void epochs_scatter(struct epochs *epochs, uint64_t order);
/* The first event that is not before ORDER; the number of events: there is none. */
unsigned epochs_find(const struct epochs *epochs, uint64_t order);
/* No epoch ends between two orders, of which OLDER is not the higher one, whatever a
 * recovery makes of the log's barriers. False: one does, or that cannot be told. */
bool epochs_is_one_epoch(const struct epochs *epochs, uint64_t older, uint64_t newer);

unsigned epochs_length(const struct epochs *epochs);
const struct epoch_event *epochs_get(const struct epochs *epochs, unsigned position);
struct epoch_event *epochs_at(struct epochs *epochs, unsigned position);
/* The first COUNT events and the SLOTS dirty slots before END are in the image. */
void epochs_remove(struct epochs *epochs, unsigned count, uint64_t slots, struct epoch_place end, uint64_t put);

#endif
