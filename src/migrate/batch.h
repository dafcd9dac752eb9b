/* One batch of a layer's changes, from the cache to its image. */
#ifndef LEAFDISK_MIGRATE_BATCH_H
#define LEAFDISK_MIGRATE_BATCH_H

#include "jobs.h"

/* JOB's layer is being moved. True: some of it went; what did not is noted. Blocks for as long as
 * the store does not answer. */
bool batch_migrate(struct jobs *jobs, struct job *job);

#endif
