/* Claims as records. */
#ifndef LEAFDISK_OWNER_CLAIM_H
#define LEAFDISK_OWNER_CLAIM_H

#include "owner/owner.h"

/* The record of CLAIM, after LAST, CLEAN or not. */
bool claim_write(const char *pool, const char *name, const struct owner_last *last, const struct owner_want *want,
		 const struct owner_claim *claim, bool clean, GError **error);
/* Whether RECORD is of a claim of SELF's mount with GENERATION that has not ended. */
bool claim_stands(const struct owner_record *record, const struct owner_self *self, uint64_t generation);

#endif
