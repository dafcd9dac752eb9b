/* The mark of a parent (image/children.h) in a leaf's header. */
#ifndef LEAFDISK_IMAGE_LEAF_MARK_H
#define LEAFDISK_IMAGE_LEAF_MARK_H

#include "leaf.h"

struct leaf_report;

/* NULL: it is none. g_free. */
char *leaf_mark_of(const struct leaf_header_ondisk *header);
/* Whether an image may be opened with FLAGS (image.h); asked under its lock. False and REPORT's
 * error. */
bool leaf_mark_allows(const struct leaf_header_ondisk *header, unsigned flags, struct leaf_report *report);
bool leaf_read_mark(struct image_file *file, char **mark, GError **error);
/* As leaf_set_parent() of the header. */
bool leaf_write_mark(struct image_file *file, const char *mark, GError **error);

#endif
