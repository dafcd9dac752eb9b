/* How a layer's migration went. Who works on the layer says so. */
#ifndef LEAFDISK_MIGRATE_NOTE_H
#define LEAFDISK_MIGRATE_NOTE_H

#include "disk/object.h"

/* It is tried again after a while. REASON is a whole sentence, which names what it
 * is about; WHAT is one about the image, without the error. */
void note_failure(struct layer *layer, int error, const char *reason);
void note_errno(struct layer *layer, int error, const char *what);
void note_error(struct layer *layer, const GError *error);
void note_success(struct layer *layer);
/* What is on its way to LAYER's image has had no answer for long; or, HANGS false, has come to an
 * end, and whether the image takes it is known by that. The backlogs' lock is held. */
void note_hangs_locked(struct layer *layer, bool hangs);
/* It is tried again AFTER_NS or later. */
void note_pause(struct layer *layer, uint64_t after_ns);
/* For good: STATE is LOST or FAILED. */
void note_end(struct layer *layer, enum layer_state state, const char *reason);

#endif
