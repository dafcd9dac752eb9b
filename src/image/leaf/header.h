/* The two copies of the header, and the parent that it names. */
#ifndef LEAFDISK_IMAGE_LEAF_HEADER_H
#define LEAFDISK_IMAGE_LEAF_HEADER_H

#include "leaf.h"
#include "report.h"

/* The copy that counts. False: neither does. */
bool leaf_header_read(struct image_file *file, struct leaf_header_ondisk *header, struct leaf_report *report);
/* What was read is made durable, and the copy that lags or is damaged is
 * written. Before the first write to an image that was loaded. 0 or -errno:
 * nothing may be written then. */
int leaf_header_level(struct image_file *file);
/* HEADER with its sequence raised: both copies, each flushed; they must be
 * level. 0 or -errno: they may no longer be. */
int leaf_header_write(struct image_file *file, struct leaf_header_ondisk *header);
void leaf_parent_encode(struct leaf_header_ondisk *header, const struct image_parent *parent);
void leaf_parent_decode(const struct leaf_header_ondisk *header, struct image_parent *parent);

#endif
