/* This process, and whether a record is of it. */
#ifndef LEAFDISK_OWNER_SELF_H
#define LEAFDISK_OWNER_SELF_H

#include "owner/owner.h"

bool self_is_mount(const struct owner_record *record, const struct owner_self *self);
/* Of our cache; there is one. */
bool self_is_cache(const struct owner_record *record, const struct owner_self *self);
/* Of this machine, whatever its name was then. */
bool self_is_machine(const struct owner_record *record, const struct owner_self *self);
/* Whether the process that wrote the record runs. UNKNOWN: its number means nothing here. */
enum answer self_runs(const struct owner_record *record, const struct owner_self *self);
bool self_is_writeback(const struct owner_record *record);

#endif
