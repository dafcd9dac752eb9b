/* A leaf that is sealed, and the leaf that is put on it.
 *
 * A sealed layer takes no more writes, and is below others from then on. What of it is dirty
 * stays its own, and goes to its image like a leaf's; what is above it goes when it is done.
 *
 * The new leaf gets the name of the old one's image, where the owner record is the old one's as
 * long as a batch of it may be under way: the new claim succeeds to it later, and until then
 * whoever asks the record finds the image taken. A crash in between leaves the log and the image
 * with the new claim, and in the pool a file that says so (pool/succession.h).
 *
 * All of it blocks, and is called by who may change the layer, but for what says otherwise. */
#ifndef LEAFDISK_LAYER_SEAL_H
#define LEAFDISK_LAYER_SEAL_H

#include "layer/layer.h"

/* A leaf to be put on LEAF: the new image that FD is open on, which is to have LINK's name. It is open
 * and begun, with a share as LEAF has one; MARK, which is removed when its claim is in the owner
 * record, may be NULL. NULL and ERROR. */
struct layer *seal_new_leaf(const struct layer *leaf, int fd, const struct chain_link *link, const char *mark,
			    GError **error);
/* LAYER, a leaf, is sealed: its image is where LINK says, and has the child CHILD (NULL: none) at PATH.
 * While no request is in work. It is published, with one use. */
void seal_layer(struct layer *layer, const struct chain_link *link, const uint8_t child[IMAGE_UUID_BYTES],
		const char *path);
/* The same of LAYER that was opened for what is dirty of it; CHILD (NULL: not known) is a disk's layer on it. */
void seal_opened(struct layer *layer, const struct chain_link *child);
/* LAYER, sealed, has another child, CHILD at PATH, which its image will remember. False: it is complete, and its image
 * is to be told (image/children.h). Any thread. */
bool seal_add_child(struct layer *layer, const uint8_t child[IMAGE_UUID_BYTES], const char *path);
/* LAYER, sealed, does not remember CHILD any more. False: it is complete, as above. Any thread. */
bool seal_remove_child(struct layer *layer, const uint8_t child[IMAGE_UUID_BYTES]);
/* Whether LAYER, sealed and not complete, or its image as it was opened, has any. Any thread. */
bool seal_has_children(struct layer *layer);
/* LAYER, sealed, is all on its image, durably, and its claim is released: nobody writes it any more, and
 * others may read it. Requests may be in work. */
void seal_complete(struct layer *layer);

#endif
