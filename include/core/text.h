/* Bytes of any kind as text: names that may have anything in them, identities. */
#ifndef LEAFDISK_CORE_TEXT_H
#define LEAFDISK_CORE_TEXT_H

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>

/* Control characters, backslashes and the bytes in ALSO are octal escapes, as in
 * /proc/mounts, so that VALUE is no line, or with a blank in ALSO no word, of its
 * own. g_strcompress() undoes it. */
void text_append_escaped(GString *text, const char *value, const char *also);

/* The SIZE bytes of VALUE in 2 * SIZE hexadecimal digits, the first byte first, and a zero behind them. */
void text_format_hex(char *text, const void *value, size_t size);
/* The reverse of the digits that TEXT begins with, in small letters or capitals. False: it begins with fewer;
 * VALUE may be anything then. */
bool text_parse_hex(const char *text, void *value, size_t size);

#endif
