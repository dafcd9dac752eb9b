/* How a disk's migration went. Who works on the disk says so. */
#ifndef LEAFDISK_MIGRATE_NOTE_H
#define LEAFDISK_MIGRATE_NOTE_H

#include "disk/object.h"

/* It is tried again after a while. REASON is a whole sentence, which names what it
 * is about; WHAT is one about the image, without the error. */
void note_failure(struct disk *disk, int error, const char *reason);
void note_errno(struct disk *disk, int error, const char *what);
void note_error(struct disk *disk, const GError *error);
void note_success(struct disk *disk);
/* It is tried again AFTER_NS or later. */
void note_pause(struct disk *disk, uint64_t after_ns);
/* For good. LOST: another has its image. */
void note_end(struct disk *disk, bool lost, const char *reason);

#endif
