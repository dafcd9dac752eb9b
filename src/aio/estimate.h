/* Whether a read is likely to be in the page cache, by how others have gone.
 *
 * Any thread: what two of them do at once is lost at worst. */
#ifndef LEAFDISK_AIO_ESTIMATE_H
#define LEAFDISK_AIO_ESTIMATE_H

#include <stdbool.h>

#include "aio/queue.h"

/* Asked once for each read. */
bool estimate_says_try(struct cache_estimate *estimate);
/* How a try went. */
void estimate_note(struct cache_estimate *estimate, bool hit);

#endif
