/* The mark of a parent: its text, and where a raw image has it. */
#ifndef LEAFDISK_IMAGE_MARK_H
#define LEAFDISK_IMAGE_MARK_H

#include "file.h"
#include "format/leaf.h"
#include "image/children.h"

/* With the zero byte at its end. */
#define MARK_TEXT_BYTES LEAF_CHILDREN_BYTES

/* MARK (NULL: none) with another line; the same where the child is named already. g_free. */
char *mark_with(const char *mark, const uint8_t uuid[IMAGE_UUID_BYTES], const char *path);
/* Without UUID's; NULL: nothing is left. g_free. */
char *mark_without(const char *mark, const uint8_t uuid[IMAGE_UUID_BYTES]);

/* Of a raw image: the attribute of its file, or a record beside it. *MARK is NULL where there is none;
 * g_free. 0 or -errno. */
int mark_read_raw(const struct image_file *file, char **mark);
/* Durable on return. 0 or -errno; -EOPNOTSUPP: a block device has no place for it. */
int mark_write_raw(struct image_file *file, const char *mark);

#endif
