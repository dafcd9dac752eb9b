/* The leaf's lock. In the check build it knows its holder, so that what must be
 * called with it can say so in its first line. */
#ifndef LEAFDISK_IMAGE_LEAF_LOCK_H
#define LEAFDISK_IMAGE_LEAF_LOCK_H

#include <pthread.h>

#include "leaf.h"

static inline void leaf_lock(struct leaf *leaf)
{
	g_mutex_lock(&leaf->lock);
#ifdef LEAFDISK_FAULTS
	leaf->locked_by = (uintptr_t)pthread_self();
#endif
}

static inline void leaf_unlock(struct leaf *leaf)
{
#ifdef LEAFDISK_FAULTS
	leaf->locked_by = 0;
#endif
	g_mutex_unlock(&leaf->lock);
}

/* Lets the lock go until CONDITION is signalled. */
static inline void leaf_wait_relock(struct leaf *leaf, GCond *condition)
{
#ifdef LEAFDISK_FAULTS
	leaf->locked_by = 0;
#endif
	g_cond_wait(condition, &leaf->lock);
#ifdef LEAFDISK_FAULTS
	leaf->locked_by = (uintptr_t)pthread_self();
#endif
}

/* LEAF is this thread's alone from here on, until it is shared: it is loaded or
 * checked, and needs no lock. */
static inline void leaf_own(struct leaf *leaf)
{
#ifdef LEAFDISK_FAULTS
	leaf->owned_by = (uintptr_t)pthread_self();
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

static inline bool leaf_has_lock(const struct leaf *leaf)
{
#ifdef LEAFDISK_FAULTS
	uintptr_t self = (uintptr_t)pthread_self();

	return leaf->locked_by == self || leaf->owned_by == self;
#else
	(void)leaf;
	return true;
#endif
}

/* The first line of each function whose name ends in _locked or _relock. A
 * _relock lets the lock go in between: what was looked at before has to be looked
 * at again. */
#ifdef LEAFDISK_FAULTS
#define leaf_assert_locked(leaf) g_assert(leaf_has_lock(leaf))
#else
#define leaf_assert_locked(leaf) ((void)(leaf))
#endif

#endif
