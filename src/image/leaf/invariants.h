/* The invariants of leaf.h that memory shows, checked in the tests' build where a commit
 * ends and where the image is closed. */
#ifndef LEAFDISK_IMAGE_LEAF_INVARIANTS_H
#define LEAFDISK_IMAGE_LEAF_INVARIANTS_H

#include "leaf.h"

#ifdef LEAFDISK_FAULTS
/* NULL, or which invariant does not hold: "3: ...". */
const char *leaf_find_breach_locked(struct leaf *leaf);
/* Aborts where one does not hold. */
void leaf_check_locked(struct leaf *leaf);
#else
static inline void leaf_check_locked(struct leaf *leaf)
{
	(void)leaf;
}
#endif

#endif
