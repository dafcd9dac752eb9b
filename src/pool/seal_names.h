/* What may be sealed, and how it may be called. All of it blocks. */
#ifndef LEAFDISK_POOL_SEAL_NAMES_H
#define LEAFDISK_POOL_SEAL_NAMES_H

#include "succession_mark.h"

/* False and ERROR. */
bool seal_tag_is_allowed(const char *tag, GError **error);
bool seal_is_allowed(const struct disk_pool *pool, const struct disk *disk, GError **error);
/* What has the name of DISK's image is that, a file, and not what somebody has put there meanwhile. False and ERROR. */
bool seal_has_its_name(const struct disk_pool *pool, const struct disk *disk, GError **error);
/* WHAT1, WHAT2...: the first that no snapshot of DISK is called. NULL and ERROR. g_free. */
char *seal_free_tag(struct disk_pool *pool, const struct disk *disk, const char *what, GError **error);
/* Nobody has the names that SUCCESSION of DISK is to give. False and ERROR. */
bool seal_names_are_free(struct disk_pool *pool, const struct disk *disk, const struct succession *succession,
			 GError **error);

#endif
