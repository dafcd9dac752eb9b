/* A parent and a child that is being made, or accepts it. */
#ifndef LEAFDISK_OFFLINE_LINEAGE_H
#define LEAFDISK_OFFLINE_LINEAGE_H

#include "image/children.h"
#include "layer/chain.h"

struct lineage {
	struct image_parent parent;	 /* what the child is to record */
	struct image_children *children; /* the parent, while nobody writes it; NULL: its store takes no mark */
	bool marked;
};

/* PATH with its directory's links followed. g_free. */
char *lineage_absolute(const char *path);
/* The image PARENT gets the mark of UUID, which is or will be at CHILD. *NOTE (g_free): see
 * offline_create(). */
bool lineage_mark(struct lineage *lineage, const char *parent, const uint8_t *uuid, const char *child, char **note,
		  GError **error);
/* What the child is to record of PARENT as it is now; PATH, which is taken over, is where it finds
 * it. Nobody writes it meanwhile. */
bool lineage_describe(struct lineage *lineage, const struct chain_link *parent, char *path, GError **error);
/* There is no such child after all. */
void lineage_undo(struct lineage *lineage, const uint8_t *uuid);
void lineage_clear(struct lineage *lineage);

#endif
