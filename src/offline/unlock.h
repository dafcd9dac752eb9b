/* What tools that open an image without a mount ask of its owner record. */
#ifndef LEAFDISK_OFFLINE_UNLOCK_H
#define LEAFDISK_OFFLINE_UNLOCK_H

#include <glib.h>
#include <stdbool.h>

/* Refuses to write the image at PATH when another owns it, or its newest
 * changes are elsewhere. LOCKED: the caller holds its lock. */
bool offline_owner_allows(const char *path, bool locked, GError **error);
/* Refuses a parent whose newest changes are elsewhere, or where nobody can tell: they would
 * come after its children were made. */
bool offline_owner_parent(const char *path, GError **error);
/* ERROR says that the image at PATH is locked: adds by whom. */
void offline_owner_explain(const char *path, GError **error);

#endif
