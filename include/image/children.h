/* What an image remembers of its children: the mark of a parent.
 *
 * It is made at the parent before its first child exists, and goes by command only: so a
 * child that is broken, gone or elsewhere counts as well. An image that has the mark is
 * not written (image_open() refuses it), and not moved or removed through a mount.
 *
 * The mark is a text, of a line for each child:
 *
 *     UUID PATH      32 hexadecimal digits; escaped as C strings are
 *     more           and others, for which there was no room
 *
 * A leaf has it in its header, a raw image in the extended attribute
 * user.leafdisk.children of its file, or, where the store has none, in the file
 * .leafdisk/children/NAME of its directory. Whatever text there is, it is a mark.
 *
 * All of it blocks, on any thread. */
#ifndef LEAFDISK_IMAGE_CHILDREN_H
#define LEAFDISK_IMAGE_CHILDREN_H

#include "image/image.h"

struct image_child {
	uint8_t uuid[IMAGE_UUID_BYTES];
	char *path; /* as it was made; without its directory where that was long */
};

/* Of a mark (NULL: none): an array of struct image_child, free function set. *MORE:
 * there were others. */
GPtrArray *image_children_of(const char *mark, bool *more);
/* Their names, for a sentence. g_free. */
char *image_children_text(const char *mark);
/* The mark of a parent that has one child. g_free. */
char *image_children_of_one(const uint8_t uuid[IMAGE_UUID_BYTES], const char *path);
/* Sets ERROR to what is to be said of the image at PATH, which has MARK: that it is not
 * to be written (EROFS), moved or removed. Returns false. */
bool image_children_refuse(const char *path, const char *mark, GError **error);

/* A parent whose mark is looked at and changed: nobody writes it meanwhile, and nobody
 * else changes its mark. */
struct image_children;
/* NULL and ERROR. EBUSY: it is being written. EROFS, EACCES, EPERM: its store is not
 * written. */
struct image_children *image_children_open(const char *path, enum image_format format, GError **error);
/* NULL: none. Borrowed until the next change. */
const char *image_children_mark(const struct image_children *children);
/* Durable on return. EOPNOTSUPP: the image has no place for it. */
bool image_children_add(struct image_children *children, const uint8_t uuid[IMAGE_UUID_BYTES], const char *path,
			GError **error);
/* UUID NULL: all, and the others. */
bool image_children_remove(struct image_children *children, const uint8_t *uuid, GError **error);
/* NULL is allowed. */
void image_children_close(struct image_children *children);

#endif
