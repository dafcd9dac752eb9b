/* The native layer in memory, shared by the files of this folder.
 *
 * What is stored: for every chunk that has a slot, a struct chunk in the hash
 * (virtual chunk -> chunk), in the ordered tree, and in the slot array (slot ->
 * chunk); whole chunks that read as zeros, as intervals; the state of every
 * slot. It follows the inverted table on disk, whose size is that of what is
 * allocated.
 *
 * Invariants (leaf_check_locked() checks 1 to 4 in the tests' build; 5 and 6 are of the
 * disk, and the tests of crashes hold them):
 *  1. hash[c] == k implies k->index == c and slots[k->slot].chunk == k; the tree
 *     has the same chunks.
 *  2. A chunk in the hash is in no zero interval.
 *  3. A slot has one state, and is in the list of that state (slots.c); it is
 *     free only when no punch and no transfer of it is under way.
 *  4. A chunk of the next record knows its place there, and the page that it is
 *     in is to be written.
 *  5. A block is present only after its data has been written; a record or
 *     page names it only when that data was flushed after.
 *  6. A slot is handed out again only when no table or record that may be
 *     durable names its last owner (NAMED, slots.c).
 *
 * Locking: LOCK guards everything below it in struct leaf; never held across
 * I/O. Commits are serial: one runs, the flushes that arrive meanwhile share
 * the next (commit.c). */
#ifndef LEAFDISK_IMAGE_LEAF_LEAF_H
#define LEAFDISK_IMAGE_LEAF_LEAF_H

#include "../driver.h"
#include "../file.h"
#include "core/intervals.h"
#include "core/lock.h"
#include "format/leaf.h"
#include "geometry.h"
#include "core/workers.h"

struct chunk {
	uint64_t index; /* virtual chunk, or LEAF_CHUNK_ZERO_LIST + n */
	uint64_t slot;
	uint32_t users;		 /* transfers in flight */
	uint32_t writers;	 /* those of them that write */
	uint32_t dirty_position; /* in leaf->dirty */
	bool dirty;		 /* changed by a hard write since the last commit */
	bool soft;		 /* has blocks of soft writes that no record or page names */
	bool dead;		 /* gone from the hash and its slot, which it pins until the last user is back */
	uint64_t bits[];	 /* presence words, then zero words */
};

/* slots.c has the transitions. */
enum slot_state {
	SLOT_FREE,    /* nothing names it, nothing is under way on it: may be handed out */
	SLOT_SPARE,   /* the same, and kept for the zero list */
	SLOT_TAKEN,   /* has an owner, of which nothing on disk knows */
	SLOT_NAMED,   /* has one, and a record or page that may be on disk says so */
	SLOT_FREED,   /* lost its owner; the next commit tells the disk */
	SLOT_FREEING, /* the commit under way tells the disk */
	SLOT_BUSY,    /* nothing names it any more, a punch or a transfer of it is under way */
	SLOT_STATES
};

struct slot {
	struct chunk *chunk; /* the owner, NULL unless TAKEN or NAMED */
	uint32_t pins;	     /* punches under way, and dead chunks with users */
	enum slot_state state;
};

/* A journal event that is not the state of a chunk. */
struct leaf_event {
	uint32_t type; /* LEAF_JOURNAL_ZERO or _UNZERO */
	uint64_t chunk;
	uint64_t count;
};

struct leaf_redo {
	uint64_t block;
	uint64_t blocks;
	uint64_t slot;
	uint64_t slot_block;
};

struct leaf_commit;

struct leaf {
	struct image image;
	struct image_file file;
	struct leaf_geometry geometry;
	uint64_t image_id;

#ifdef LEAFDISK_FAULTS
	_Atomic(pthread_t) owned_by; /* the thread that has all of the leaf, and needs no lock; 0: none */
#endif
	struct lock lock; /* taken as lock.h says */
	/* As on disk. It changes where a commit ends, from what that commit has
	 * written, and before the first of them. */
	struct leaf_header_ondisk header;
	uint64_t file_bytes;

	GHashTable *chunks;   /* uint64_t * (chunk->index) -> struct chunk */
	GTree *ordered;	      /* the same by index: what is next */
	GArray *slots;	      /* struct slot */
	uint64_t slots_max;   /* while loading: that a journal may name */
	uint64_t slots_asked; /* while loading: memory.c */
	GArray *free;	      /* uint64_t: the FREE slots, a stack */
	GArray *spare;	      /* uint64_t: SPARE */
	GArray *freed;	      /* uint64_t: FREED */
	GArray *freeing;      /* uint64_t: FREEING */
	struct intervals *zero;
	unsigned zero_promised; /* intervals that a batch under way may add */

	GPtrArray *dirty;	/* struct chunk: to be in the next record */
	GArray *events;		/* struct leaf_event */
	GArray *free_events;	/* uint64_t slots: FREE entries */
	GByteArray *page_dirty; /* per page: differs from the table on disk */
	GByteArray *page_place; /* per page: place of the current copy, 0 or 1 */
	GArray *page_epoch;	/* uint64_t, per page: of the current copy, 0: none yet */
	bool zero_dirty;	/* differs from the zero list on disk */
	bool checkpoint_due; /* the next commit must write the table back: a record that must not count may be there */
	GPtrArray *zero_slots;	/* struct chunk: slots of the zero list */
	unsigned zero_retiring; /* slots that a checkpoint under way replaces */

	uint64_t journal_position; /* file offset of the next record */
	uint64_t journal_sequence; /* of the next record */
	uint8_t *record;	   /* journal_bytes, aligned; NULL until the first commit */

	bool unflushed;		    /* transfers written since the last data flush began */
	struct list flushes;	    /* image_op: wait for the next commit */
	struct list applies;	    /* image_op: wait for a commit of their own */
	struct list resizes;	    /* image_op: the same */
	struct leaf_commit *commit; /* under way, or NULL */

	struct leaf_grow *grow; /* the grow command runs, or NULL */
	uint64_t full_bytes;	/* the size at which it was tried last */
	struct loop_work extension;
	bool extending;	       /* a background thread extends the file, or is about to */
	bool extended_in_vain; /* the last time */
	uint64_t page_room;    /* pages of the table, from the first on, whose room the file has */
	struct condition extended;
	struct list room_waiters; /* image_op */

	/* A redo slot that the file has room for, kept from the first batch on. */
	struct chunk *redo_reserve; /* NULL: none, or in use */
	bool redo_reserved;	    /* there is one, or a batch has it */

	GArray *redo; /* struct leaf_redo found at open, by block; their slots are in freed. Empty once it is written */
};

static inline struct leaf *leaf_of(struct image *image)
{
	return container_of(image, struct leaf, image);
}

static inline uint64_t *chunk_present(const struct leaf *leaf, struct chunk *chunk)
{
	(void)leaf;
	return chunk->bits;
}

static inline uint64_t *chunk_zero(const struct leaf *leaf, struct chunk *chunk)
{
	return chunk->bits + leaf->geometry.words;
}

/* Virtual chunks of the image's size. */
static inline uint64_t leaf_chunk_count(const struct leaf *leaf, uint64_t size_bytes)
{
	return (size_bytes >> leaf->geometry.chunk_shift) + ((size_bytes & (leaf->geometry.chunk_bytes - 1)) != 0);
}

/* Under LOCK, or while nobody else has the leaf. Orders of one claim only grow. */
static inline void leaf_note_progress(struct leaf *leaf, uint64_t progress)
{
	uint64_t known = le64_get(leaf->header.progress);

	leaf->header.progress = le64_of(MAX(known, progress));
	leaf->image.progress = MAX(known, progress);
}

/* The page of the table that SLOT is in. */
static inline uint64_t leaf_page_of(const struct leaf *leaf, uint64_t slot)
{
	return slot / leaf->geometry.entries_per_page;
}

#endif
