/* The word that was meant: of those offered the one that differs least from the one given. */
#ifndef LEAFDISK_CORE_NEAREST_H
#define LEAFDISK_CORE_NEAREST_H

#include <glib.h>

/* Texts are borrowed. */
struct nearest {
	const char *word;
	const char *found; /* so far; NULL: none is near */
	unsigned distance; /* of it; the limit while there is none */
};

void nearest_begin(struct nearest *nearest, const char *word);
void nearest_offer(struct nearest *nearest, const char *candidate);
/* "; did you mean \"NAME\"?", or ELSE_TEXT where none is near. g_free. */
char *nearest_text(const struct nearest *nearest, const char *else_text);

/* The name in DIRECTORY that NAME, without its ending or with it, was to be; NULL: none is near. Blocks. g_free. */
char *nearest_name_in(const char *directory, const char *name);
/* ERROR, which may be NULL, says of PATH that it is not there: it says as well which name beside it was meant. Blocks.
 */
void nearest_add_file(const char *path, GError **error);

#endif
