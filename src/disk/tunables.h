/* What can be changed while a pool is in use. */
#ifndef LEAFDISK_DISK_TUNABLES_H
#define LEAFDISK_DISK_TUNABLES_H

#include "disk/pool.h"

struct tunables;

struct tunables *tunables_new(const struct disk_tunables *values);
void tunables_free(struct tunables *tunables); /* NULL is allowed */
/* Any thread. */
void tunables_get(struct tunables *tunables, struct disk_tunables *values);
bool tunables_set(struct tunables *tunables, const char *key, const char *value, GError **error);

#endif
