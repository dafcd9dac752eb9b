/* How a disk's migration went.
 *
 * What fails is tried again, after a while that doubles up to RETRY_LONGEST_NS, a
 * little more or less so that many hosts do not come back at once. An outage is one
 * line in the log, and its end another. */
#include "note.h"

#include <errno.h>

#include "core/error.h"
#include "core/log.h"
#include "core/time.h"

#define RETRY_FIRST_NS (100 * NS_PER_MS)
#define RETRY_LONGEST_NS (10 * NS_PER_S)

static uint64_t pause_after(unsigned failures)
{
	uint64_t pause = MIN(RETRY_FIRST_NS << MIN(failures - 1, 16), RETRY_LONGEST_NS);

	return pause + (uint64_t)((double)pause * g_random_double_range(-0.25, 0.25));
}

void note_failure(struct disk *disk, int error, const char *reason)
{
	struct backlogs *backlogs = &disk->pool_cache->backlogs;
	struct migration *migration = &disk->migration;
	bool first;

	g_mutex_lock(&backlogs->lock);
	first = migration->failures++ == 0;
	migration->retry_at_ns = loop_now_ns() + pause_after(migration->failures);
	migration->error = error;
	migration->owned_at_ns = 0;
	if (first)
		backlog_set_reason_locked(migration, reason);
	if (migration->failures >= BACKLOG_FAILURES_TOLD)
		backlog_answer_drains_locked(migration, error);
	g_mutex_unlock(&backlogs->lock);
	if (first)
		log_warning("%s; its changes stay in the cache, and it is tried again", reason);
	else
		log_debug(LOG_DISK, "%s: another try to write its changes back failed: %s", disk->name, reason);
}

void note_errno(struct disk *disk, int error, const char *what)
{
	g_autofree char *reason = g_strdup_printf("%s: %s: %s", disk_image_path(disk), what, g_strerror(-error));

	note_failure(disk, error, reason);
}

void note_error(struct disk *disk, const GError *error)
{
	note_failure(disk, error_to_errno(error), error->message);
}

void note_success(struct disk *disk)
{
	struct backlogs *backlogs = &disk->pool_cache->backlogs;
	unsigned failures;

	g_mutex_lock(&backlogs->lock);
	failures = disk->migration.failures;
	disk->migration.failures = 0;
	disk->migration.error = 0;
	disk->migration.retry_at_ns = 0;
	if (failures) {
		disk->migration.owned_at_ns = 0;
		backlog_set_reason_locked(&disk->migration, "");
	}
	g_mutex_unlock(&backlogs->lock);
	disk->leaf->quiet = false;
	if (failures)
		log_warning("%s: takes its changes again, after %u tries", disk_image_path(disk), failures);
}

void note_pause(struct disk *disk, uint64_t after_ns)
{
	struct backlogs *backlogs = &disk->pool_cache->backlogs;

	g_mutex_lock(&backlogs->lock);
	disk->migration.retry_at_ns = MAX(disk->migration.retry_at_ns, loop_now_ns() + after_ns);
	g_mutex_unlock(&backlogs->lock);
}

/* From now on requests that begin are refused; the route follows once the gate can
 * be closed (WORK_END), which a request in work that a store does not answer holds
 * up, and nobody else. */
void note_end(struct disk *disk, bool lost, const char *reason)
{
	struct backlogs *backlogs = &disk->pool_cache->backlogs;

	disk->refusing = true;
	g_mutex_lock(&backlogs->lock);
	disk->migration.failed = true;
	disk->migration.lost = lost;
	backlog_set_reason_locked(&disk->migration, reason);
	disk->migration.retry_at_ns = 0;
	backlog_answer_drains_locked(&disk->migration, -EIO);
	g_mutex_unlock(&backlogs->lock);
	log_error("%s", reason);
}
