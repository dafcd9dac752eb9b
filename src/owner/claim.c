/* Claims of images.
 *
 * The first open for writing claims an image: its record names this daemon, is unclean,
 * and has a generation above all before it: the image's too, but where the last record is
 * our cache's it is the next one. Each has a nonce, of 16 random bytes, by which record,
 * log and image know it; those that follow while the image stays open for writing, as its
 * mode changes, keep it. A claim in writeback mode that has not ended goes on
 * when its cache comes back, also in another mount, with the nonce that the log has:
 * nothing of the log must say so anew. The image's lock is held from before the claim
 * until after the release.
 *
 * What is durable when, and what a crash leaves:
 *
 *     1. the log has the nonce of what is dirty already (a claim that goes on), or nothing
 *        is dirty: a crash leaves all as it was
 *     2. the record has the nonce, unclean                the image has the one of before, and nothing is dirty
 *                                                         under the new one: the next claim is another
 *     3. the image has it, with its generation or stamp   all three agree
 *     4. the log has it with the first dirty blocks       they agree
 *     5. the image has all, the log knows that (MIGRATED), then the record is clean: what
 *        the log has under a nonce whose record is clean is of an older copy of the log
 *
 * The nonce before stays in the record as the one that has ended, until another ends. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "core/bytes.h"
#include "core/error.h"
#include "core/log.h"
#include "core/random.h"
#include "core/verdict.h"
#include "owner/proof.h"
#include "claim.h"
#include "renamed.h"
#include "self.h"
#include "verdict.h"

/* ---- Claim ----------------------------------------------------------------- */

static void note_ended(struct owner_record *record, const struct owner_record *before)
{
	bool other = before && memcmp(before->nonce, record->nonce, OWNER_ID_BYTES) != 0;

	if (other && !buffer_is_zero(before->nonce, OWNER_ID_BYTES))
		memcpy(record->ended, before->nonce, OWNER_ID_BYTES);
	else if (before)
		memcpy(record->ended, before->ended, OWNER_ID_BYTES);
}

bool claim_write(const char *pool, const char *name, const struct owner_last *last, const struct owner_want *want,
		 const struct owner_claim *claim, bool clean, GError **error)
{
	const struct owner_self *self = last->self;
	struct owner_record record = {
		.host = g_strdup(self->host),
		.boot_id = g_strdup(self->boot_id),
		.pid = self->pid,
		.pid_start = self->pid_start,
		.pid_space = self->pid_space,
		.cache_path = g_strdup(self->cache_path),
		.cache_generation = self->cache_generation,
		.generation = claim->generation,
		.inode = want->image.inode,
		.born_ns = want->image.born_ns,
		.unmarked = want->image.unmarked,
		.mode = g_strdup(want->mode),
		.clean = clean,
	};
	bool good;

	memcpy(record.machine_id, self->machine_id, OWNER_ID_BYTES);
	memcpy(record.mount_id, self->mount_id, OWNER_ID_BYTES);
	memcpy(record.cache_id, self->cache_id, OWNER_ID_BYTES);
	memcpy(record.nonce, claim->nonce, OWNER_ID_BYTES);
	note_ended(&record, last->record);
	good = owner_write(pool, name, &record, error);
	owner_record_clear(&record);
	return good;
}

/* A full pool must not keep a guest from discarding. The lock is held. A record that
 * stays is not to say that something in a cache is newer than what is written now. */
static bool may_go_unrecorded(const struct owner_record *before, const char *mode, const GError *error)
{
	return strcmp(mode, "writeback") != 0 && (!before || before->clean || !self_is_writeback(before)) &&
	       verdict_of(STORE_RECORD, STORE_WRITE, error_to_errno(error)) == VERDICT_DEGRADE;
}

static struct owner_last last_of(const struct owner_record *record, const struct owner_self *self,
				 const struct owner_image *image)
{
	struct owner_last last = {.self = self, .record = record->host ? record : NULL, .image = image};

	if (!self_is_cache(record, self))
		return last;
	last.owned = record->generation;
	last.goes_on = !record->clean && self_is_writeback(record) && record->cache_generation > 0;
	return last;
}

static bool record_claim(const char *pool, const char *name, const struct owner_last *last,
			 const struct owner_want *want, struct owner_claim *claim, GError **error)
{
	g_autoptr(GError) local = NULL;

	if (claim_write(pool, name, last, want, claim, false, &local))
		return true;
	claim->generation = 0;
	if (may_go_unrecorded(last->record, want->mode, local)) {
		log_warning("%s; only the image's lock tells others that it is in use", local->message);
		return true;
	}
	g_propagate_error(error, g_steal_pointer(&local));
	return false;
}

static void make_nonce(const struct owner_want *want, uint8_t nonce[OWNER_ID_BYTES])
{
	if (want->nonce)
		memcpy(nonce, want->nonce, OWNER_ID_BYTES);
	else
		random_fill(nonce, OWNER_ID_BYTES);
}

static bool claim_after(const char *pool, const char *name, const struct owner_last *last,
			const struct owner_want *want, struct owner_claim *claim, GError **error)
{
	uint64_t recorded = last->record ? last->record->generation : 0;
	uint64_t before = last->owned ? last->owned : MAX(recorded, want->image_generation);

	if (before == UINT64_MAX)
		return error_set(error, EOVERFLOW, "%s/.leafdisk/owners/%s: no generation is left above %" PRIu64, pool,
				 name, before);
	claim->generation = before + 1;
	make_nonce(want, claim->nonce);
	if (!want->prepare || want->prepare(want->opaque, last, claim, error))
		return record_claim(pool, name, last, want, claim, error);
	claim->generation = 0;
	return false;
}

/* An image without a record that says that it was claimed was renamed by hand, or has two
 * names, and its record has the other one. *BEFORE is that; NULL: there is none. */
static bool follow_rename(const char *pool, const char *name, const struct owner_self *self,
			  const struct owner_want *want, struct owner_record *record, char **before, GError **error)
{
	bool claimed = want->image.has_nonce == ANSWER_YES && !buffer_is_zero(want->image.nonce, OWNER_ID_BYTES);

	if (record->host || !claimed)
		return true;
	switch (renamed_find(pool, name, &want->image, before, record, error)) {
	case ANSWER_YES:
		return verdict_allows(pool, *before, record, self, want->locked, error);
	case ANSWER_NO:
		return true;
	case ANSWER_UNKNOWN:
		break;
	}
	return false;
}

/* Unless somebody has claimed another image of that name meanwhile. What is left behind by
 * a crash here is of no image that has the name. */
static void remove_before(const char *pool, const char *before, const struct owner_record *record)
{
	g_autoptr(GError) error = NULL;
	struct owner_record now;
	bool same =
		before && owner_read(pool, before, &now, NULL) && memcmp(now.nonce, record->nonce, OWNER_ID_BYTES) == 0;

	if (same && !owner_remove(pool, before, &error))
		log_warning("%s", error->message);
	if (before)
		owner_record_clear(&now);
}

/* *BEFORE: the name that the record has, of an image that was renamed by hand. */
static bool read_last(const char *pool, const char *name, const struct owner_self *self, const struct owner_want *want,
		      struct owner_record *record, char **before, GError **error)
{
	return verdict_read(pool, name, self, want->locked, record, error) &&
	       follow_rename(pool, name, self, want, record, before, error);
}

bool owner_look(const char *pool, const char *name, const struct owner_self *self, const struct owner_want *want,
		bool (*look)(void *opaque, const struct owner_last *last, GError **error), void *opaque, GError **error)
{
	g_autofree char *before = NULL;
	struct owner_record record;
	bool good = read_last(pool, name, self, want, &record, &before, error);
	struct owner_last last = last_of(&record, self, &want->image);

	good = good && look(opaque, &last, error);
	owner_record_clear(&record);
	return good;
}

bool owner_claim(const char *pool, const char *name, const struct owner_self *self, const struct owner_want *want,
		 struct owner_claim *claim, GError **error)
{
	g_autofree char *before = NULL;
	struct owner_record record;
	bool good = read_last(pool, name, self, want, &record, &before, error);
	struct owner_last last = last_of(&record, self, &want->image);

	*claim = (struct owner_claim){0};
	good = good && claim_after(pool, name, &last, want, claim, error);
	if (good && claim->generation)
		remove_before(pool, before, &record);
	owner_record_clear(&record);
	return good;
}

/* ---- While it lasts, and its end -------------------------------------------- */

bool claim_stands(const struct owner_record *record, const struct owner_self *self, uint64_t generation)
{
	return !record->clean && self_is_mount(record, self) && record->generation == generation;
}

enum answer owner_check(const char *pool, const char *name, const struct owner_self *self, uint64_t generation,
			GError **why)
{
	struct owner_record record;
	enum answer answer;

	if (!owner_read(pool, name, &record, why))
		return ANSWER_UNKNOWN;
	answer = claim_stands(&record, self, generation) ? ANSWER_YES : ANSWER_NO;
	owner_record_clear(&record);
	return answer;
}

enum answer owner_release(const char *pool, const char *name, const struct owner_self *self, uint64_t generation,
			  GError **error)
{
	enum answer released = ANSWER_UNKNOWN;
	struct owner_record record;

	if (generation == 0)
		return ANSWER_YES;
	if (owner_read(pool, name, &record, error)) {
		released = claim_stands(&record, self, generation) ? ANSWER_YES : ANSWER_NO;
		record.clean = true;
	}
	if (released == ANSWER_NO)
		error_set(error, ESTALE, "%s/%s: was taken over by another owner meanwhile", pool, name);
	if (released == ANSWER_YES && !owner_write(pool, name, &record, error))
		released = ANSWER_UNKNOWN;
	owner_record_clear(&record);
	return released;
}
