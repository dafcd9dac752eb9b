/* The leaf's lock, and the thread that needs none. */
#ifndef LEAFDISK_IMAGE_LEAF_LOCK_H
#define LEAFDISK_IMAGE_LEAF_LOCK_H

#include "leaf.h"

/* LEAF is this thread's alone from here on, until it is shared: it is loaded or
 * checked, and needs no lock. */
static inline void leaf_own(struct leaf *leaf)
{
#ifdef LEAFDISK_FAULTS
	leaf->owned_by = pthread_self();
#else
	(void)leaf;
#endif
}

static inline void leaf_share(struct leaf *leaf)
{
#ifdef LEAFDISK_FAULTS
	leaf->owned_by = 0;
#else
	(void)leaf;
#endif
}

/* The first line of each function whose name ends in _locked or _relock. A
 * _relock lets the lock go in between: what was looked at before has to be looked
 * at again. */
#ifdef LEAFDISK_FAULTS
#define leaf_assert_locked(leaf) g_assert(lock_is_mine(&(leaf)->lock) || (leaf)->owned_by == pthread_self())
#else
#define leaf_assert_locked(leaf) ((void)(leaf))
#endif

#endif
