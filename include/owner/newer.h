/* Changes of an image that are elsewhere. */
#ifndef LEAFDISK_OWNER_NEWER_H
#define LEAFDISK_OWNER_NEWER_H

#include "owner/owner.h"

/* Whether the image lacks changes that another cache may have, or another copy of ours. YES
 * and WHY: the sentence of owner_allows(); UNKNOWN and WHY: its record cannot be read. Blocks. */
enum answer owner_has_newer(const char *pool, const char *name, const struct owner_self *self, GError **why);

/* The same of one that has no record of its name, by what IMAGE says of itself: it was renamed by hand, or has two
 * names, and its record has the other one. */
enum answer owner_has_newer_as(const char *pool, const char *name, const struct owner_self *self,
			       const struct owner_image *image, GError **why);

#endif
