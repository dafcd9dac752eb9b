/* What the log holds, for a mount and for the offline tools; writes nothing. */
#ifndef LEAFDISK_CACHE_RECOVER_H
#define LEAFDISK_CACHE_RECOVER_H

#include <glib.h>
#include <stdbool.h>

#include "cache/format/reader.h"

struct index;
struct layers;
/* Fills INDEX and LAYERS from the log: clean blocks of layers with a stamp or a
 * generation, dirty blocks and zero ranges that were not migrated. Layers of which the log
 * has lost changes that their images do not have are marked so. END: cache_log_end_clear(). */
void cache_recover(int fd, const struct cache_super_ondisk *super, struct index *index, struct layers *layers,
		   struct cache_log_end *end);

#endif
