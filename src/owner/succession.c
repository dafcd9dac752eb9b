/* Claims that succeed to another.
 *
 * An image takes the name of one that is claimed and gets another name, where its record is copied
 * first. As long as the first may still be asked for at the name, its record stays there; then that
 * of the new one replaces it in one step. */
#include "owner/succession.h"

#include <errno.h>
#include <string.h>

#include "core/error.h"
#include "claim.h"
#include "self.h"
#include "verdict.h"

static enum answer may_succeed(const struct owner_record *record, const struct owner_self *self, uint64_t before,
			       const struct owner_claim *claim)
{
	bool stands = claim_stands(record, self, before);
	bool done = self_is_mount(record, self) && memcmp(record->nonce, claim->nonce, OWNER_ID_BYTES) == 0;

	return stands || done ? ANSWER_YES : ANSWER_NO;
}

enum answer owner_succeed(const char *pool, const char *name, const struct owner_self *self,
			  const struct owner_want *want, uint64_t before, struct owner_claim *claim, bool clean,
			  GError **error)
{
	struct owner_record record = {0};
	struct owner_last last = {.self = self, .image = &want->image};
	enum answer answer = owner_find(pool, name, &record, error);

	if (answer == ANSWER_YES) {
		last.record = &record;
		answer = may_succeed(&record, self, before, claim);
	} else if (answer == ANSWER_NO && before) {
		error_set(error, ENOENT, "%s/.leafdisk/owners/%s: is gone", pool, name);
		answer = ANSWER_UNKNOWN;
	} else if (answer == ANSWER_NO) {
		answer = ANSWER_YES;
	}
	if (answer == ANSWER_YES && !claim_write(pool, name, &last, want, claim, clean, error))
		answer = ANSWER_UNKNOWN;
	owner_record_clear(&record);
	return answer;
}

/* What a command has made nobody's stays so, with what succeeds to it. */
static bool rewrite(const char *pool, const char *name, const struct owner_self *self, struct owner_record *record,
		    const uint8_t nonce[OWNER_ID_BYTES], GError **error)
{
	if (memcmp(record->nonce, nonce, OWNER_ID_BYTES) == 0 || strcmp(record->mode, "none") == 0)
		return true;
	if (!verdict_allows(pool, name, record, self, false, error))
		return false;
	memcpy(record->nonce, nonce, OWNER_ID_BYTES);
	record->generation++;
	record->inode = record->born_ns = 0;
	record->unmarked = record->clean = false;
	return owner_write(pool, name, record, error);
}

bool owner_hand_over(const char *pool, const char *name, const struct owner_self *self,
		     const uint8_t nonce[OWNER_ID_BYTES], GError **error)
{
	struct owner_record record = {0};
	enum answer there = owner_find(pool, name, &record, error);
	bool good = there == ANSWER_NO;

	if (there == ANSWER_YES)
		good = rewrite(pool, name, self, &record, nonce, error);
	owner_record_clear(&record);
	return good;
}

bool owner_forget(const char *pool, const char *name, const uint8_t nonce[OWNER_ID_BYTES], GError **error)
{
	struct owner_record record = {0};
	enum answer there = owner_find(pool, name, &record, error);
	bool good = there != ANSWER_UNKNOWN;

	if (there == ANSWER_YES && memcmp(record.nonce, nonce, OWNER_ID_BYTES) == 0)
		good = owner_remove(pool, name, error);
	owner_record_clear(&record);
	return good;
}
