/* Chunks in memory: find, allocate, remove. */
#ifndef LEAFDISK_IMAGE_LEAF_TABLE_H
#define LEAFDISK_IMAGE_LEAF_TABLE_H

#include "leaf.h"

struct chunk *leaf_chunk_find(struct leaf *leaf, uint64_t index);
/* The first chunk from INDEX on that has a slot, or NULL. */
struct chunk *leaf_chunk_from(struct leaf *leaf, uint64_t index);
/* Chunks, up to LIMIT, from INDEX on that have no slot; INDEX has none. */
uint64_t leaf_chunks_without_slot_locked(struct leaf *leaf, uint64_t index, uint64_t limit);
/* A new chunk in the lowest free slot: the blocks of a chunk that was in the
 * zero list are zero, others absent. NULL with *ERRNUM (-ENOSPC, -EAGAIN while
 * a block device may grow, -EFBIG). */
struct chunk *leaf_chunk_allocate_locked(struct leaf *leaf, uint64_t index, int *errnum);
/* The chunk at a known slot, when loading. NULL when the slot or the index is taken. */
struct chunk *leaf_chunk_load(struct leaf *leaf, uint64_t index, uint64_t slot);
/* Takes a chunk out again that was loaded. */
void leaf_chunk_unload(struct leaf *leaf, struct chunk *chunk);
/* Takes the chunk out of the table; its slot is free after the next commit, or at
 * once when nothing on disk names it. */
void leaf_chunk_remove_locked(struct leaf *leaf, struct chunk *chunk);
/* The same for a chunk that the record of the commit under way drops: its slot
 * is free when that ends. */
void leaf_chunk_drop_locked(struct leaf *leaf, struct chunk *chunk);
/* The same where what named its slot, if anything, does not count any more. */
void leaf_chunk_return_locked(struct leaf *leaf, struct chunk *chunk);
/* A transfer ends. */
void leaf_chunk_put_locked(struct leaf *leaf, struct chunk *chunk, bool writer);
bool leaf_chunk_is_empty(const struct leaf *leaf, struct chunk *chunk);
bool leaf_chunk_is_zero(const struct leaf *leaf, struct chunk *chunk);
void leaf_table_init(struct leaf *leaf);
void leaf_table_clear(struct leaf *leaf);

#endif
