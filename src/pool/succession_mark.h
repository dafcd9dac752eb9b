/* What a succession (succession.h) is, and the file in the pool's .leafdisk/changes that says so. All of it blocks. */
#ifndef LEAFDISK_POOL_SUCCESSION_MARK_H
#define LEAFDISK_POOL_SUCCESSION_MARK_H

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
	char *disk;			/* the shown name, of one that failed; NULL: it has not */
	char *mark;			/* absolute; NULL: none is written */
	bool beside;  /* forks alone, on what FROM stands on: no new leaf is made, and nothing is sealed */
	bool removes; /* SEALED alone is removed, of FROM's disk: no leaf is made */
	bool reverts; /* the new leaf stands on another snapshot, and SEALED is removed then */
	uint8_t identity[CACHE_ID_BYTES]; /* of what is removed */
	bool linked;
	bool exchanged; /* or it was tried, and is not taken back */
};
void succession_clear(struct succession *succession);
/* Of one on the heap. */
void succession_free(void *succession);
/* A new disk, whose image gets the name TO and until then has STAGED; both are taken over. */
void succession_take_fork(struct succession *succession, char *to, char *staged);

bool succession_write_mark(struct disk_pool *pool, struct succession *succession, GError **error);
/* All that there are: group -> GPtrArray of struct succession. NULL and ERROR: they cannot be read. */
GHashTable *succession_read_marks(struct disk_pool *pool, GError **error);
void succession_remove_mark(struct succession *succession);

/* The directory of sealed images, or -errno; the caller's to close. */
int succession_open_sealed(const struct disk_pool *pool, bool make);

#endif
