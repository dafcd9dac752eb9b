/* A new leaf that takes the place of an image, which gets another name: the files of that, and what a crash leaves
 * of them.
 *
 * Before anything else is made a mark says what is to be, in the pool's .leafdisk/changes. Several are of one
 * group when they are to be made at one instant. Whoever mounts the pool next finishes a group of which one is made,
 * or all are ready to be, and takes back any other.
 *
 *     1. the mark                                  a crash: it is removed
 *     2. the new leaf, whole, under a hidden name; the owner record of the other name; the other name, as a link
 *                                                  a crash: finished if all of the group are so far
 *     3. the new leaf's name is exchanged          a crash: finished
 *     4. the new claim is in the owner record      a crash: the mark is removed
 *
 * Where a store has no links the image is renamed in 3, and for a moment only the mark tells where it is.
 *
 * Where the store does not tell how far one is, or does not let it be finished or taken back, the mark stays, and
 * nothing that may be the only name of an image is removed. */
#ifndef LEAFDISK_POOL_SUCCESSION_H
#define LEAFDISK_POOL_SUCCESSION_H

#include "succession_mark.h"

/* All of it blocks. */

/* FROM has its other name too, where the store has links. */
bool succession_link(struct disk_pool *pool, struct succession *succession, GError **error);
/* Whether it has. */
enum answer succession_is_linked(const struct disk_pool *pool, const struct succession *succession);
/* Not durable. False and ERROR: it may be made in part, and is to be undone. */
bool succession_exchange(struct disk_pool *pool, struct succession *succession, GError **error);
/* The new leaf has its name, FROM being sealed. */
bool succession_put_in_place(struct disk_pool *pool, const struct succession *succession, GError **error);
/* After the exchange: forks have their names. False and ERROR: one has not, and is gone. */
bool succession_show_forks(struct disk_pool *pool, struct succession *succession, GError **error);
/* Those that have no name yet are gone. */
bool succession_remove_forks(struct disk_pool *pool, const struct succession *succession, GError **error);
/* Whether NAME in the pool is the new leaf. UNKNOWN and ERROR. */
enum answer succession_is_leaf(struct disk_pool *pool, const struct succession *succession, const char *name,
			       GError **error);
/* As it was before: all that was made is gone, and the mark last. False and ERROR: not all is, and the mark stays. */
bool succession_undo(struct disk_pool *pool, struct succession *succession, GError **error);
/* What was exchanged is durable. 0 or -errno. */
int succession_sync(struct disk_pool *pool);

#endif
