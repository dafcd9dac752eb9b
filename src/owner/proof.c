/* Whose what is dirty in a log is.
 *
 * Three know the nonce of a claim: the log with what is dirty, the owner record, and the
 * image itself. L is the log's.
 *
 *     record                    image has L     image has another, or none     image has no place for it
 *     of nobody, by command     no              no                             no
 *     L has ended               no              no                             no
 *     L, another mode           no              no                             no: the image has had all of it
 *     L, writeback, unclean     yes             unknown: it was replaced       yes, where the file is the same
 *     L, writeback, clean       unknown: the log is an older copy, in each case
 *     another                   unknown         no                             no
 *     none                      yes             unknown                        unknown
 *
 * And before all that: where image and log have L, the image knows up to which order it may
 * have what is dirty under L. That order was in the log, durably, before the image got the
 * batch. A log that has not come as far is older than the image, in each case: no. What of
 * it is dirty is what the image has had, or older.
 *
 * The log of an earlier version knows generations only, as do records of such a one:
 *
 *     record                                           the log's generation   answer
 *     none                                             any                    unknown
 *     another's, or nobody's                           any                    no
 *     ours; unclean, mode writeback                    its, or the next       yes
 *     ours; another mode                               its, or before         no: the image has had all of it
 *     ours; clean                                      before its             no: the same, and a later claim ended
 *     ours; otherwise                                  any                    unknown */
#include "owner/proof.h"

#include <string.h>

#include "core/bytes.h"
#include "self.h"

static enum answer unknown(const char **doubt, const char *why)
{
	*doubt = why;
	return ANSWER_UNKNOWN;
}

static bool is_zero(const uint8_t nonce[OWNER_ID_BYTES])
{
	return buffer_is_zero(nonce, OWNER_ID_BYTES);
}

static bool is_same(const uint8_t left[OWNER_ID_BYTES], const uint8_t right[OWNER_ID_BYTES])
{
	return memcmp(left, right, OWNER_ID_BYTES) == 0;
}

/* ---- By generations --------------------------------------------------------- */

/* Whether the image had all of the claim LOG when RECORD was written. */
static bool is_over(const struct owner_record *record, uint64_t log)
{
	if (log == 0 || log > record->generation)
		return false;
	return !self_is_writeback(record) || (record->clean && log < record->generation);
}

static enum answer prove_of_ours(const struct owner_record *record, uint64_t log, const char **doubt)
{
	bool same = log == record->generation || log == record->generation + 1;

	if (is_over(record, log))
		return ANSWER_NO;
	if (self_is_writeback(record) && !record->clean && same)
		return ANSWER_YES;
	return unknown(doubt, record->clean && same ? "its owner record says that the image has them all"
						    : "they are of another claim than its owner record");
}

static enum answer prove_by_generation(const struct owner_last *last, uint64_t log, const char **doubt)
{
	if (!last->record)
		return unknown(doubt, "it has no owner record any more");
	return self_is_cache(last->record, last->self) ? prove_of_ours(last->record, log, doubt) : ANSWER_NO;
}

/* ---- By nonces -------------------------------------------------------------- */

static enum answer prove_by_image(const struct owner_image *image, const uint8_t log[OWNER_ID_BYTES],
				  const char **doubt)
{
	switch (image->has_nonce) {
	case ANSWER_YES:
		if (is_same(image->nonce, log))
			return ANSWER_YES;
		return unknown(doubt, "it has no owner record any more, and the image does not have their claim");
	case ANSWER_NO:
		return unknown(doubt, "it has no owner record any more, and no place for a claim");
	case ANSWER_UNKNOWN:
		break;
	}
	return unknown(doubt, "the image does not tell its claim");
}

/* The inode of a file that was removed is the next one's. */
bool owner_is_file(const struct owner_record *record, const struct owner_image *image)
{
	return record->inode == image->inode && (!record->born_ns || record->born_ns == image->born_ns);
}

enum answer owner_tells(const struct owner_record *record, const struct owner_image *image)
{
	bool unmarked = record->unmarked && image->unmarked && record->born_ns > 0;

	return unmarked && image->has_nonce == ANSWER_YES ? ANSWER_NO : image->has_nonce;
}

/* The record has the log's nonce. */
static enum answer prove_agreed(const struct owner_last *last, const struct owner_claim *claim, const char **doubt)
{
	const struct owner_image *image = last->image;
	const uint8_t *log = claim->nonce;

	if (!self_is_writeback(last->record) || is_over(last->record, claim->generation))
		return ANSWER_NO;
	if (last->record->clean)
		return unknown(doubt, "its owner record says that the image has them all, so the cache is an older "
				      "copy of itself");
	switch (owner_tells(last->record, image)) {
	case ANSWER_YES:
		if (is_same(image->nonce, log))
			return ANSWER_YES;
		return unknown(doubt, "the image does not have their claim: it was replaced, or is an older copy of "
				      "itself");
	case ANSWER_NO:
		if (owner_is_file(last->record, image))
			return ANSWER_YES;
		return unknown(doubt, "the image is another file than was claimed");
	case ANSWER_UNKNOWN:
		break;
	}
	return unknown(doubt, "the image does not tell its claim");
}

static enum answer prove_disagreed(const struct owner_image *image, const uint8_t log[OWNER_ID_BYTES],
				   const char **doubt)
{
	switch (image->has_nonce) {
	case ANSWER_YES:
		if (!is_same(image->nonce, log))
			return ANSWER_NO;
		return unknown(doubt, "its owner record has another claim than the image and they have");
	case ANSWER_NO:
		return ANSWER_NO;
	case ANSWER_UNKNOWN:
		break;
	}
	return unknown(doubt, "the image does not tell its claim");
}

bool owner_is_past(const struct owner_image *image, const struct owner_claim *log, uint64_t reached)
{
	return image->has_nonce == ANSWER_YES && !is_zero(log->nonce) && is_same(image->nonce, log->nonce) &&
	       image->progress > reached;
}

enum answer owner_prove(const struct owner_last *last, const struct owner_claim *log, const char **doubt)
{
	const struct owner_record *record = last->record;

	if (is_zero(log->nonce))
		return prove_by_generation(last, log->generation, doubt);
	if (!record)
		return prove_by_image(last->image, log->nonce, doubt);
	if (strcmp(record->mode, "none") == 0 || is_same(record->ended, log->nonce))
		return ANSWER_NO;
	if (is_same(record->nonce, log->nonce))
		return prove_agreed(last, log, doubt);
	return prove_disagreed(last->image, log->nonce, doubt);
}
