/* Who has a slot, and when it may be handed out again. */
#ifndef LEAFDISK_IMAGE_LEAF_SLOTS_H
#define LEAFDISK_IMAGE_LEAF_SLOTS_H

#include "leaf.h"

static inline struct slot *leaf_slot(const struct leaf *leaf, uint64_t slot)
{
	return &g_array_index(leaf->slots, struct slot, slot);
}
/* The chunk in SLOT, NULL: none. */
static inline struct chunk *leaf_slot_chunk(const struct leaf *leaf, uint64_t slot)
{
	return slot < leaf->slots->len ? leaf_slot(leaf, slot)->chunk : NULL;
}
static inline bool leaf_slot_is_named(const struct leaf *leaf, const struct chunk *chunk)
{
	return leaf_slot(leaf, chunk->slot)->state == SLOT_NAMED;
}
/* Grows slots to have SLOT, found on disk. */
void leaf_slots_cover_locked(struct leaf *leaf, uint64_t slot);

/* The slot enters STATE's list; the caller has taken it from that of the state before.
 * A pinned slot that is to be FREE is BUSY first. */
void leaf_slot_set_state_locked(struct leaf *leaf, uint64_t number, enum slot_state state);

struct chunk *leaf_chunk_new(const struct leaf *leaf, uint64_t index, uint64_t slot);

/* A new chunk INDEX has SLOT, which is in no list. */
struct chunk *leaf_slot_give_locked(struct leaf *leaf, uint64_t slot, uint64_t index);
/* A record or a page that has CHUNK's slot is made, to be written. */
void leaf_slot_name_locked(struct leaf *leaf, const struct chunk *chunk);
/* None that has it counts (any more). */
void leaf_slot_unname_locked(struct leaf *leaf, const struct chunk *chunk);
/* CHUNK loses its slot, which becomes STATE: FREED, FREEING, or FREE. */
void leaf_slot_release_locked(struct leaf *leaf, struct chunk *chunk, enum slot_state state);
/* The slot is not handed out before the last pin is gone. */
void leaf_slot_pin_locked(struct leaf *leaf, uint64_t slot);
void leaf_slot_unpin_locked(struct leaf *leaf, uint64_t slot);
/* What is FREED is told by the commit that begins; when it ends it is free, or
 * waits for the next. */
void leaf_slots_commit_begins_locked(struct leaf *leaf);
void leaf_slots_commit_ends_locked(struct leaf *leaf, bool durable);
/* CHUNK in its slot, found on disk, which has no owner. */
void leaf_slot_load(struct leaf *leaf, struct chunk *chunk);
void leaf_slot_unload(struct leaf *leaf, struct chunk *chunk);
/* After loading: slots with no owner become free, those of redo extents with
 * the next commit. */
void leaf_slots_find_free(struct leaf *leaf);

#endif
