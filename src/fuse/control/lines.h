/* Lines of the control tree's files.
 *
 * Values come from image files and from whoever names files in the pool. So
 * that none can pretend to be a line of its own they are escaped: core/text.h. */
#ifndef LEAFDISK_FUSE_CONTROL_LINES_H
#define LEAFDISK_FUSE_CONTROL_LINES_H

#include <glib.h>
#include <stdint.h>
#include <time.h>

/* "KEY: VALUE". */
void lines_text(GString *text, const char *key, const char *value);
void lines_number(GString *text, const char *key, uint64_t number);
/* A time alone, in UTC. g_free. */
char *lines_time_text(const struct timespec *time);
void lines_time(GString *text, const char *key, const struct timespec *time);

#endif
