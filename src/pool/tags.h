/* Names of sealed images: web1@mon.leaf is the snapshot mon of web1. */
#ifndef LEAFDISK_POOL_TAGS_H
#define LEAFDISK_POOL_TAGS_H

#include "internal.h"

/* "x.leaf" -> "x", the name of an image without its ending. g_free. */
char *pool_stem_of_file(const char *file);
/* The name that the image FILE has when it is sealed as TAG. g_free. */
char *pool_sealed_name(const char *file, const char *tag);
/* Stem -> file, of all in the directory of sealed images. NULL and ERROR. Blocks. */
GHashTable *pool_sealed_stems(struct disk_pool *pool, GError **error);
/* The name in that directory of the image of the snapshot TAG of the disk whose image has STEM, or of "web1@mon", which
 * may be any disk's; NULL and ERROR. g_free. Blocks. */
char *pool_sealed_file(struct disk_pool *pool, const char *stem, const char *tag, GError **error);
/* "web1@mon.leaf" -> "mon" of the disk with the stem web1; of another, or of this one under another name, "web1@mon".
 * g_free. */
char *pool_tag_of(const char *file, const char *stem);

#endif
