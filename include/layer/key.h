/* How the cache knows an image again. */
#ifndef LEAFDISK_LAYER_KEY_H
#define LEAFDISK_LAYER_KEY_H

#include "cache/layer.h"
#include "layer/chain.h"

/* KEY of LINK's image as it is now; NAME borrowed from LINK. IMAGE is that image
 * where it is open, so that the key is of the very file; NULL: it is looked up.
 * False when it cannot be looked at, or when nothing would show that it was
 * changed by other hands (a raw block device): such an image is not to be found
 * again. Blocks. */
bool layer_key_of(const struct chain_link *link, struct image *image, struct cache_layer_key *key);
/* Its identity alone, of the image that is open or, IMAGE NULL, as LINK was found.
 * Nothing is read for it, so no error of the store hides what the cache has. */
void layer_identity_of(const struct chain_link *link, const struct image *image, uint8_t identity[CACHE_ID_BYTES]);
/* IDENTITY is that of what stands at LINK's path, of whichever image: of one that had none of its
 * own then. */
bool layer_identity_is_of_path(const struct chain_link *link, const uint8_t identity[CACHE_ID_BYTES]);
/* LINK's image, as it was found, has that under any name. */
bool layer_identity_is_own(const struct chain_link *link);

#endif
