/* The table is written back and the journal starts anew. */
#ifndef LEAFDISK_IMAGE_LEAF_CHECKPOINT_H
#define LEAFDISK_IMAGE_LEAF_CHECKPOINT_H

#include "dirty.h"

struct leaf_checkpoint;
struct leaf_resize;
/* What is to be written, as of now, with RESIZE unless NULL; what is dirty goes
 * to TAKEN. NULL with *ERRNUM when the zero list finds no slot. */
struct leaf_checkpoint *leaf_checkpoint_prepare_locked(struct leaf *leaf, const struct leaf_resize *resize,
						       struct leaf_dirty *taken, int *errnum);
/* Pages, flush, header. Blocks; any thread. 0 or -errno; *HEADER_TOUCHED: the
 * header may have changed on disk. */
int leaf_checkpoint_write(struct leaf *leaf, struct leaf_checkpoint *checkpoint, bool *header_touched);
void leaf_checkpoint_done_locked(struct leaf *leaf, struct leaf_checkpoint *checkpoint);
/* It was not written: the header on disk is as before. */
void leaf_checkpoint_undo_locked(struct leaf *leaf, struct leaf_checkpoint *checkpoint);
void leaf_checkpoint_free(struct leaf_checkpoint *checkpoint);
/* Writes all of the table back. While nobody else has the image; blocks. 0 or -errno. */
int leaf_checkpoint_everything(struct leaf *leaf);

#endif
