/* Building, sealing and validating the cache's superblock. No I/O, no state; nothing of
 * it is used before its validation. */
#ifndef LEAFDISK_CACHE_FORMAT_FORMAT_SUPER_H
#define LEAFDISK_CACHE_FORMAT_FORMAT_SUPER_H

#include <stdbool.h>
#include <stdint.h>

#include "format/cache.h"

/* A superblock of sequence 0 for an empty log; the path is cut to what fits. */
void cache_super_init(struct cache_super_ondisk *super, const uint8_t uuid[16], const uint8_t pool_id[16],
		      const char *pool_path, uint64_t segments);
/* Sets the constants, position and checksum. COPY is the sequence modulo
 * CACHE_SUPER_COPIES. */
void cache_super_seal(struct cache_super_ondisk *super, unsigned copy);
/* Whether SUPER is what a cache wrote as copy COPY, whether or not it can be used. */
bool cache_super_is_intact(const struct cache_super_ondisk *super, unsigned copy);
/* Whether SUPER may be copy COPY of a cache; if not, WHY is the second half of a sentence
 * (g_free), otherwise NULL. Its file may be shorter than it says: what is missing cannot be
 * read. */
bool cache_super_validate(const struct cache_super_ondisk *super, unsigned copy, char **why);

#endif
