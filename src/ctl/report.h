/* How leafctl speaks: errors, sizes, JSON. */
#ifndef LEAFDISK_CTL_REPORT_H
#define LEAFDISK_CTL_REPORT_H

#include <json-glib/json-glib.h>

#include "ctl.h"

/* Prints "leafctl: SENTENCE" to standard error and returns CTL_FAILED. */
int ctl_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The same for ERROR's sentence, after WHAT and a colon unless it is NULL. */
int ctl_fail_error(const char *what, const GError *error);
/* Warns on standard error when newer content of the image at PATH, or of what it stands on, may be in a
 * cache. LAYERS: as for offline.h. */
void ctl_warn_owner(const char *path, const char *layers);
/* Prints VERB's name, the sentence and where help is; returns CTL_USAGE. */
int ctl_usage_error(const struct ctl_verb *verb, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* TEXT with "?" for its control characters: names and sentences come from
 * images, and must not steer a terminal. g_free. */
char *ctl_printable(const char *text);
/* What is wrong with TEXT as a size above 0: "is not a size above 0"; NULL: nothing, and *BYTES is it. */
const char *ctl_size_fault(const char *text, uint64_t *bytes);
/* Sizes as reports show them: "1.5 GiB (1610612736 bytes)". g_free. */
char *ctl_size_text(uint64_t bytes);
void ctl_json_add_size(JsonBuilder *builder, const char *name, uint64_t bytes);
/* A UUID of 16 bytes in its usual form. g_free. */
char *ctl_uuid_text(const uint8_t *uuid);
/* A string, or null where TEXT is NULL. */
void ctl_json_add_text(JsonBuilder *builder, const char *name, const char *text);
/* Prints what BUILDER holds: over several lines, or on one without its end. */
void ctl_json_print(JsonBuilder *builder, bool pretty);

#endif
