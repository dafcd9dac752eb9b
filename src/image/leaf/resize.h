/* A resize under way: how the table, as a checkpoint writes it, differs from
 * the one in memory. */
#ifndef LEAFDISK_IMAGE_LEAF_RESIZE_H
#define LEAFDISK_IMAGE_LEAF_RESIZE_H

#include "discard.h"
#include "core/workers.h"

struct leaf_resize {
	struct image_op *op; /* its driver points here */
	uint64_t old_bytes;
	uint64_t new_bytes;
	struct leaf_zero_parts zeros; /* growth: blocks that hide what is below; empty: none */
	struct chunk *partial;	      /* pinned: has the part of them that is no whole chunk, or NULL */
	struct loop_work work;
	struct image_op room;
	int result;
};

/* All take a RESIZE of NULL: nothing changes. */

/* The size that the header is to say. */
uint64_t leaf_resize_size(const struct leaf *leaf, const struct leaf_resize *resize);
/* CHUNK with the bits that it is to have; false: it is in no slot any more. */
bool leaf_resize_encode_locked(const struct leaf *leaf, const struct leaf_resize *resize, struct chunk *chunk,
			       le64 *out);
/* The zero list as it is to be. To be freed. */
struct intervals *leaf_resize_zero_locked(const struct leaf *leaf, const struct leaf_resize *resize);
/* The pages of all that changes are to be written. */
void leaf_resize_mark_locked(struct leaf *leaf, const struct leaf_resize *resize);

/* The bytes past the end, SIZE_BYTES, in the last block become zeros. Blocks. 0 or -errno. */
int leaf_resize_clear_tail(struct leaf *leaf, uint64_t size_bytes);
/* The size is durable: memory follows, and what was cut off is punched. Blocks. */
void leaf_resize_settle(struct leaf *leaf, struct leaf_resize *resize);
/* Gives back what RESIZE holds. */
void leaf_resize_free_locked(struct leaf *leaf, struct leaf_resize *resize);

static inline struct leaf_resize *leaf_resize_of(struct image_op *op)
{
	return op->driver;
}

#endif
