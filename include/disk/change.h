/* What running disks are made of is exchanged: the only door to that.
 *
 *     disk_change_begin    nobody opens, closes or changes the disks meanwhile, and nothing of them is on its way
 *                          from the cache to the pool; they are open
 *         what is slow is prepared: files, images, shares
 *     disk_change_close    their gates close, and all that was acknowledged is in the leaves as they
 *                          are: of several disks at one instant
 *         disk_change_leaf puts a new leaf on each, disk_change_log a new log layer on an ephemeral one
 *     disk_change_open     their gates open
 *         what is slow is finished
 *     disk_change_end      keepers that have nothing to keep are closed
 *
 * A step that fails leaves the disks as they were, running. All of it blocks, on a thread that may
 * wait; GO_ON (NULL: yes) is asked several times a second, and false gives up. */
#ifndef LEAFDISK_DISK_CHANGE_H
#define LEAFDISK_DISK_CHANGE_H

#include <glib.h>

#include "disk/object.h"
#include "layer/layer.h"

struct disk_change {
	struct disk **disks;
	struct disk **keepers; /* of the leaves that were sealed; NULL: none yet */
	GPtrArray *held;       /* the leaves that they had, of which no batch begins */
	GPtrArray *used;       /* of these, those that nobody stands on, and which stay open; NULL: none */
	unsigned count;
	bool may_be_closed; /* they need not be open, nor well */
	bool (*go_on)(void *opaque);
	void *opaque;
};

/* CHANGE has its disks, which the caller has opened for writing unless they may be closed. False and ERROR. */
bool disk_change_begin(struct disk_change *change, GError **error);
/* False and ERROR: the gates are open. */
bool disk_change_close(struct disk_change *change, GError **error);
/* The leaf of disk INDEX is sealed, and its image is where SEALED says. LEAF, of seal_new_leaf(), is the disk's from
 * now on, on BELOW; on what was sealed where that is NULL. LEAF, BELOW and LINKS, the chain as it is then, are taken
 * over. */
void disk_change_leaf(struct disk_change *change, unsigned index, struct layer *leaf, GPtrArray *links,
		      struct chain_link *sealed, struct stack *below);
/* LAYER, a log layer of that many bytes, is the leaf of disk INDEX from now on, an ephemeral one, on STACK. Both are
 * taken over; what the disk had is the caller's. */
void disk_change_log(struct disk_change *change, unsigned index, struct layer *layer, struct stack *stack,
		     uint64_t size_bytes);
void disk_change_open(struct disk_change *change);
void disk_change_end(struct disk_change *change);

/* Whether DISK, which others have open, may be another than it is, with SIZE_BYTES. False and ERROR: unless LIVE says
 * that they know, or where the size would change. */
bool disk_may_go_back(const struct disk *disk, bool live, uint64_t size_bytes, GError **error);
#endif
