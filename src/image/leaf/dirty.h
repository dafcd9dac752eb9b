/* What the next commit writes. */
#ifndef LEAFDISK_IMAGE_LEAF_DIRTY_H
#define LEAFDISK_IMAGE_LEAF_DIRTY_H

#include "leaf.h"

/* Grows page_dirty, page_place and page_epoch to cover all slots. */
void leaf_pages_cover_locked(struct leaf *leaf);
void leaf_page_mark_dirty_locked(struct leaf *leaf, uint64_t slot);
void leaf_chunk_mark_dirty_locked(struct leaf *leaf, struct chunk *chunk);

void leaf_chunk_unmark_dirty_locked(struct leaf *leaf, struct chunk *chunk);
void leaf_event_locked(struct leaf *leaf, uint32_t type, uint64_t chunk, uint64_t count);
/* Everything is to be written again. */
void leaf_dirty_everything_locked(struct leaf *leaf);
/* What is dirty goes to TAKEN, which a commit writes; it comes back when that has
 * failed and the disk is as before. */
struct leaf_dirty {
	GArray *slots;	     /* uint64_t: of chunks */
	GArray *events;	     /* struct leaf_event */
	GArray *free_events; /* uint64_t */
};
void leaf_dirty_take_locked(struct leaf *leaf, struct leaf_dirty *taken);
void leaf_dirty_restore_locked(struct leaf *leaf, struct leaf_dirty *taken);
void leaf_dirty_clear(struct leaf_dirty *taken);

#endif
