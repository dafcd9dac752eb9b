/* Changes of an image that are elsewhere. */
#ifndef LEAFDISK_OWNER_NEWER_H
#define LEAFDISK_OWNER_NEWER_H

#include "owner/owner.h"

/* Whether the image lacks changes that another cache may have, or another copy of ours. YES
 * and WHY: the sentence of owner_allows(); UNKNOWN and WHY: its record cannot be read. Blocks. */
enum answer owner_has_newer(const char *pool, const char *name, const struct owner_self *self, GError **why);

#endif
