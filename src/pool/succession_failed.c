/* Successions of this mount that failed, and could not be taken back at once.
 *
 * The new leaf may have the name of the disk's image. So the disk stays the one that it is, whatever a look finds at
 * that name, and its chain, once closed, is not opened; until then it runs on as it was. */
#include "succession_failed.h"

#include <string.h>

#include "core/log.h"
#include "succession.h"

static void set_unsettled(struct disk_pool *pool, const struct succession *succession)
{
	struct disk *disk;

	LOCK_GUARD(&pool->lock);
	disk = g_hash_table_lookup(pool->disks, succession->disk);
	if (disk)
		disk->unsettled = succession->exchanged && !succession->beside;
}

/* A new leaf with a name of its own is no disk. */
static void withhold(struct disk_pool *pool, const struct succession *succession)
{
	g_hash_table_remove(pool->options.withheld, succession->to);
	if (succession->exchanged && strcmp(succession->from, succession->to) != 0)
		g_hash_table_insert(pool->options.withheld, g_strdup(succession->to),
				    g_strdup("was made for a snapshot that failed, and cannot be removed yet"));
}

void pool_keep_failed_locked(struct disk_pool *pool, const struct disk *disk, struct succession *succession)
{
	struct succession *kept = g_memdup2(succession, sizeof(*kept));

	lock_assert_mine(&pool->scanning);
	*succession = (struct succession){0};
	kept->disk = g_strdup(disk->name);
	set_unsettled(pool, kept);
	withhold(pool, kept);
	g_ptr_array_add(pool->failed, kept);
}

void pool_take_back_failed_locked(struct disk_pool *pool)
{
	lock_assert_mine(&pool->scanning);
	for (guint i = pool->failed->len; i-- > 0;) {
		struct succession *failed = pool->failed->pdata[i];
		g_autoptr(GError) error = NULL;
		bool undone = succession_undo(pool, failed, &error);

		set_unsettled(pool, failed);
		withhold(pool, failed);
		if (undone)
			g_ptr_array_remove_index(pool->failed, i);
		else
			log_debug(LOG_DISK, "%s", error->message);
	}
}

bool pool_has_failed_locked(struct disk_pool *pool, const struct disk *disk)
{
	lock_assert_mine(&pool->scanning);
	for (guint i = 0; i < pool->failed->len; i++)
		if (strcmp(((const struct succession *)pool->failed->pdata[i])->disk, disk->name) == 0)
			return true;
	return false;
}
