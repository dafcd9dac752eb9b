/* A child and its parent: what each records of the other. */
#ifndef LEAFDISK_LAYER_PARENT_H
#define LEAFDISK_LAYER_PARENT_H

#include "layer/chain.h"

/* What a child of the image of INFO holds it to; PATH, which is taken over, is where it finds it. */
void parent_describe(const struct image_info *info, char *path, struct image_parent *parent);
/* Whether NOW is of the image that a child holds to EXPECTED, and that has not been changed since. */
bool parent_is_as_expected(const struct image_parent *expected, const struct image_info *now);
/* Whether PARENT is what CHILD was made of, or was told to accept. False and ERROR (ESTALE): the
 * sentence says what differs, and the command that accepts it. */
bool parent_is_the_same(const struct chain_link *child, const struct chain_link *parent, GError **error);
/* Of LINKS from FIRST on: another number where a layer is another file, or was written.
 * Does not block. */
uint64_t parent_stamp_of(const GPtrArray *links, guint first);
/* Whether the same file has not been written between the two looks at it. */
bool parent_is_unchanged(const struct chain_link *then, const struct chain_link *now);
/* The same of a parent of others, which NOW is told of: nothing but its mark differs. False where neither a
 * generation nor a stamp could tell. */
bool parent_is_only_marked(const struct chain_link *then, const struct image_info *now);
/* Each link below the leaf of LINKS that has no mark and lies in the pool gets one: children that
 * were made without it are known from then on. TOLD (NULL: none) says that the one with that index knows
 * its child already. Blocks. */
void parent_mark_chain(const GPtrArray *links, bool (*told)(void *opaque, guint index), void *opaque);

#endif
