/* The text of an owner record, and the checks that one from storage has to pass. */
#ifndef LEAFDISK_OWNER_TEXT_H
#define LEAFDISK_OWNER_TEXT_H

#include "owner/record.h"

/* False: it is no record. *WHY is the key that is missing or wrong, or NULL
 * where there are none. RECORD is to be cleared in any case. */
bool owner_text_parse(const char *text, size_t length, struct owner_record *record, const char **why);
/* *LENGTH bytes; g_free. What no reader would take is replaced. */
char *owner_text_format(const struct owner_record *record, gsize *length);

#endif
