/* The migrator: one thread for a pool, which writes what is dirty in the cache
 * back to the images, batch by batch.
 *
 * When a disk's dirty blocks go:
 *     urged     somebody drains it
 *     suspended the cache fails: everything goes that can be read
 *     short     the log has little room, and this disk holds its oldest end
 *     full      dirty bytes are past migrate_threshold of what is allowed
 *     old       the oldest is older than max_dirty_age
 *     idle      neither writes to the cache nor reads from the pool for
 *               migrate_idle_ms
 * Only whole epochs go. All but `idle` and `full` may end one for that; the last
 * close of a disk has ended one too.
 *
 * A batch that fails is tried again, after a while that doubles up to
 * RETRY_LONGEST_NS, a little more or less so that many hosts do not come back
 * at once. An outage is one line in the log, and its end another.
 *
 * A full store gets smaller batches, down to an epoch, then pieces of that; what
 * is discarded later may be what makes room for it, so an epoch for which there is
 * none is tried again together with all up to such discards. Once there is room
 * the batches grow again.
 *
 * A disk goes AWAY from a suspended cache once nothing of it is dirty, and
 * comes back when the cache works again. It is FAILED when a block of it cannot
 * be read any more, or when another has taken its image over.
 *
 * The backlogs' lock is not held while a batch is under way; `busy` is. */
#include "migrate/migrator.h"

#include <errno.h>
#include <limits.h>

#include "cache/cache.h"
#include "apply.h"
#include "core/counters.h"
#include "core/error.h"
#include "core/log.h"
#include "core/thread.h"
#include "core/time.h"
#include "disk/claim.h"
#include "disk/object.h"
#include "disk/route.h"
#include "disk/tunables.h"

#define RETRY_FIRST_NS (100 * NS_PER_MS)
#define RETRY_LONGEST_NS (10 * NS_PER_S)
/* While the state has to change, and cannot yet. */
#define LOOK_AGAIN_NS (50 * NS_PER_MS)
/* Blocks of a batch while room is short. */
#define SHORT_BATCH 512
/* Blocks of a batch whose discards are to make room. */
#define FULL_BATCH 16384
#define LOST_TOLD 16
/* How long the gate may take to close, and when that is tried again. */
#define GATE_PATIENCE_US (500 * 1000)
#define GATE_PAUSE_NS (5 * NS_PER_S)

struct migrator {
	struct local *local;
	struct backlogs *backlogs; /* the local's */
	pthread_t thread;
	bool started;
	bool stop; /* under the backlogs' lock */
	GRand *random;
};

/* ---- Failure --------------------------------------------------------------- */

/* REASON is a whole sentence, which names what it is about. */
static void note_failure(struct migrator *migrator, struct disk *disk, int error, const char *reason)
{
	struct migration *migration = &disk->migration;
	uint64_t pause;
	bool first;

	g_mutex_lock(&migrator->backlogs->lock);
	first = migration->failures++ == 0;
	pause = MIN(RETRY_FIRST_NS << MIN(migration->failures - 1, 16), RETRY_LONGEST_NS);
	pause += (uint64_t)((double)pause * g_rand_double_range(migrator->random, -0.25, 0.25));
	migration->retry_at_ns = loop_now_ns() + pause;
	migration->error = error;
	if (first)
		backlog_set_reason_locked(migration, reason);
	if (migration->failures >= BACKLOG_FAILURES_TOLD)
		backlog_answer_drains_locked(migration, error);
	g_mutex_unlock(&migrator->backlogs->lock);
	if (first)
		log_warning("%s; its changes stay in the cache, and it is tried again", reason);
	else
		log_debug(LOG_DISK, "%s: another try to write its changes back failed: %s", disk->name, reason);
}

static void note_errno(struct migrator *migrator, struct disk *disk, int error, const char *what)
{
	g_autofree char *reason = g_strdup_printf("%s: %s: %s", disk_image_path(disk), what, g_strerror(-error));

	note_failure(migrator, disk, error, reason);
}

static void note_error(struct migrator *migrator, struct disk *disk, const GError *error)
{
	note_failure(migrator, disk, error_to_errno(error), error->message);
}

static void note_success(struct migrator *migrator, struct disk *disk)
{
	unsigned failures;

	g_mutex_lock(&migrator->backlogs->lock);
	failures = disk->migration.failures;
	disk->migration.failures = 0;
	disk->migration.error = 0;
	disk->migration.retry_at_ns = 0;
	if (failures)
		backlog_set_reason_locked(&disk->migration, "");
	g_mutex_unlock(&migrator->backlogs->lock);
	disk->leaf->quiet = false;
	if (failures)
		log_warning("%s: takes its changes again, after %u tries", disk_image_path(disk), failures);
}

/* False: something in work has no answer. It is tried again after a while, in
 * which the others go on. */
static bool try_close(struct disk *disk)
{
	struct backlogs *backlogs = &disk->local->backlogs;

	if (gate_try_close(disk, GATE_PATIENCE_US))
		return true;
	g_mutex_lock(&backlogs->lock);
	disk->migration.retry_at_ns = loop_now_ns() + GATE_PAUSE_NS;
	g_mutex_unlock(&backlogs->lock);
	return false;
}

/* For good. The disk is busy. From now on requests that begin are refused; its
 * route follows once the gate can be closed (end_route), which a request in work
 * that a store does not answer holds up, and nobody else. */
static void fail_disk(struct migrator *migrator, struct disk *disk, bool lost, const char *reason)
{
	disk->refusing = true;
	g_mutex_lock(&migrator->backlogs->lock);
	disk->migration.failed = true;
	disk->migration.lost = lost;
	backlog_set_reason_locked(&disk->migration, reason);
	disk->migration.retry_at_ns = 0;
	backlog_answer_drains_locked(&disk->migration, -EIO);
	g_mutex_unlock(&migrator->backlogs->lock);
	log_error("%s", reason);
}

struct lost {
	GString *blocks;
	unsigned count;
};

static void add_lost(void *opaque, uint64_t block)
{
	struct lost *lost = opaque;

	if (lost->count++ < LOST_TOLD)
		g_string_append_printf(lost->blocks, "%s%" G_GUINT64_FORMAT, lost->count > 1 ? ", " : "", block);
}

static void fail_lost(struct migrator *migrator, struct disk *disk, const struct lost *lost)
{
	g_autofree char *reason = g_strdup_printf(
		"%s: failed: %u of its blocks that only the cache has cannot be read there (4 KiB block%s %s%s); "
		"leafctl cache dump saves the others",
		disk->name, lost->count, lost->count == 1 ? "" : "s", lost->blocks->str,
		lost->count > LOST_TOLD ? ", ..." : "");

	fail_disk(migrator, disk, false, reason);
}

/* ---- One batch ------------------------------------------------------------- */

static bool is_usable(const struct image *leaf)
{
	return !leaf->failed && leaf->begun;
}

/* The one that was in its place. The gate is closed, and open_lock is held. */
static struct image *put_leaf(struct disk *disk, struct image *leaf)
{
	struct image *before = disk->leaf;

	disk->leaf = leaf;
	return before;
}

/* AGAIN: it is not lent. */
static struct image *exchange_lent(struct disk *disk, struct image *again)
{
	struct backlogs *backlogs = &disk->local->backlogs;
	struct image *unused;

	g_mutex_lock(&backlogs->lock);
	unused = disk->migration.lent ? put_leaf(disk, again) : again;
	g_mutex_unlock(&backlogs->lock);
	return unused;
}

/* The new one takes the other's place behind the gate. Whoever has open_lock may
 * be waiting for this migration to pause: it is not waited for. */
static int exchange_leaf(struct disk *disk, struct image *again)
{
	struct image *unused = exchange_lent(disk, again);

	if (unused == again && g_mutex_trylock(&disk->open_lock)) {
		if (try_close(disk)) {
			unused = put_leaf(disk, again);
			gate_open(disk);
		}
		g_mutex_unlock(&disk->open_lock);
	}
	(void)image_close(unused);
	return unused == again ? -EAGAIN : 0;
}

/* A leaf that failed refuses everything until it is opened anew. Until another
 * is there, ready to be written, it stays in its place. While an outage lasts
 * the new one says nothing of it. -EAGAIN: not now. */
static int reopen_leaf(struct disk *disk)
{
	const struct chain_link *link = disk->links->pdata[0];
	g_autoptr(GError) error = NULL;
	struct image *again = chain_link_reopen(link, disk->leaf, &error);

	if (!again)
		return error_to_errno(error);
	again->quiet = true;
	return exchange_leaf(disk, again);
}

static int take_batch(struct migrator *migrator, struct disk *disk, const struct cache_batch_limits *limits,
		      struct cache_batch **batch)
{
	struct lost lost = {.blocks = g_string_new(NULL)};
	int result = cache_batch_take(disk->cached, limits, batch, add_lost, &lost);

	if (lost.count > 0)
		fail_lost(migrator, disk, &lost);
	g_string_free(lost.blocks, TRUE);
	return lost.count > 0 ? -ENODATA : result;
}

/* ---- On a full store ------------------------------------------------------- */

/* True: BATCH is freed, and the image is sure not to have it: a flush settles what
 * a commit left open. */
static bool make_smaller(struct disk *disk, struct cache_batch *batch)
{
	if (disk->migration.in_pieces || image_run_blocking(disk->leaf, &(struct image_op){0}, image_flush) < 0 ||
	    !cache_batch_refuse(batch))
		return false;
	disk->migration.batch_max = 0;
	return true;
}

static void grow_batches(struct migration *migration)
{
	if (migration->batch_max < UINT_MAX / 4)
		migration->batch_max = migration->batch_max * 2 + 64;
	else
		migration->batch_max = UINT_MAX;
}

/* Who urges a disk changes its count of failures. */
static bool found_no_room(struct disk *disk)
{
	struct backlogs *backlogs = &disk->local->backlogs;
	bool found;

	g_mutex_lock(&backlogs->lock);
	found = disk->migration.failures && apply_found_no_room(disk->migration.error);
	g_mutex_unlock(&backlogs->lock);
	return found;
}

/* DISK is busy: only this thread looks at how large its batches are. */
static void limit_batch(struct disk *disk, struct cache_batch_limits *limits)
{
	struct cache_dirty dirty;

	cache_layer_get_dirty(disk->cached, &dirty);
	disk->migration.in_pieces = found_no_room(disk) && dirty.zeros > 0;
	limits->data_blocks = MIN(limits->data_blocks, disk->migration.batch_max);
	if (disk->migration.in_pieces)
		limits->data_blocks = limits->extents = FULL_BATCH;
}

/* ---- One batch, to its image ----------------------------------------------- */

/* False: DISK's image is another's, or nobody can tell for now; either is noted. */
static bool has_image(struct migrator *migrator, struct disk *disk)
{
	g_autofree char *reason = NULL;
	bool stands;
	int result = owner_check_disk(disk, &stands);

	if (result < 0) {
		note_failure(migrator, disk, result, "its owner record cannot be read");
		return false;
	}
	if (stands)
		return true;
	reason = g_strdup_printf("%s: failed: another has taken its image over; what the cache has of it is not "
				 "written back (leafctl cache dump saves it)",
				 disk->name);
	fail_disk(migrator, disk, true, reason);
	return false;
}

/* True: some of it went. */
static bool migrate_batch(struct migrator *migrator, struct disk *disk, const struct cache_batch_limits *limits)
{
	struct cache_batch *batch;
	int result = is_usable(disk->leaf) ? 0 : reopen_leaf(disk);

	if (result == -EAGAIN)
		return false;
	if (result < 0) {
		note_errno(migrator, disk, result, "cannot be opened again");
		return false;
	}
	if (!has_image(migrator, disk))
		return false;
	result = take_batch(migrator, disk, limits, &batch);
	if (result < 0 || !batch) {
		if (result < 0 && result != -ENODATA)
			note_errno(migrator, disk, result, "no batch can be made of its changes");
		return false;
	}
	result = disk->migration.in_pieces ? -ENOSPC : batch_apply(disk->leaf, batch);
	if (apply_found_no_room(result)) {
		if (make_smaller(disk, batch))
			return true;
		result = batch_apply_in_pieces(disk->leaf, batch);
	}
	if (result < 0) {
		cache_batch_free(batch);
		note_errno(migrator, disk, result, "cannot be written");
		return false;
	}
	counter_add(migrate_batches, 1);
	counter_add(migrate_blocks, batch->data_blocks);
	cache_batch_done(batch);
	grow_batches(&disk->migration);
	note_success(migrator, disk);
	return true;
}

/* ---- When ------------------------------------------------------------------ */

struct look {
	struct migrator *migrator;
	struct disk_tunables tunables;
	struct cache_status cache;
	uint64_t now_ns;
	uint64_t next_ns; /* when to look again, if nothing comes before */
	uint64_t oldest;  /* distance of the oldest dirty block of all */
};

static void look_again(struct look *look, uint64_t at_ns)
{
	look->next_ns = MIN(look->next_ns, at_ns);
}

static bool is_full(const struct look *look)
{
	return look->cache.dirty_blocks * 100 >= look->cache.dirty_blocks_max * look->tunables.migrate_threshold;
}

/* Whether DISK's dirty blocks are to go now, and with *CUT an epoch ended for it. */
static bool is_wanted(struct look *look, struct disk *disk, const struct cache_dirty *dirty, bool *cut)
{
	uint64_t last_io_ns = atomic_load_explicit(&disk->local->last_io_ns, memory_order_relaxed);
	uint64_t old_ns = dirty->oldest_ns + look->tunables.max_dirty_age * NS_PER_S;
	uint64_t idle_ns = last_io_ns + look->tunables.migrate_idle_ms * NS_PER_MS;

	*cut = true;
	if (disk->migration.urged || !list_is_empty(&disk->migration.waiters) || look->cache.state == CACHE_SUSPENDED ||
	    look->now_ns >= old_ns)
		return true;
	if (look->cache.short_of_room && dirty->distance == look->oldest)
		return true;
	look_again(look, old_ns);
	*cut = is_full(look);
	if (is_full(look))
		return true;
	*cut = false;
	if (dirty->has_barrier && look->now_ns >= idle_ns)
		return true;
	if (dirty->has_barrier)
		look_again(look, idle_ns);
	return false;
}

/* DISK is on the list and free to be worked on: then it is busy. */
static bool begin_locked(struct look *look, struct disk *disk, bool *cut)
{
	struct cache_dirty dirty;

	if (disk->migration.failed || disk->migration.away)
		return false;
	backlog_get_dirty_locked(disk, &dirty);
	if (dirty.oldest_ns == 0) {
		backlog_answer_drains_locked(&disk->migration, 0);
		return false;
	}
	if (disk->migration.retry_at_ns > look->now_ns) {
		look_again(look, disk->migration.retry_at_ns);
		return false;
	}
	if (!is_wanted(look, disk, &dirty, cut))
		return false;
	disk->migration.busy = true;
	return true;
}

static void end(struct migrator *migrator, struct disk *disk)
{
	g_mutex_lock(&migrator->backlogs->lock);
	disk->migration.busy = false;
	g_cond_broadcast(&migrator->backlogs->changed);
	g_mutex_unlock(&migrator->backlogs->lock);
}

static uint64_t find_oldest_locked(struct migrator *migrator)
{
	uint64_t oldest = UINT64_MAX;

	list_foreach(node, &migrator->backlogs->disks)
	{
		struct cache_dirty dirty;

		backlog_get_dirty_locked(backlog_disk(node), &dirty);
		if (dirty.oldest_ns && !backlog_disk(node)->migration.failed)
			oldest = MIN(oldest, dirty.distance);
	}
	return oldest;
}

/* A disk that something is to be done for, with a reference, busy; the list
 * turns, so that each has its turn. */
static struct disk *choose(struct look *look, bool *cut)
{
	struct migrator *migrator = look->migrator;
	struct disk *chosen = NULL;

	g_mutex_lock(&migrator->backlogs->lock);
	look->oldest = find_oldest_locked(migrator);
	list_foreach(node, &migrator->backlogs->disks)
	{
		if (!begin_locked(look, backlog_disk(node), cut))
			continue;
		chosen = disk_ref_if_alive(backlog_disk(node));
		backlog_disk(node)->migration.busy = chosen != NULL;
		if (!chosen)
			continue;
		list_remove(node);
		list_append(&migrator->backlogs->disks, node);
		break;
	}
	g_mutex_unlock(&migrator->backlogs->lock);
	return chosen;
}

/* ---- States ---------------------------------------------------------------- */

/* Before its layer goes, and after it has come. */
static void set_away(struct look *look, struct disk *disk, bool away)
{
	g_mutex_lock(&look->migrator->backlogs->lock);
	if (disk->migration.away != away)
		backlog_set_reason_locked(&disk->migration, away ? look->cache.reason : "");
	disk->migration.away = away;
	g_mutex_unlock(&look->migrator->backlogs->lock);
}

/* The disk goes away from the cache, or comes back, behind its closed gate. */
static void change_route(struct look *look, struct disk *disk, bool away)
{
	g_autoptr(GError) error = NULL;
	bool done = false;

	if (!try_close(disk))
		return;
	if (!away)
		done = route_enter_writeback(disk, &error);
	else if (!migrate_is_needed(disk)) {
		set_away(look, disk, true);
		done = route_flee_cache(disk, look->cache.reason, &error);
	}
	set_away(look, disk, done == away);
	if (done) {
		log_warning("%s: %s", disk->name,
			    away ? "goes on without the cache; all its changes are in the pool"
				 : "uses the cache again");
	}
	gate_open(disk);
	if (error)
		note_error(look->migrator, disk, error);
}

/* What an earlier mount left is in the pool: on to the mode that was asked for. */
static void leave(struct look *look, struct disk *disk)
{
	g_autoptr(GError) error = NULL;

	if (!try_close(disk))
		return;
	if (!migrate_is_needed(disk) && !route_leave_writeback(disk, &error))
		note_error(look->migrator, disk, error);
	gate_open(disk);
}

static uint64_t get_retry_time(struct migrator *migrator, const struct disk *disk)
{
	uint64_t retry_at_ns;

	g_mutex_lock(&migrator->backlogs->lock);
	retry_at_ns = disk->migration.retry_at_ns;
	g_mutex_unlock(&migrator->backlogs->lock);
	return retry_at_ns;
}

/* A disk that has failed: what it is made of is let go of. */
static void end_route(struct disk *disk)
{
	if (!try_close(disk))
		return;
	route_fail(disk, disk->migration.lost);
	gate_open(disk);
}

/* With its open_lock; the rest of a migration is written by this thread or with
 * that lock. */
static void look_at_state(struct look *look, struct disk *disk)
{
	bool suspended = look->cache.state == CACHE_SUSPENDED;
	struct migration *migration = &disk->migration;
	uint64_t retry_at_ns = get_retry_time(look->migrator, disk);

	if (!disk->open || disk->route == &route_failed)
		return;
	if (retry_at_ns > look->now_ns)
		look_again(look, retry_at_ns);
	else if (migration->failed)
		end_route(disk);
	else if (migration->away != suspended && (migration->away || !migrate_is_needed(disk)))
		change_route(look, disk, suspended);
	if (migration->failed)
		return;
	if (disk->route == &route_writeback && disk->mode != DISK_MODE_WRITEBACK && !migrate_is_needed(disk) &&
	    retry_at_ns <= look->now_ns)
		leave(look, disk);
	if (gate_has_parked(disk) && migration->away == suspended)
		gate_release(disk);
	else if (gate_has_parked(disk))
		look_again(look, look->now_ns + LOOK_AGAIN_NS);
	disk_close_unused(disk);
}

static GPtrArray *list_disks(struct migrator *migrator)
{
	GPtrArray *disks = g_ptr_array_new_with_free_func((GDestroyNotify)disk_unref);

	g_mutex_lock(&migrator->backlogs->lock);
	list_foreach(node, &migrator->backlogs->disks)
	{
		struct disk *disk = disk_ref_if_alive(backlog_disk(node));

		if (disk)
			g_ptr_array_add(disks, disk);
	}
	g_mutex_unlock(&migrator->backlogs->lock);
	return disks;
}

/* Whoever opens or closes a disk now is not waited for. */
static void look_at_states(struct look *look)
{
	g_autoptr(GPtrArray) disks = list_disks(look->migrator);

	for (guint i = 0; i < disks->len; i++) {
		struct disk *disk = disks->pdata[i];

		if (g_mutex_trylock(&disk->open_lock)) {
			look_at_state(look, disk);
			g_mutex_unlock(&disk->open_lock);
		} else {
			look_again(look, look->now_ns + LOOK_AGAIN_NS);
		}
	}
}

/* ---- The thread ------------------------------------------------------------ */

static void refresh(struct look *look)
{
	tunables_get(look->migrator->local->tunables, &look->tunables);
	cache_get_status(look->migrator->local->cache, &look->cache);
	look->now_ns = loop_now_ns();
	look->next_ns = UINT64_MAX;
}

/* False: nothing is left to do now, or it cannot be done for the moment. */
static bool migrate_one(struct look *look)
{
	struct cache_batch_limits limits = {.data_blocks = (unsigned)look->tunables.migrate_batch};
	struct disk *disk;
	bool done;

	disk = choose(look, &limits.cut);
	if (!disk)
		return false;
	if (look->cache.short_of_room)
		limits.data_blocks = MIN(limits.data_blocks, SHORT_BATCH);
	limits.extents = disk->leaf ? image_apply_extents_max(disk->leaf) : 1;
	if (limits.extents == 0)
		limits.extents = UINT_MAX;
	limit_batch(disk, &limits);
	done = migrate_batch(look->migrator, disk, &limits);
	end(look->migrator, disk);
	disk_unref(disk);
	if (!done)
		look_again(look, look->now_ns + LOOK_AGAIN_NS);
	return done;
}

static bool is_stopping(struct migrator *migrator)
{
	bool stop;

	g_mutex_lock(&migrator->backlogs->lock);
	stop = migrator->stop;
	g_mutex_unlock(&migrator->backlogs->lock);
	return stop;
}

static void *thread_main(void *opaque)
{
	struct migrator *migrator = opaque;
	struct look look = {.migrator = migrator};

	while (!is_stopping(migrator)) {
		refresh(&look);
		look_at_states(&look);
		if (!migrate_one(&look))
			cache_wait_work(migrator->local->cache, look.next_ns);
	}
	return NULL;
}

struct migrator *migrator_new(struct local *local, GError **error)
{
	struct migrator *migrator = g_new0(struct migrator, 1);
	int result;

	migrator->local = local;
	migrator->backlogs = &local->backlogs;
	migrator->random = g_rand_new();
	result = thread_spawn(&migrator->thread, "leafdisk-back", THREAD_WAITER, thread_main, migrator);
	migrator->started = result == 0;
	if (migrator->started)
		return migrator;
	error_set_errno(error, -result, "cannot start the thread that writes back");
	migrator_free(migrator);
	return NULL;
}

void migrator_free(struct migrator *migrator)
{
	if (!migrator)
		return;
	g_mutex_lock(&migrator->backlogs->lock);
	migrator->stop = true;
	g_mutex_unlock(&migrator->backlogs->lock);
	if (migrator->started) {
		cache_kick(migrator->local->cache);
		pthread_join(migrator->thread, NULL);
	}
	g_rand_free(migrator->random);
	g_free(migrator);
}
