/* Who may write an image.
 *
 * What an unclean record means to the next who comes:
 *
 *     record                                           verdict    claim
 *     none; or clean                                   FREE       allowed
 *     unclean, this mount's                            MINE       allowed
 *     unclean, mode writeback, our cache's, which
 *         has been in the mount of that claim          MINE       allowed
 *         has not: it is a copy from before            IN_COPY    refused: its changes are in another
 *     unclean, mode writeback, another cache's         IN_CACHE   refused: its changes may be only there
 *     unclean, another mode, another machine's         FOREIGN    refused: nobody here can tell if it runs
 *     unclean, another mode, this machine's, and
 *         we hold the image's lock, which reaches      STALE      allowed: nobody else has it open
 *         that process is gone                         STALE      allowed
 *         that process runs                            LIVE       refused
 *         its number means nothing here                FOREIGN    refused
 *     what is no record                                -          refused: it could have been any of these
 *
 * In direct and persistent mode the image has all that was acknowledged, so a
 * record that goes stale takes nothing with it; in writeback mode it may.
 * Each mount raises the generation of a cache's log and notes its number there; a copy from
 * before another mount's claim has no higher generation than that mount had, or that of a
 * mount of its own with another number.
 *
 * Records add what a lock cannot say: who it is, across hosts whose file
 * systems do not share locks, and after the daemon is gone. */
#include "owner/newer.h"

#include <errno.h>
#include <string.h>

#include "core/bytes.h"
#include "core/error.h"
#include "core/shell.h"
#include "renamed.h"
#include "self.h"
#include "verdict.h"

/* A copy of the cache, from before the claim that RECORD has. */
static bool is_older_cache(const struct owner_record *record, const struct owner_self *self)
{
	uint64_t generation = record->cache_generation;
	const uint8_t *mount;

	if (generation == 0 || generation >= self->cache_generation)
		return generation > 0;
	if (!self->cache_mounts || self->cache_generation - generation >= OWNER_MOUNTS)
		return false;
	mount = self->cache_mounts[generation % OWNER_MOUNTS];
	return !buffer_is_zero(mount, OWNER_ID_BYTES) && memcmp(mount, record->mount_id, OWNER_ID_BYTES) != 0;
}

enum owner_verdict owner_judge(const struct owner_record *record, const struct owner_self *self, bool locked)
{
	if (record->clean)
		return OWNER_FREE;
	if (self_is_mount(record, self))
		return OWNER_MINE;
	if (self_is_writeback(record) && self_is_cache(record, self))
		return is_older_cache(record, self) ? OWNER_IN_COPY : OWNER_MINE;
	if (self_is_writeback(record))
		return OWNER_IN_CACHE;
	if (!self_is_machine(record, self))
		return OWNER_FOREIGN;
	if (locked)
		return OWNER_STALE;
	switch (self_runs(record, self)) {
	case ANSWER_YES:
		return OWNER_LIVE;
	case ANSWER_NO:
		return OWNER_STALE;
	case ANSWER_UNKNOWN:
		break;
	}
	return OWNER_FOREIGN;
}

char *owner_describe(const struct owner_record *record)
{
	return g_strdup_printf("host %s (pid %" G_GINT64_FORMAT ", mode %s, since %s)", record->host, record->pid,
			       record->mode, record->since);
}

/* Where that mount is, the changes are got by what is told to it, and nothing is to be given up. */
static bool refuse_in_mount(const char *pool, const char *name, const struct owner_record *record, GError **error)
{
	g_autofree char *holder = owner_describe(record);

	return error_set(error, EBUSY,
			 "%s/%s: its newest changes may be only in the cache %s of %s, which is mounted: leafctl drain "
			 "brings them into the pool, and the mount is done with the image when nothing has the disk "
			 "open",
			 pool, name, record->cache_path, holder);
}

static bool refuse_in_cache(const char *pool, const char *name, const struct owner_record *record, GError **error)
{
	g_autofree char *pool_word = shell_quote(pool), *name_word = shell_quote(name);
	g_autofree char *cache = shell_quote(record->cache_path), *holder = owner_describe(record);

	return error_set(
		error, EBUSY,
		"%s/%s: its newest changes may be only in the cache %s of %s; mount the pool with that cache "
		"(-o cache=%s,mode=writeback), or have it bring them into the pool: leafctl cache drain %s; or "
		"give these changes up: leafctl unlock --force %s %s",
		pool, name, record->cache_path, holder, cache, cache, pool_word, name_word);
}

static bool refuse_foreign(const char *pool, const char *name, const struct owner_record *record, GError **error)
{
	g_autofree char *pool_word = shell_quote(pool), *name_word = shell_quote(name);
	g_autofree char *holder = owner_describe(record);

	return error_set(error, EBUSY,
			 "%s/%s: is owned by %s; unmount it there, or, when that host no longer has it mounted: "
			 "leafctl unlock %s %s",
			 pool, name, holder, pool_word, name_word);
}

static bool refuse_live(const char *pool, const char *name, const struct owner_record *record, GError **error)
{
	g_autofree char *holder = owner_describe(record);

	return error_set(error, EBUSY, "%s/%s: is in use by another leafdisk: %s; unmount that one first", pool, name,
			 holder);
}

static bool refuse_in_copy(const char *pool, const char *name, const struct owner_record *record, GError **error)
{
	g_autofree char *pool_word = shell_quote(pool), *name_word = shell_quote(name);
	g_autofree char *holder = owner_describe(record);

	return error_set(
		error, EBUSY,
		"%s/%s: its newest changes are in the cache of %s, and the cache here is an older copy of that; "
		"mount with the other one, or, to give those changes up: leafctl unlock --force %s %s",
		pool, name, holder, pool_word, name_word);
}

static bool refuse_damaged(const char *pool, const char *name, const GError *reason, GError **error)
{
	g_autofree char *pool_word = shell_quote(pool), *name_word = shell_quote(name);

	return error_set(error, EBUSY,
			 "%s; so nobody knows who owns %s/%s; when no other mount does: leafctl unlock --force %s %s",
			 reason->message, pool, name, pool_word, name_word);
}

bool verdict_allows(const char *pool, const char *name, const struct owner_record *record,
		    const struct owner_self *self, bool locked, GError **error)
{
	switch (owner_judge(record, self, locked)) {
	case OWNER_IN_CACHE:
		if (self_is_machine(record, self) && self_runs(record, self) == ANSWER_YES)
			return refuse_in_mount(pool, name, record, error);
		return refuse_in_cache(pool, name, record, error);
	case OWNER_IN_COPY:
		return refuse_in_copy(pool, name, record, error);
	case OWNER_FOREIGN:
		return refuse_foreign(pool, name, record, error);
	case OWNER_LIVE:
		return refuse_live(pool, name, record, error);
	case OWNER_FREE:
	case OWNER_MINE:
	case OWNER_STALE:
		break;
	}
	return true;
}

bool verdict_read(const char *pool, const char *name, const struct owner_self *self, bool locked,
		  struct owner_record *record, GError **error)
{
	g_autoptr(GError) inner = NULL;

	if (owner_read(pool, name, record, &inner))
		return verdict_allows(pool, name, record, self, locked, error);
	if (error_to_errno(inner) == -ENOENT)
		return true;
	if (error_to_errno(inner) == -EINVAL)
		return refuse_damaged(pool, name, inner, error);
	g_propagate_error(error, g_steal_pointer(&inner));
	return false;
}

bool owner_allows(const char *pool, const char *name, const struct owner_self *self, bool locked, GError **error)
{
	struct owner_record record;
	bool good = verdict_read(pool, name, self, locked, &record, error);

	owner_record_clear(&record);
	return good;
}

static bool is_elsewhere(enum owner_verdict verdict)
{
	return verdict == OWNER_IN_CACHE || verdict == OWNER_IN_COPY;
}

static enum answer lacks(const char *pool, const char *name, const struct owner_record *record,
			 const struct owner_self *self, GError **why)
{
	bool newer =
		is_elsewhere(owner_judge(record, self, false)) && !verdict_allows(pool, name, record, self, false, why);

	return newer ? ANSWER_YES : ANSWER_NO;
}

enum answer owner_has_newer(const char *pool, const char *name, const struct owner_self *self, GError **why)
{
	struct owner_record record;
	g_autoptr(GError) inner = NULL;
	enum answer newer;

	if (!owner_read(pool, name, &record, &inner)) {
		if (error_to_errno(inner) == -ENOENT)
			return ANSWER_NO;
		if (error_to_errno(inner) == -EINVAL)
			refuse_damaged(pool, name, inner, why);
		else
			g_propagate_error(why, g_steal_pointer(&inner));
		return ANSWER_UNKNOWN;
	}
	newer = lacks(pool, name, &record, self, why);
	owner_record_clear(&record);
	return newer;
}

enum answer owner_has_newer_as(const char *pool, const char *name, const struct owner_self *self,
			       const struct owner_image *image, GError **why)
{
	bool claimed = image->has_nonce == ANSWER_YES && !buffer_is_zero(image->nonce, OWNER_ID_BYTES);
	struct owner_record record = {0};
	g_autofree char *before = NULL;
	enum answer newer = ANSWER_NO;

	if (claimed && owner_find(pool, name, &record, NULL) == ANSWER_NO)
		newer = renamed_find(pool, name, image, &before, &record, why);
	if (newer == ANSWER_YES)
		newer = lacks(pool, before, &record, self, why);
	owner_record_clear(&record);
	return newer;
}

/* ---- Locks ----------------------------------------------------------------- */

/* Otherwise it is another program that holds the lock. */
static bool may_hold_lock(const struct owner_record *record)
{
	struct owner_self self;
	bool may;

	owner_self_init(&self, NULL, NULL);
	may = !self_is_machine(record, &self) || record->pid == self.pid ||
	      (strcmp(record->boot_id, self.boot_id) == 0 && self_runs(record, &self) != ANSWER_NO);
	owner_self_clear(&self);
	return may && !record->clean;
}

void owner_explain_lock(const struct owner_place *place, GError **error)
{
	struct owner_record record = {0};

	if (error && *error && error_to_errno(*error) == -EBUSY &&
	    owner_read(place->pool, place->name, &record, NULL) && may_hold_lock(&record)) {
		g_clear_error(error);
		refuse_live(place->pool, place->name, &record, error);
	}
	owner_record_clear(&record);
}
