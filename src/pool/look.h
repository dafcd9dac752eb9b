/* Looks at the images of a pool, with patience.
 *
 * A store may hang on one image and answer for all others. So the store is asked on
 * a thread of the look's own; an image that takes too long is left to that thread,
 * and the others go on with another one. */
#ifndef LEAFDISK_POOL_LOOK_H
#define LEAFDISK_POOL_LOOK_H

#include "layer/chain.h"

/* What is known of a file of the directory, or of the stack of a group. */
struct known {
	GPtrArray *links; /* what was found of its chain; NULL: no image */
	bool shown;	  /* all of it */
	char *trouble;	  /* a line for the broken ones, or NULL */
	char *foreign;	  /* a line for a file of another format, or NULL */
	char *untold;	  /* another parent that it may have than the links say, or NULL */
};
void known_free(void *known);
struct known *known_copy(const struct known *known);

struct look_item {
	/* To be filled in. */
	char *name;		    /* the file's, or the group's */
	char *layers;		    /* the group's stack; NULL: it is a file */
	const struct known *before; /* NULL: nothing; borrowed */
	/* The answer. */
	struct known *known;
	bool absent; /* nothing has that name, or a link of that name leads nowhere */
	bool again;  /* it has been given up once */
	GError *error;
};
struct look_item *look_item_new(const char *name, const char *layers, const struct known *before);
void look_item_free(void *item);

/* Asks about all ITEMS (struct look_item). An item whose files are what they were
 * before is known as before. One whose store does not answer has the error
 * -ETIMEDOUT. Blocks for CHAIN_PATIENCE_NS for the first file that hangs and for each
 * dozens of the others, at most. */
void look_at(const GPtrArray *items, const struct chain_roots *roots, struct chain_cache *cache);

#endif
