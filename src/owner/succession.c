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
	bool stands = before == 0 || claim_stands(record, self, before);
	bool done = self_is_mount(record, self) && memcmp(record->nonce, claim->nonce, OWNER_ID_BYTES) == 0;

	return stands || done ? ANSWER_YES : ANSWER_NO;
}

enum answer owner_succeed(const char *pool, const char *name, const struct owner_self *self,
			  const struct owner_want *want, uint64_t before, struct owner_claim *claim, bool clean,
			  GError **error)
{
	g_autoptr(GError) inner = NULL;
	struct owner_record record = {0};
	struct owner_last last = {.self = self, .image = &want->image};
	enum answer answer = ANSWER_YES;

	if (owner_read(pool, name, &record, &inner)) {
		last.record = &record;
		answer = may_succeed(&record, self, before, claim);
	} else if (error_to_errno(inner) != -ENOENT || before) {
		answer = ANSWER_UNKNOWN;
	}
	if (answer == ANSWER_UNKNOWN)
		g_propagate_error(error, g_steal_pointer(&inner));
	if (answer == ANSWER_YES && !claim_write(pool, name, &last, want, claim, clean, error))
		answer = ANSWER_UNKNOWN;
	owner_record_clear(&record);
	return answer;
}

static bool rewrite(const char *pool, const char *name, const struct owner_self *self, struct owner_record *record,
		    const uint8_t nonce[OWNER_ID_BYTES], GError **error)
{
	if (memcmp(record->nonce, nonce, OWNER_ID_BYTES) == 0)
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
	g_autoptr(GError) inner = NULL;
	struct owner_record record = {0};
	bool good;

	if (owner_read(pool, name, &record, &inner)) {
		good = rewrite(pool, name, self, &record, nonce, error);
	} else {
		good = error_to_errno(inner) == -ENOENT;
		if (!good)
			g_propagate_error(error, g_steal_pointer(&inner));
	}
	owner_record_clear(&record);
	return good;
}
