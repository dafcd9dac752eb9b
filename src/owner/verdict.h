/* Records and whether they let us in. */
#ifndef LEAFDISK_OWNER_VERDICT_H
#define LEAFDISK_OWNER_VERDICT_H

#include "owner/owner.h"

/* As owner_allows(), of a record that was read. */
bool verdict_allows(const char *pool, const char *name, const struct owner_record *record,
		    const struct owner_self *self, bool locked, GError **error);
/* As owner_allows(); RECORD is that which was read, empty where there is none. */
bool verdict_read(const char *pool, const char *name, const struct owner_self *self, bool locked,
		  struct owner_record *record, GError **error);

#endif
