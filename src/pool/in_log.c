/* Snapshots and forks of ephemeral disks. */
#include "in_log.h"

#include <errno.h>

#include "changers.h"
#include "core/error.h"
#include "disk/saved.h"
#include "pool/snapshot.h"

static bool is_in_log(struct disk_pool *pool, const char *name)
{
	struct disk *disk = disk_pool_find(pool, name);
	bool in_log = disk && disk->mode == DISK_MODE_EPHEMERAL;

	disk_unref(disk);
	return in_log;
}

bool pool_are_in_log(struct disk_pool *pool, const char *const *names, bool *in_log, GError **error)
{
	*in_log = is_in_log(pool, names[0]);
	for (unsigned i = 1; names[i]; i++)
		if (is_in_log(pool, names[i]) != *in_log)
			return error_set(error, EOPNOTSUPP,
					 "%s: is ephemeral and %s is not, and there is no one instant for both: take "
					 "them one after the other",
					 names[*in_log ? 0 : i], names[*in_log ? i : 0]);
	return true;
}

bool pool_save(struct disk_pool *pool, const char *const *names, const char *tag, bool (*go_on)(void *opaque),
	       void *opaque, GError **error)
{
	unsigned count = g_strv_length((char **)names);
	g_autofree struct disk **disks = g_new0(struct disk *, count);
	bool good;

	if (!pool_open_to_change(pool, names, disks, error))
		return false;
	good = disk_save(disks, count, tag, go_on, opaque, error);
	pool_close_changed(disks, count);
	return good;
}

/* ---- Forks ------------------------------------------------------------------------- */

static bool reserve(struct disk_pool *pool, const char *name, GError **error)
{
	g_autofree char *stem = pool_stem_of(name, error);

	return stem && pool_reserve_name(pool, name, error);
}

static void release(struct disk_pool *pool, const char *const *names, unsigned count)
{
	LOCK_GUARD(&pool->lock);
	for (unsigned i = 0; i < count; i++)
		names_release(pool->names, names[i]);
}

/* All or none. */
static bool reserve_all(struct disk_pool *pool, const char *const *names, GError **error)
{
	for (unsigned i = 0; names[i]; i++)
		if (!reserve(pool, names[i], error)) {
			release(pool, names, i);
			return false;
		}
	return true;
}

static struct disk *new_fork(struct disk_pool *pool, const struct disk *disk, const char *name, GPtrArray *links)
{
	struct disk *fork;

	LOCK_GUARD(&pool->lock);
	fork = disk_new(name, true, ++pool->next_id, g_ptr_array_ref(links), pool->roots, disk->spelled,
			DISK_MODE_EPHEMERAL, pool->pool_cache);
	fork->leaf->owner = &pool->owner;
	fork->stale_reads = disk->stale_reads;
	fork->forked = true;
	return fork;
}

static void show(struct disk_pool *pool, GPtrArray *forks)
{
	LOCK_GUARD(&pool->lock);
	for (guint i = 0; i < forks->len; i++) {
		struct disk *fork = forks->pdata[i];

		g_hash_table_insert(pool->disks, fork->name, disk_ref(fork));
	}
}

static bool make_forks(struct disk_pool *pool, struct disk *disk, const char *const *names, bool (*go_on)(void *opaque),
		       void *opaque, GError **error)
{
	g_autoptr(GPtrArray) forks = g_ptr_array_new_with_free_func((GDestroyNotify)disk_unref);
	g_autoptr(GPtrArray) links = disk_get_links(disk);

	for (unsigned i = 0; names[i]; i++)
		g_ptr_array_add(forks, new_fork(pool, disk, names[i], links));
	if (!disk_fork(disk, (struct disk *const *)forks->pdata, forks->len, go_on, opaque, error))
		return false;
	show(pool, forks);
	return true;
}

bool pool_fork_in_log(struct disk_pool *pool, const char *name, const char *const *forks, bool (*go_on)(void *opaque),
		      void *opaque, GError **error)
{
	const char *const names[] = {name, NULL};
	struct disk *disk;
	bool good;

	if (!reserve_all(pool, forks, error))
		return false;
	good = pool_open_to_change(pool, names, &disk, error);
	if (good) {
		good = make_forks(pool, disk, forks, go_on, opaque, error);
		pool_close_changed(&disk, 1);
	}
	if (!good)
		release(pool, forks, g_strv_length((char **)forks));
	return good;
}

bool disk_pool_end_fork(struct disk *fork, bool (*go_on)(void *opaque), void *opaque, GError **error)
{
	if (!fork->forked)
		return error_set(error, EINVAL,
				 "%s: is an image of the pool, and no fork of an ephemeral disk; of others leafctl "
				 "delete removes snapshots, which are to be named",
				 fork->name);
	return disk_end_fork(fork, go_on, opaque, error);
}

void disk_pool_drop_fork(struct disk_pool *pool, struct disk *fork)
{
	LOCK_GUARD(&pool->lock);
	if (g_hash_table_lookup(pool->disks, fork->name) != fork)
		return;
	names_release(pool->names, fork->name);
	g_hash_table_remove(pool->disks, fork->name);
}

/* ---- Listing ------------------------------------------------------------------------ */

static struct disk_snapshot *told(const struct disk_saved *saved)
{
	struct disk_snapshot *snapshot = g_new0(struct disk_snapshot, 1);

	snapshot->tag = g_strdup(saved->tag);
	snapshot->path = g_strdup("");
	snapshot->size_bytes = saved->size_bytes;
	snapshot->dirty_bytes = saved->blocks << BLOCK_SHIFT;
	snapshot->taken_s = saved->taken_s;
	snapshot->below = saved->below;
	return snapshot;
}

GPtrArray *pool_list_saved(struct disk *disk, GDestroyNotify free_snapshot)
{
	g_autoptr(GPtrArray) saved = disk_get_saved(disk);
	GPtrArray *snapshots = g_ptr_array_new_with_free_func(free_snapshot);

	for (guint i = 0; i < saved->len; i++)
		g_ptr_array_add(snapshots, told(saved->pdata[i]));
	return snapshots;
}
