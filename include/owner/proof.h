/* Whose what is dirty in a log is. Looks at nothing but its arguments. */
#ifndef LEAFDISK_OWNER_PROOF_H
#define LEAFDISK_OWNER_PROOF_H

#include "core/answer.h"
#include "owner/owner.h"

/* Whether what is dirty in our cache's log, of the claim with the generation LOG, is
 * to be written to the image. YES: it is. NO: the record of the image proves that it is
 * not. Otherwise *DOUBT is why that is not known, as the end of a sentence. RECORD may be
 * NULL: there is none. */
enum answer owner_prove(const struct owner_record *record, const struct owner_self *self, uint64_t log,
			const char **doubt);

#endif
