/* Memory whose amount follows an image, while it is opened: asked for first, as GLib's
 * containers end the program where there is none. */
#ifndef LEAFDISK_IMAGE_LEAF_MEMORY_H
#define LEAFDISK_IMAGE_LEAF_MEMORY_H

#include "leaf.h"
#include "report.h"

/* Whether BYTES, which are to be taken in small pieces, are there. PATH is the image's. */
bool leaf_memory_is_there(const char *path, uint64_t bytes);
/* BYTES of zeros, or NULL. */
void *leaf_memory_new(const char *path, uint64_t bytes);
/* The same, but where there are none the load is given up with a sentence. */
bool leaf_memory_ask(struct leaf_report *report, uint64_t bytes);
/* And without zeros: to be read into, a megabyte at each open of an image. */
void *leaf_memory_ask_new(struct leaf_report *report, uint64_t bytes);
/* For a table of SLOTS, with a chunk in each. */
bool leaf_memory_ask_slots(struct leaf *leaf, uint64_t slots, struct leaf_report *report);

#endif
