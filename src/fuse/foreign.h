/* Mount options that are not leafdisk's: what mount(8), fstab and libfuse
 * bring along. */
#ifndef LEAFDISK_FUSE_FOREIGN_H
#define LEAFDISK_FUSE_FOREIGN_H

#include <glib.h>
#include <stdbool.h>

/* Sorts LIST (comma-separated, "\," is a comma inside an option): what libfuse
 * takes goes to *PASSED (g_free; NULL when there is none), what only mount(8)
 * reads is dropped, and anything else is refused. */
bool foreign_options(const char *list, char **passed, GError **error);

/* Appends the names that are passed on. */
void foreign_help(GString *text);

#endif
