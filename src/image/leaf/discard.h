/* Discard and zero: blocks that read as zeros from now on. */
#ifndef LEAFDISK_IMAGE_LEAF_DISCARD_H
#define LEAFDISK_IMAGE_LEAF_DISCARD_H

#include "leaf.h"

void leaf_zero(struct image *image, struct image_op *op);
/* A run of blocks: a part of chunk HEAD, whole chunks, the start of TAIL. */
struct leaf_zero_parts {
	uint64_t head;
	uint32_t head_first;
	uint32_t head_blocks;
	struct interval whole;
	uint64_t tail;
	uint32_t tail_blocks;
};
/* Of the blocks [FIRST, END); the image's last, partial chunk counts as whole. */
struct leaf_zero_parts leaf_zero_parts(const struct leaf *leaf, uint64_t first, uint64_t end);
/* The same for an image that ends at IMAGE_END. */
struct leaf_zero_parts leaf_zero_parts_of(const struct leaf *leaf, uint64_t first, uint64_t end, uint64_t image_end);
/* Blocks from END on, which no durable table names any more, go and are punched.
 * Blocks. */
void leaf_zero_cut(struct leaf *leaf, uint64_t end);
/* Whether chunks in [FIRST, END) may join the zero list: errors as for
 * leaf_spare_reserve_locked(). */
int leaf_zero_reserve_locked(struct leaf *leaf, uint64_t first, uint64_t end);
/* What the durable record of the commit under way says is zero becomes so in
 * memory, and is punched. Block. */
void leaf_zero_recorded_part(struct leaf *leaf, struct chunk *chunk, uint32_t first, uint32_t count);
void leaf_zero_recorded_chunks(struct leaf *leaf, struct interval chunks, bool bottom);
/* leaf_chunk_put_locked() of a writer; a chunk that is all zeros then loses its
 * slot and joins the zero list. */
void leaf_zero_put_locked(struct leaf *leaf, struct chunk *chunk, bool bottom);

#endif
