/* One batch of a layer's changes, from the cache to its image. */
#ifndef LEAFDISK_MIGRATE_BATCH_H
#define LEAFDISK_MIGRATE_BATCH_H

#include "policy.h"

/* LAYER is being moved. CUT: where no epoch is complete, one ends now. True: some of it
 * went; what did not is noted. Blocks for as long as the store does not answer. */
bool batch_migrate(struct layer *layer, bool cut);
/* What a batch may take of memory as it is tuned, in bytes. */
uint64_t batch_bytes_tuned(const struct look *look);

#endif
