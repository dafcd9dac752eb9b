/* Shown names: which image of a pool has which name in the mount. */
#ifndef LEAFDISK_POOL_NAMES_H
#define LEAFDISK_POOL_NAMES_H

#include <glib.h>
#include <stdbool.h>

#include "scan.h"

/* What has been given since the mount began. Not locked. */
struct names *names_new(void);
void names_free(struct names *names);

/* Gives each of FOUND (struct scan_found) its shown name, which is kept here until the file leaves
 * the directory, and removes those that cannot have one, with a line in BROKEN. Where names have
 * left the directory the keys of FILES are all that it has; NULL: none has. An unexpected name adds a
 * line to NOTES when it is given. */
void names_give(struct names *names, GPtrArray *found, GHashTable *files, GString *broken, GString *notes);

/* Whether SHOWN is an image's name, also where that image is hidden or cannot be
 * opened now. */
bool names_is_given(const struct names *names, const char *shown);

/* SHOWN, which is free, is the name of what is no image, and none gets it. */
void names_reserve(struct names *names, const char *shown);
/* SHOWN, which nobody has, or which OLD_FILE or a reservation has, is FILE's from now on. */
void names_pass(struct names *names, const char *shown, const char *old_file, const char *file);
void names_release(struct names *names, const char *shown);

/* Of a file that gets another name once it is whole; no pool shows it. */
static inline char *names_staged(void)
{
	return g_strdup_printf(".%08x-new.leaf", g_random_int());
}

#endif
