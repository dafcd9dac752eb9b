/* What a crash in the middle of a batch left owed. All block. */
#ifndef LEAFDISK_IMAGE_LEAF_REDO_H
#define LEAFDISK_IMAGE_LEAF_REDO_H

#include "leaf.h"
#include "report.h"

/* After loading: in order of their blocks. Those that cannot be are damage. */
void leaf_redo_check(struct leaf *leaf, struct leaf_report *report);
/* Where the data of BLOCK is, whose own place is OFFSET: there, or in a redo
 * slot. *BLOCKS: cut to what is next to it. */
uint64_t leaf_redo_place(const struct leaf *leaf, uint64_t block, uint64_t offset, uint64_t *blocks);
/* Makes the copies; they are owed until a checkpoint is durable. 0 or -errno. */
int leaf_redo_copy(struct leaf *leaf);
/* Makes the copies and a checkpoint. 0 or -errno. */
int leaf_redo_finish(struct leaf *leaf);

#endif
