/* Log layers that are sealed, each on those that were sealed before it: what an ephemeral disk was at one instant, on
 * its images.
 *
 * A list that nobody changes, with references: a snapshot has one, and so has every disk that goes on from there. With
 * the last of them a layer is closed, and the cache forgets what it has of it. NULL is a list of none: the images
 * alone. */
#ifndef LEAFDISK_LAYER_LOGS_H
#define LEAFDISK_LAYER_LOGS_H

#include "layer/layer.h"
#include "layer/map.h"

struct logs;

/* TOP, a log layer of SIZE_BYTES that gets no more writes, on BELOW, which is taken over. */
struct logs *logs_seal(struct layer *top, uint64_t size_bytes, struct logs *below);
struct logs *logs_ref(struct logs *logs);
/* Blocks. */
void logs_unref(struct logs *logs);
unsigned logs_depth(const struct logs *logs);
/* The layer that was sealed last; NULL: there is none. */
struct layer *logs_top(const struct logs *logs);
/* Those of LOGS that are not in BELOW, which it stands on: struct layer, the lowest first, as long as there is LOGS. */
GPtrArray *logs_above(const struct logs *logs, const struct logs *below);
/* Whether OTHER is LOGS, or what it stands on. */
bool logs_have(const struct logs *logs, const struct logs *other);
/* All of them on BELOW, which is taken over. */
struct stack *logs_stack(const struct logs *logs, struct stack *below);

#endif
