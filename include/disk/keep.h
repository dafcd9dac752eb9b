/* An ephemeral disk becomes an image.
 *
 * What the log has of it is copied to a new image in rounds, while guests write: what a round was about is sealed
 * (saved.h), and what came meanwhile is the next one's. The rest is copied behind the gate. All of it blocks, on
 * threads that may wait. */
#ifndef LEAFDISK_DISK_KEEP_H
#define LEAFDISK_DISK_KEEP_H

#include <glib.h>

#include "disk/object.h"
#include "layer/logs.h"

struct disk_keep {
	struct disk *disk;   /* the caller has it open for writing */
	struct image *image; /* a new child of its uppermost image, for this alone */
	bool (*go_on)(void *opaque);
	void *opaque;
	struct logs *copied; /* NULL at first */
	unsigned rounds;     /* 0 at first */
};

/* All but a little of the disk is in the image. False and ERROR: EBUSY, it is written faster than that. */
bool disk_keep_most(struct disk_keep *keep, GError **error);
/* So little is left that guests can wait for it. Who knows it before nobody else changes the disk any more asks again.
 */
bool disk_keep_is_little(const struct disk_keep *keep);
/* Behind the closed gate (change.h): all of it is, durably, with the disk's size. False and ERROR. */
bool disk_keep_rest(struct disk_keep *keep, GError **error);
void disk_keep_clear(struct disk_keep *keep);

/* Behind the closed gate: DISK, an ephemeral one, is what LINKS say from now on, in MODE, open for writing. LINKS are
 * taken over. False and ERROR: it is as it was. */
bool disk_become(struct disk *disk, GPtrArray *links, enum disk_mode mode, GError **error);

#endif
