/* Whether a layer's image is still ours to write. */
#ifndef LEAFDISK_MIGRATE_OWNED_H
#define LEAFDISK_MIGRATE_OWNED_H

#include "layer/layer.h"

/* Before each batch; reads the owner record where that is due. False: the image is
 * another's, or nobody can tell for now; either is noted. Blocks. */
bool owned_check(struct layer *layer);

#endif
