/* A disk's backlog: what of it is dirty, who waits for that, what failed.
 *
 * Here is what requests, opens and drains say and ask; the migrator works it off. */
#include "disk/backlog.h"

#include <errno.h>
#include <limits.h>
#include <stdatomic.h>

#include "disk/gate.h"
#include "disk/object.h"

struct disk *backlog_disk(struct list *node)
{
	return container_of(node, struct disk, migration.link);
}

static struct backlogs *backlogs_of(struct disk *disk)
{
	return &disk->pool_cache->backlogs;
}

void backlogs_init(struct backlogs *backlogs)
{
	g_mutex_init(&backlogs->lock);
	g_cond_init(&backlogs->changed);
	list_init(&backlogs->disks);
}

void backlogs_clear(struct backlogs *backlogs)
{
	g_cond_clear(&backlogs->changed);
	g_mutex_clear(&backlogs->lock);
}

void migration_init(struct migration *migration)
{
	list_init(&migration->link);
	list_init(&migration->waiters);
}

void migrate_kick(struct pool_cache *pool_cache)
{
	cache_kick(pool_cache->cache);
}

void migrate_note_io(struct pool_cache *pool_cache)
{
	atomic_store_explicit(&pool_cache->last_io_ns, loop_now_ns(), memory_order_relaxed);
}

void migrate_attach(struct disk *disk)
{
	struct backlogs *backlogs = backlogs_of(disk);

	g_mutex_lock(&backlogs->lock);
	if (!disk->migration.attached)
		list_append(&backlogs->disks, &disk->migration.link);
	disk->migration.attached = true;
	disk->migration.away = disk->migration.failed = disk->migration.lost = false;
	disk->migration.failures = 0;
	disk->migration.error = 0;
	disk->migration.batch_max = UINT_MAX;
	disk->migration.retry_at_ns = 0;
	disk->migration.owned_at_ns = 0;
	disk->migration.reason[0] = '\0';
	g_mutex_unlock(&backlogs->lock);
	migrate_kick(disk->pool_cache);
}

void backlog_answer_drains_locked(struct migration *migration, int result)
{
	struct list *node;

	while ((node = list_pop(&migration->waiters))) {
		struct drain *drain = container_of(node, struct drain, link);

		drain->result = result;
		loop_post(drain->loop, &drain->task);
	}
}

void migrate_detach(struct disk *disk)
{
	struct backlogs *backlogs;

	if (!disk->pool_cache)
		return;
	backlogs = backlogs_of(disk);
	g_mutex_lock(&backlogs->lock);
	while (disk->migration.busy)
		g_cond_wait(&backlogs->changed, &backlogs->lock);
	if (disk->migration.attached)
		list_remove(&disk->migration.link);
	disk->migration.attached = false;
	backlog_answer_drains_locked(&disk->migration, disk->migration.error);
	g_mutex_unlock(&backlogs->lock);
}

void migrate_drain(struct disk *disk, struct drain *drain)
{
	struct backlogs *backlogs = backlogs_of(disk);

	g_mutex_lock(&backlogs->lock);
	list_append(&disk->migration.waiters, &drain->link);
	g_mutex_unlock(&backlogs->lock);
	migrate_kick(disk->pool_cache);
}

void migrate_send_back(struct disk *disk)
{
	struct backlogs *backlogs;

	if (!disk->pool_cache)
		return;
	backlogs = backlogs_of(disk);
	g_mutex_lock(&backlogs->lock);
	backlog_answer_drains_locked(&disk->migration, -EAGAIN);
	g_mutex_unlock(&backlogs->lock);
	cache_wake(disk->pool_cache->cache);
}

void migrate_look_again(struct pool_cache *pool_cache)
{
	struct backlogs *backlogs = &pool_cache->backlogs;

	g_mutex_lock(&backlogs->lock);
	list_foreach(node, &backlogs->disks)
	{
		backlog_answer_drains_locked(&backlog_disk(node)->migration, -EAGAIN);
		gate_release(backlog_disk(node));
	}
	g_mutex_unlock(&backlogs->lock);
	cache_wake(pool_cache->cache);
}

/* Whoever urges wants to know how it is now, not how it was. */
void migrate_urge(struct disk *disk, int change)
{
	struct backlogs *backlogs = backlogs_of(disk);

	g_mutex_lock(&backlogs->lock);
	disk->migration.urged += (unsigned)change;
	if (change > 0) {
		disk->migration.retry_at_ns = 0;
		disk->migration.failures = MIN(disk->migration.failures, 1);
		disk->migration.owned_at_ns = 0;
		disk->migration.looks++;
	}
	g_mutex_unlock(&backlogs->lock);
	migrate_kick(disk->pool_cache);
}

void migrate_lend_leaf(struct disk *disk, bool lent)
{
	struct backlogs *backlogs = backlogs_of(disk);

	g_mutex_lock(&backlogs->lock);
	disk->migration.lent = lent;
	g_mutex_unlock(&backlogs->lock);
}

int migrate_get_error(struct disk *disk, char **reason)
{
	struct backlogs *backlogs = backlogs_of(disk);
	int error = 0;

	g_mutex_lock(&backlogs->lock);
	if (disk->migration.failed || disk->migration.failures >= BACKLOG_FAILURES_TOLD) {
		error = disk->migration.failed ? -EIO : disk->migration.error;
		*reason = g_strdup(disk->migration.reason);
	}
	g_mutex_unlock(&backlogs->lock);
	return error;
}

bool migrate_has_failed(struct disk *disk)
{
	struct backlogs *backlogs = backlogs_of(disk);
	bool failed;

	g_mutex_lock(&backlogs->lock);
	failed = disk->migration.failed;
	g_mutex_unlock(&backlogs->lock);
	return failed;
}

/* What is dirty of an attached disk. Away or lost it has no layer. */
void backlog_get_dirty_locked(struct disk *disk, struct cache_dirty *dirty)
{
	const struct migration *migration = &disk->migration;

	*dirty = (struct cache_dirty){0};
	if (migration->attached && !migration->away && !migration->lost)
		cache_layer_get_dirty(disk->cached, dirty);
}

bool migrate_is_needed(struct disk *disk)
{
	struct backlogs *backlogs = disk->pool_cache ? backlogs_of(disk) : NULL;
	struct cache_dirty dirty;

	if (!backlogs)
		return false;
	g_mutex_lock(&backlogs->lock);
	backlog_get_dirty_locked(disk, &dirty);
	g_mutex_unlock(&backlogs->lock);
	return dirty.oldest_ns != 0;
}

static bool fill_status_locked(struct disk *disk, struct disk_status *status)
{
	const struct migration *migration = &disk->migration;
	struct cache_dirty dirty;

	if (!migration->attached)
		return false;
	backlog_get_dirty_locked(disk, &dirty);
	status->dirty_bytes = (dirty.blocks + dirty.zeros) << BLOCK_SHIFT;
	status->dirty_ns = dirty.oldest_ns ? loop_now_ns() - dirty.oldest_ns : 0;
	if (migration->failed)
		status->state = "failed";
	else if (migration->away || migration->failures)
		status->state = "degraded";
	else if (disk->mode != DISK_MODE_WRITEBACK)
		status->state = "draining";
	if (migration->reason[0])
		g_strlcpy(status->reason, migration->reason, sizeof(status->reason));
	if (migration->reason[0] || !status->since.tv_sec)
		status->since = migration->since;
	return true;
}

bool migrate_get_status(struct disk *disk, struct disk_status *status)
{
	struct backlogs *backlogs = disk->pool_cache ? backlogs_of(disk) : NULL;
	bool all = false;

	if (!backlogs)
		return false;
	g_mutex_lock(&backlogs->lock);
	all = fill_status_locked(disk, status);
	g_mutex_unlock(&backlogs->lock);
	return all;
}

void backlog_set_reason_locked(struct migration *migration, const char *reason)
{
	g_strlcpy(migration->reason, reason, sizeof(migration->reason));
	clock_gettime(CLOCK_REALTIME, &migration->since);
}
