/* Claims that succeed to another: of an image that takes the name of one. All of it blocks. */
#ifndef LEAFDISK_OWNER_SUCCESSION_H
#define LEAFDISK_OWNER_SUCCESSION_H

#include "owner/owner.h"

/* The image at NAME was replaced by one that SELF has begun under *CLAIM: its record, which is
 * SELF's of generation BEFORE (0: there is none), becomes the new one's, CLEAN or not. YES also where it is already.
 * NO: it is another's. UNKNOWN and ERROR: it cannot be read or written. */
enum answer owner_succeed(const char *pool, const char *name, const struct owner_self *self,
			  const struct owner_want *want, uint64_t before, struct owner_claim *claim, bool clean,
			  GError **error);
/* The image at NAME was replaced by one with the claim NONCE, and a crash came before its record did: the record
 * is the new one's, where SELF may write it. True also where there is none. */
bool owner_hand_over(const char *pool, const char *name, const struct owner_self *self,
		     const uint8_t nonce[OWNER_ID_BYTES], GError **error);
/* No image has NAME any more: its record goes, where it is of the claim NONCE and of no later one. */
bool owner_forget(const char *pool, const char *name, const uint8_t nonce[OWNER_ID_BYTES], GError **error);

#endif
