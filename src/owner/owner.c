/* Who may write an image.
 *
 * The first open for writing claims the image: its record names this daemon,
 * is unclean, and has a generation above all before it: the image's too, but
 * where the last record is our cache's it is the next one. The log has it before
 * the record does, and is known by being one ahead when a record was not written.
 * The last close makes the record clean. What an unclean record means to the next who comes:
 *
 *     record                                           verdict    claim
 *     none; or clean                                   FREE       allowed
 *     unclean, this mount's                            MINE       allowed
 *     unclean, mode writeback, our cache's, which
 *         has been as far as that claim                MINE       allowed
 *         has not: it is a copy from before            IN_COPY    refused: its changes are in another
 *     unclean, mode writeback, another cache's         IN_CACHE   refused: its changes may be only there
 *     unclean, another mode, another host's            FOREIGN    refused: nobody here can tell if it runs
 *     unclean, another mode, this host's, and
 *         we hold the image's lock                     STALE      allowed: nobody else has it open
 *         the host was restarted                       STALE      allowed
 *         that process is gone                         STALE      allowed
 *         otherwise                                    LIVE       refused
 *     what is no record                                -          refused: it could have been any of these
 *
 * In direct and persistent mode the image has all that was acknowledged, so a
 * record that goes stale takes nothing with it; in writeback mode it may.
 *
 * The image's lock is held from before the claim until after the release.
 * A claim in writeback mode that has not ended goes on when its cache comes back, also
 * in another mount, and keeps its generation: nothing of the log must say so anew. Each
 * mount raises the generation of the cache's log; a copy from before another mount's
 * claim has no higher one than that mount had.
 *
 * What is dirty in our cache's log goes to the image on proof only:
 *
 *     record                                           the log's generation   answer
 *     none                                             any                    unknown
 *     another's, or nobody's                           any                    no
 *     ours; unclean, mode writeback                    its, or the next       yes
 *     ours; another mode                               its, or before         no: the image has had all of it
 *     ours; clean                                      before its             no: the same, and a later claim ended
 *     ours; otherwise                                  any                    unknown
 *
 * Records add what a lock cannot say: who it is, across hosts whose file
 * systems do not share locks, and after the daemon is gone. */
#include "owner/owner.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "core/error.h"
#include "core/log.h"
#include "core/verdict.h"
#include "owner/proof.h"

#define BOOT_ID_PATH "/proc/sys/kernel/random/boot_id"

/* ---- This process ---------------------------------------------------------- */

static void fill_random(uint8_t id[OWNER_ID_BYTES])
{
	while (getrandom(id, OWNER_ID_BYTES, 0) != OWNER_ID_BYTES)
		;
}

void owner_self_init(struct owner_self *self, const char *cache_path, const uint8_t *cache_id)
{
	char *resolved = cache_path ? realpath(cache_path, NULL) : NULL;
	struct utsname names;

	*self = (struct owner_self){.pid = getpid(), .cache_path = g_strdup(resolved ? resolved : cache_path)};
	free(resolved);
	self->host = g_strdup(uname(&names) == 0 ? names.nodename : "");
	if (g_file_get_contents(BOOT_ID_PATH, &self->boot_id, NULL, NULL))
		g_strstrip(self->boot_id);
	else
		self->boot_id = g_strdup("");
	fill_random(self->mount_id);
	if (cache_id)
		memcpy(self->cache_id, cache_id, OWNER_ID_BYTES);
}

void owner_self_clear(struct owner_self *self)
{
	g_free(self->host);
	g_free(self->boot_id);
	g_free(self->cache_path);
	*self = (struct owner_self){0};
}

/* ---- The decision ---------------------------------------------------------- */

static bool is_mount(const struct owner_record *record, const struct owner_self *self)
{
	return memcmp(record->mount_id, self->mount_id, OWNER_ID_BYTES) == 0;
}

static bool is_cache(const struct owner_record *record, const struct owner_self *self)
{
	static const uint8_t none[OWNER_ID_BYTES];

	return memcmp(self->cache_id, none, OWNER_ID_BYTES) != 0 &&
	       memcmp(record->cache_id, self->cache_id, OWNER_ID_BYTES) == 0;
}

/* Our own number in another's record is one that was used again. */
static bool process_runs(int64_t pid, const struct owner_self *self)
{
	return pid > 0 && pid != self->pid && (kill((pid_t)pid, 0) == 0 || errno == EPERM);
}

static bool is_writeback(const struct owner_record *record)
{
	return strcmp(record->mode, "writeback") == 0;
}

/* A copy of the cache, from before the claim that RECORD has. */
static bool is_older_cache(const struct owner_record *record, const struct owner_self *self)
{
	return record->cache_generation >= self->cache_generation && record->cache_generation > 0;
}

enum owner_verdict owner_judge(const struct owner_record *record, const struct owner_self *self, bool locked)
{
	if (record->clean)
		return OWNER_FREE;
	if (is_mount(record, self))
		return OWNER_MINE;
	if (is_writeback(record) && is_cache(record, self))
		return is_older_cache(record, self) ? OWNER_IN_COPY : OWNER_MINE;
	if (is_writeback(record))
		return OWNER_IN_CACHE;
	if (strcmp(record->host, self->host) != 0)
		return OWNER_FOREIGN;
	if (locked || strcmp(record->boot_id, self->boot_id) != 0 || !process_runs(record->pid, self))
		return OWNER_STALE;
	return OWNER_LIVE;
}

/* Whether the image had all of the claim LOG when RECORD was written. */
static bool is_over(const struct owner_record *record, uint64_t log)
{
	if (log == 0 || log > record->generation)
		return false;
	return !is_writeback(record) || (record->clean && log < record->generation);
}

static enum answer prove_of_ours(const struct owner_record *record, uint64_t log, const char **doubt)
{
	bool same = log == record->generation || log == record->generation + 1;

	if (is_over(record, log))
		return ANSWER_NO;
	if (is_writeback(record) && !record->clean && same)
		return ANSWER_YES;
	*doubt = record->clean && same ? "its owner record says that the image has them all"
				       : "they are of another claim than its owner record";
	return ANSWER_UNKNOWN;
}

enum answer owner_prove(const struct owner_record *record, const struct owner_self *self, uint64_t log,
			const char **doubt)
{
	if (record)
		return is_cache(record, self) ? prove_of_ours(record, log, doubt) : ANSWER_NO;
	*doubt = "it has no owner record any more";
	return ANSWER_UNKNOWN;
}

char *owner_quote(const char *text)
{
	for (const char *p = text; *p; p++)
		if (!g_ascii_isalnum(*p) && !strchr("/._-+:@%,=", *p))
			return g_shell_quote(text);
	return *text ? g_strdup(text) : g_shell_quote(text);
}

char *owner_describe(const struct owner_record *record)
{
	return g_strdup_printf("host %s (pid %" G_GINT64_FORMAT ", mode %s, since %s)", record->host, record->pid,
			       record->mode, record->since);
}

static bool refuse_in_cache(const char *pool, const char *name, const struct owner_record *record, GError **error)
{
	g_autofree char *pool_word = owner_quote(pool), *name_word = owner_quote(name);
	g_autofree char *cache = owner_quote(record->cache_path), *holder = owner_describe(record);

	return error_set(error, EBUSY,
			 "%s/%s: its newest changes may be only in the cache %s of %s; mount the pool with that cache "
			 "(-o cache=%s,mode=writeback), or give these changes up: leafctl unlock --force %s %s",
			 pool, name, record->cache_path, holder, cache, pool_word, name_word);
}

static bool refuse_foreign(const char *pool, const char *name, const struct owner_record *record, GError **error)
{
	g_autofree char *pool_word = owner_quote(pool), *name_word = owner_quote(name);
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
	g_autofree char *pool_word = owner_quote(pool), *name_word = owner_quote(name);
	g_autofree char *holder = owner_describe(record);

	return error_set(
		error, EBUSY,
		"%s/%s: its newest changes are in the cache of %s, and the cache here is an older copy of that; "
		"mount with the other one, or, to give those changes up: leafctl unlock --force %s %s",
		pool, name, holder, pool_word, name_word);
}

static bool refuse_damaged(const char *pool, const char *name, const GError *reason, GError **error)
{
	g_autofree char *pool_word = owner_quote(pool), *name_word = owner_quote(name);

	return error_set(error, EBUSY,
			 "%s; so nobody knows who owns %s/%s; when no other mount does: leafctl unlock --force %s %s",
			 reason->message, pool, name, pool_word, name_word);
}

static bool allows(const char *pool, const char *name, const struct owner_record *record, const struct owner_self *self,
		   bool locked, GError **error)
{
	switch (owner_judge(record, self, locked)) {
	case OWNER_IN_CACHE:
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

/* No record: true, and RECORD is empty. */
static bool read_and_judge(const char *pool, const char *name, const struct owner_self *self, bool locked,
			   struct owner_record *record, GError **error)
{
	g_autoptr(GError) inner = NULL;

	if (owner_read(pool, name, record, &inner))
		return allows(pool, name, record, self, locked, error);
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
	bool good = read_and_judge(pool, name, self, locked, &record, error);

	owner_record_clear(&record);
	return good;
}

/* ---- Claim and release ----------------------------------------------------- */

static bool write_claim(const char *pool, const char *name, const struct owner_self *self, const char *mode,
			uint64_t generation, GError **error)
{
	struct owner_record record = {
		.host = g_strdup(self->host),
		.boot_id = g_strdup(self->boot_id),
		.pid = self->pid,
		.cache_path = g_strdup(self->cache_path),
		.cache_generation = self->cache_generation,
		.generation = generation,
		.mode = g_strdup(mode),
	};
	bool good;

	memcpy(record.mount_id, self->mount_id, OWNER_ID_BYTES);
	memcpy(record.cache_id, self->cache_id, OWNER_ID_BYTES);
	good = owner_write(pool, name, &record, error);
	owner_record_clear(&record);
	return good;
}

/* A full pool must not keep a guest from discarding. The lock is held. A record that
 * stays is not to say that something in a cache is newer than what is written now. */
static bool may_go_unrecorded(const struct owner_record *before, const char *mode, const GError *error)
{
	return strcmp(mode, "writeback") != 0 && (!before || before->clean || !is_writeback(before)) &&
	       verdict_of(STORE_RECORD, STORE_WRITE, error_to_errno(error)) == VERDICT_DEGRADE;
}

static struct owner_last last_of(const struct owner_record *record, const struct owner_self *self)
{
	struct owner_last last = {.self = self, .record = record->host ? record : NULL};

	if (!is_cache(record, self))
		return last;
	last.owned = record->generation;
	last.goes_on = !record->clean && is_writeback(record) && record->cache_generation > 0;
	return last;
}

static bool record_claim(const char *pool, const char *name, const struct owner_last *last,
			 const struct owner_want *want, uint64_t *generation, GError **error)
{
	g_autoptr(GError) local = NULL;

	if (write_claim(pool, name, last->self, want->mode, *generation, &local))
		return true;
	*generation = 0;
	if (may_go_unrecorded(last->record, want->mode, local)) {
		log_warning("%s; only the image's lock tells others that it is in use", local->message);
		return true;
	}
	g_propagate_error(error, g_steal_pointer(&local));
	return false;
}

static bool claim_after(const char *pool, const char *name, const struct owner_last *last,
			const struct owner_want *want, uint64_t *generation, GError **error)
{
	uint64_t recorded = last->record ? last->record->generation : 0;
	uint64_t before = last->owned ? last->owned : MAX(recorded, want->image_generation);

	if (before == UINT64_MAX)
		return error_set(error, EOVERFLOW, "%s/.leafdisk/owners/%s: no generation is left above %" PRIu64, pool,
				 name, before);
	*generation = before + 1;
	if (!want->prepare || want->prepare(want->opaque, last, generation, error))
		return record_claim(pool, name, last, want, generation, error);
	*generation = 0;
	return false;
}

bool owner_claim(const char *pool, const char *name, const struct owner_self *self, const struct owner_want *want,
		 uint64_t *generation, GError **error)
{
	struct owner_record record;
	bool good = read_and_judge(pool, name, self, want->locked, &record, error);
	struct owner_last last = last_of(&record, self);

	*generation = 0;
	good = good && claim_after(pool, name, &last, want, generation, error);
	owner_record_clear(&record);
	return good;
}

static bool still_stands(const struct owner_record *record, const struct owner_self *self, uint64_t generation)
{
	return !record->clean && is_mount(record, self) && record->generation == generation;
}

enum answer owner_check(const char *pool, const char *name, const struct owner_self *self, uint64_t generation,
			GError **why)
{
	struct owner_record record;
	enum answer answer;

	if (!owner_read(pool, name, &record, why))
		return ANSWER_UNKNOWN;
	answer = still_stands(&record, self, generation) ? ANSWER_YES : ANSWER_NO;
	owner_record_clear(&record);
	return answer;
}

bool owner_release(const char *pool, const char *name, const struct owner_self *self, uint64_t generation,
		   GError **error)
{
	struct owner_record record;
	bool good;

	if (generation == 0)
		return true;
	good = owner_read(pool, name, &record, error);
	if (good && !still_stands(&record, self, generation)) {
		good = error_set(error, ESTALE, "%s/%s: was taken over by another owner meanwhile", pool, name);
	} else if (good) {
		record.clean = true;
		good = owner_write(pool, name, &record, error);
	}
	owner_record_clear(&record);
	return good;
}

/* ---- Locks ----------------------------------------------------------------- */

/* Otherwise it is another program that holds the lock. */
static bool may_hold_lock(const struct owner_record *record)
{
	struct owner_self self;
	bool here, may;

	owner_self_init(&self, NULL, NULL);
	here = strcmp(record->host, self.host) == 0;
	may = !here || record->pid == self.pid ||
	      (strcmp(record->boot_id, self.boot_id) == 0 && process_runs(record->pid, &self));
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
