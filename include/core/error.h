/* The GError domain of everything that opens, configures or checks. The code
 * is a positive errno, so that a tool's message and a FUSE reply agree. */
#ifndef LEAFDISK_CORE_ERROR_H
#define LEAFDISK_CORE_ERROR_H

#include <glib.h>
#include <stdbool.h>

#define LEAFDISK_ERROR leafdisk_error_quark()
GQuark leafdisk_error_quark(void);

/* Sets ERROR and returns false. ERRNUM is positive. */
bool error_set(GError **error, int errnum, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* The same, with ": strerror(ERRNUM)" appended to the sentence, and which limit of
 * the process that is where it is one. */
bool error_set_errno(GError **error, int errnum, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* The errno in ERROR as a negative number; -EIO for other domains. */
int error_to_errno(const GError *error);

#endif
