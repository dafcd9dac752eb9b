/* Images that were renamed by hand. */
#ifndef LEAFDISK_OWNER_RENAMED_H
#define LEAFDISK_OWNER_RENAMED_H

#include "owner/owner.h"

/* The record of the claim that IMAGE bears, which has none under NAME: that of another name,
 * *BEFORE (g_free), in RECORD, both empty unless the answer is YES. UNKNOWN and ERROR: there
 * is one that may be it, and cannot be read. */
enum answer renamed_find(const char *pool, const char *name, const struct owner_image *image, char **before,
			 struct owner_record *record, GError **error);

#endif
