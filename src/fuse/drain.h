/* The end of a mount: what is dirty is written back to the pool. */
#ifndef LEAFDISK_FUSE_DRAIN_H
#define LEAFDISK_FUSE_DRAIN_H

#include <stdbool.h>

#include "session.h"

/* Shows how far it is: on a terminal when the daemon is in the foreground, in
 * the log otherwise. A signal gives up. False: something stays in the cache,
 * which has been logged. No loop runs any more. Blocks. */
bool drain_at_end(struct session *session);
/* Where nothing is to be written back: says what stays in the cache. */
void drain_is_left(struct session *session);

#endif
