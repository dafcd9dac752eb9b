/* Room for slots: the file is extended ahead of use. */
#ifndef LEAFDISK_IMAGE_LEAF_ROOM_H
#define LEAFDISK_IMAGE_LEAF_ROOM_H

#include "leaf.h"

/* Calls OP's done when it may be worth to try again, or with the error that kept
 * the file from being extended. */
void leaf_wait_room(struct image *image, struct image_op *op);
/* Whether the file reaches to the end of SLOT, and has the room for its page. */
bool leaf_room_covers_locked(const struct leaf *leaf, uint64_t slot);
/* True: the file is to be extended ahead of use: leaf_room_ahead() follows,
 * without the lock. */
bool leaf_room_ahead_locked(struct leaf *leaf);
void leaf_room_ahead(struct leaf *leaf);
/* Those that wait try again, or get RESULT. */
void leaf_room_came_locked(struct leaf *leaf, int result);
/* Extends the file from a background thread that needs a slot to go on. 0, or why
 * there is no room; -EAGAIN: another extends the file, or a command the device. */
int leaf_room_extend_relock(struct leaf *leaf);
/* While nobody else has the image: extends the file for the next slot. Blocks. 0
 * or -errno. */
int leaf_room_extend(struct leaf *leaf);
/* Before the leaf is freed. Blocks, for the kernel only. */
void leaf_room_settle(struct leaf *leaf);

#endif
