/* The plan of a batch (plan.c), and what it becomes in a record. */
#ifndef LEAFDISK_IMAGE_LEAF_PLAN_H
#define LEAFDISK_IMAGE_LEAF_PLAN_H

#include "journal.h"

struct leaf_commit;

/* Blocks of one chunk that are treated alike. Its chunk is pinned. */
struct piece {
	struct chunk *chunk;
	uint32_t first; /* block in the chunk */
	uint32_t blocks;
	uint8_t *data;		 /* NULL: zeros */
	struct chunk *redo_slot; /* NULL: the data goes straight to its place */
	uint32_t redo_block;
};

struct apply_plan {
	struct leaf *leaf;
	bool bottom;
	GArray *pieces;	       /* struct piece */
	GArray *zeros;	       /* struct interval: whole chunks */
	GPtrArray *redo_slots; /* struct chunk */
	uint32_t redo_used;    /* blocks of the last redo slot */
	uint64_t owed_blocks;  /* in all redo slots */
	uint64_t entry_bytes;  /* of the batch in its record */
	uint64_t progress;     /* 0: none */
	unsigned promised;     /* intervals of the zero list that it may add */
	/* Ends the commit, once the record with the batch is durable or has failed. */
	void (*settle)(struct leaf_commit *commit, int result);
};

/* The plan of OP's batch: chunks and redo slots are taken, nothing is written
 * and nothing has changed for readers. Blocks. NULL with *RESULT: -EFBIG does
 * not fit the journal, -ENOSPC, -ENOMEM; -EAGAIN: after leaf_wait_room(). */
struct apply_plan *leaf_plan_new(struct leaf *leaf, const struct image_op *op, int *result);
/* What was taken and is not used goes back. UNCERTAIN: a record of the batch
 * may be on disk, and its copies owed, until the next commit. */
void leaf_plan_free_locked(struct apply_plan *plan, bool uncertain);
/* Bytes of the journal for the batch, with WAITING bytes of other entries and
 * the APPLIED record. */
uint64_t leaf_plan_journal_bytes(const struct apply_plan *plan, uint64_t waiting);

static inline struct piece *plan_piece(const struct apply_plan *plan, guint i)
{
	return &g_array_index(plan->pieces, struct piece, i);
}

/* Single-block extents of a batch that always fit a journal of that length. */
unsigned leaf_plan_extents_max(uint64_t journal_bytes);

/* Of OP, a batch that is prepared. */
struct apply_plan *leaf_plan_of(struct image_op *op);
/* False: a checkpoint has to make room first. */
bool leaf_plan_fits_locked(struct leaf *leaf, const struct apply_plan *plan);
void leaf_plan_add_entries(const struct apply_plan *plan, struct record_builder *builder);

#endif
