/* Looks at the images of a pool, with patience.
 *
 * A store may hang on one image and answer for all others. So the store is asked on
 * a thread of the look's own; an image that takes too long is left to that thread,
 * and the others go on with another one. */
#ifndef LEAFDISK_POOL_LOOK_H
#define LEAFDISK_POOL_LOOK_H

#include "layer/chain.h"

/* Of a chain, what many are compared by: in one place. */
struct known_file {
	dev_t device;
	ino_t inode;
};

/* What is known of a file of the directory, or of the stack of a group. Constant once a look has answered. */
struct known {
	_Atomic unsigned references;
	uint64_t listed;  /* number of the scan that met its name in the directory last; one thread's at a time */
	uint64_t asked;	  /* and of the one that asked about it */
	dev_t device;	  /* of the file itself */
	ino_t inode;	  /* by which a listing tells it; 0: it is a link, or too fresh to be told by anything */
	GPtrArray *links; /* what was found of its chain; NULL: no image */
	struct known_file *files; /* of LINKS, in their order: see known_list_files() */
	guint file_count;
	bool marked;   /* the first has a mark of children */
	bool outside;  /* and is not in the pool */
	bool shown;    /* all of it */
	char *trouble; /* a line for the broken ones, or NULL */
	char *foreign; /* a line for a file of another format, or NULL */
	char *untold;  /* another parent that it may have than the links say, or NULL */
};
struct known *known_new(void);
struct known *known_ref(const struct known *known);
/* Once LINKS is what it stays. */
void known_list_files(struct known *known);
/* NULL is allowed. */
void known_unref(void *known);

struct look_item {
	/* To be filled in. */
	char *name;	      /* the file's, or the group's */
	char *layers;	      /* the group's stack; NULL: it is a file */
	struct known *before; /* NULL: nothing */
	/* The answer. */
	struct known *known; /* BEFORE itself: nothing has changed */
	bool absent;	     /* nothing has that name, or a link of that name leads nowhere */
	bool again;	     /* it has been given up once */
	GError *error;
};
struct look_item *look_item_new(const char *name, const char *layers, const struct known *before);
void look_item_free(void *item);

/* Asks about those of ITEMS (struct look_item) that have no answer. An item whose files are
 * what they were before, but for marks of its parents, is known as before. One whose store
 * does not answer has the error -ETIMEDOUT. Blocks for CHAIN_PATIENCE_NS for the first file
 * that hangs and for each dozens of the others, at most. */
void look_at(const GPtrArray *items, const struct chain_roots *roots, struct chain_cache *cache);

#endif
