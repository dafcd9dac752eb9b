/* Changes of a disk's state that its migration brings. */
#ifndef LEAFDISK_MIGRATE_STATE_H
#define LEAFDISK_MIGRATE_STATE_H

#include "policy.h"

/* Does WORK, which is no batch, if it is still to be done; who opens or closes the
 * disk now is not waited for. Blocks. */
void state_work(struct disk *disk, enum work work);

/* Closes DISK's gate. False: something in work has no answer; it is tried again after
 * a while. Blocks, but not for long. */
bool state_try_close(struct disk *disk);

#endif
