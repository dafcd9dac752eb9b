/* What to say of files of other formats. */
#ifndef LEAFDISK_IMAGE_FOREIGN_H
#define LEAFDISK_IMAGE_FOREIGN_H

#include "image/format.h"

/* Of a file of another format that is opened as FORMAT, NONE: not at all: "is qcow2, ..."
 * with what to type to have a raw disk of it; NULL: nothing. A guest can write into a raw disk what
 * makes it look so. g_free. Blocks. */
char *image_foreign_text(const char *path, enum image_format format);
char *image_foreign_text_fd(int fd, const char *path, enum image_format format);

#endif
