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
 * Where a store has no links the image is renamed in 3, and for a moment only the mark tells where it is. */
#ifndef LEAFDISK_POOL_SUCCESSION_H
#define LEAFDISK_POOL_SUCCESSION_H

#include "internal.h"

/* A new disk on what is sealed. */
struct succession_fork {
	char *to;     /* the name of its image in the pool; */
	char *staged; /* and that it has until it is shown */
	uint8_t uuid[IMAGE_UUID_BYTES];
};

struct succession {
	/* Relative to the pool. */
	char *from;   /* the image that is sealed; */
	char *sealed; /* and its other name */
	char *to;     /* the name that the new leaf gets, often FROM */
	char *staged; /* and that it has until then */
	char *group;
	unsigned parts;			/* of the group */
	uint8_t uuid[IMAGE_UUID_BYTES]; /* of the new leaf */
	GPtrArray *forks;		/* struct succession_fork; NULL: none */
	char *mark;			/* absolute; NULL: none is written */
	bool linked;
	bool exchanged;
};
void succession_clear(struct succession *succession);

/* A new disk shown as NAME. */
bool succession_add_fork(struct succession *succession, const char *name, GError **error);

/* All of it blocks. */
bool succession_write_mark(struct disk_pool *pool, struct succession *succession, GError **error);
/* FROM has its other name too, where the store has links. */
bool succession_link(struct disk_pool *pool, struct succession *succession, GError **error);
/* Not durable. */
bool succession_exchange(struct disk_pool *pool, struct succession *succession, GError **error);
/* After the exchange: forks have their names. False and ERROR: one has not, and is gone. */
bool succession_show_forks(struct disk_pool *pool, struct succession *succession, GError **error);
/* Those that have no name yet are gone. */
void succession_remove_forks(struct disk_pool *pool, const struct succession *succession);
/* As it was before: all that was made is gone. */
void succession_undo(struct disk_pool *pool, struct succession *succession);
/* What was exchanged is durable. 0 or -errno. */
int succession_sync(struct disk_pool *pool);

/* What crashes left, at the beginning of a mount. */
void pool_finish_successions(struct disk_pool *pool);

#endif
