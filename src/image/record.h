/* The mark of a raw parent whose store has no extended attributes: a record beside it. */
#ifndef LEAFDISK_IMAGE_RECORD_H
#define LEAFDISK_IMAGE_RECORD_H

#include "file.h"

/* *MARK NULL: there is none; g_free. 0 or -errno. Blocks. */
int record_read(const struct image_file *file, size_t bytes_max, char **mark);
/* Durable on return; MARK NULL: none. 0 or -errno. Blocks. */
int record_write(const struct image_file *file, const char *mark);

#endif
