/* Whose what is dirty in a log is. */
#ifndef LEAFDISK_OWNER_PROOF_H
#define LEAFDISK_OWNER_PROOF_H

#include "core/answer.h"
#include "owner/owner.h"

/* Whether what is dirty in our cache's log, of the claim LOG (zeros: of a log that knows no nonces), is to be written
 * to the image. YES: it is. NO: record and image prove that it is not. Otherwise *DOUBT is why that is not known, as
 * the end of a sentence. */
enum answer owner_prove(const struct owner_last *last, const struct owner_claim *log, const char **doubt);

/* Whether the image has had, under the claim LOG, what came after REACHED, the highest order
 * that the log knows of its changes: the log is an older copy of itself, or has lost its end,
 * and nothing of it is to be written to the image. */
bool owner_is_past(const struct owner_image *image, const struct owner_claim *log, uint64_t reached);

/* IMAGE is the very file that RECORD is of, as far as its file system tells; or both are none. */
bool owner_is_file(const struct owner_record *record, const struct owner_image *image);
/* YES: the image tells its claim, zeros where it was never claimed. NO: it has no place for
 * one; or it bears no mark, and RECORD says that it took none. UNKNOWN: it did not tell. */
enum answer owner_tells(const struct owner_record *record, const struct owner_image *image);

/* Calls LOOK with what a claim would find, and claims nothing: when owner_allows(). False
 * and ERROR: that does not, or LOOK said so. */
bool owner_look(const char *pool, const char *name, const struct owner_self *self, const struct owner_want *want,
		bool (*look)(void *opaque, const struct owner_last *last, GError **error), void *opaque,
		GError **error);

#endif
