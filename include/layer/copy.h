/* What a log layer has, into an image. */
#ifndef LEAFDISK_LAYER_COPY_H
#define LEAFDISK_LAYER_COPY_H

#include "image/image.h"
#include "layer/layer.h"

/* All that FROM has, a log layer that nobody writes meanwhile, is written to TO, as far as that goes, over what is
 * there; durable with its next flush. GO_ON (NULL: yes) is asked from piece to piece, and false gives up. 0; -EINTR:
 * given up; -errno of reading or writing: some is copied. Nobody else writes TO. Blocks, on a thread that may wait. */
int layer_copy(struct layer *from, struct image *to, bool (*go_on)(void *opaque), void *opaque);

#endif
