/* Bytes of any kind as text: names that may have anything in them, identities. */
#ifndef LEAFDISK_CORE_TEXT_H
#define LEAFDISK_CORE_TEXT_H

#include <glib.h>

/* Control characters, backslashes and the bytes in ALSO are octal escapes, as in
 * /proc/mounts, so that VALUE is no line, or with a blank in ALSO no word, of its
 * own. g_strcompress() undoes it. */
void text_append_escaped(GString *text, const char *value, const char *also);

#endif
