/* Keepers: the object, and the list of them. */
#include "disk/keeper.h"

#include <string.h>

#include "core/thread.h"

/* "web1@monday": what its file is called, without the ending. */
static char *name_of(const struct chain_link *link)
{
	g_autofree char *file = g_path_get_basename(link->path);
	const char *dot = strrchr(file, '.');

	return dot ? g_strndup(file, (gsize)(dot - file)) : g_strdup(file);
}

struct disk *keeper_new(GPtrArray *links, enum disk_mode mode, struct pool_cache *pool_cache,
			const struct owner_self *owner)
{
	const struct chain_link *link = links->pdata[0];
	g_autofree char *name = name_of(link);
	struct disk *keeper = disk_new(name, true, 0, links, link->roots, NULL, mode, pool_cache);

	keeper->keeper = true;
	keeper->leaf->owner = owner;
	return keeper;
}

static GPtrArray *links_from(const GPtrArray *links, guint first)
{
	GPtrArray *rest = chain_links_new();

	chain_links_add(rest, links, first);
	return rest;
}

struct disk *keeper_new_at(const struct disk *disk, const GPtrArray *links, guint first, enum disk_mode mode)
{
	return keeper_new(links_from(links, first), mode, disk->pool_cache, disk->leaf->owner);
}

/* ---- The list ------------------------------------------------------------------- */

static struct disk *find_locked(struct pool_cache *pool_cache, const struct chain_link *link)
{
	lock_assert_mine(&pool_cache->backlogs.lock);
	list_foreach(node, &pool_cache->keepers)
	{
		struct disk *keeper = container_of(node, struct disk, keepers);
		const struct chain_link *own = keeper->leaf->link;

		if (own->device == link->device && own->inode == link->inode)
			return keeper;
	}
	return NULL;
}

bool keeper_enter(struct disk *keeper)
{
	struct backlogs *backlogs = &keeper->pool_cache->backlogs;
	struct disk *other;

	thread_assert_may_wait();
	LOCK_GUARD(&backlogs->lock);
	while ((other = find_locked(keeper->pool_cache, keeper->leaf->link)) && !other->open)
		lock_wait(&backlogs->lock, &backlogs->changed);
	if (other)
		return false;
	list_append(&keeper->pool_cache->keepers, &disk_ref(keeper)->keepers);
	return true;
}

void keeper_tell(struct disk *keeper)
{
	struct backlogs *backlogs = &keeper->pool_cache->backlogs;

	LOCK_GUARD(&backlogs->lock);
	condition_broadcast(&backlogs->changed);
}

bool keeper_take_off(struct disk *keeper)
{
	struct backlogs *backlogs;
	bool listed;

	if (!keeper->pool_cache)
		return false;
	backlogs = &keeper->pool_cache->backlogs;
	LOCK_GUARD(&backlogs->lock);
	listed = !list_is_empty(&keeper->keepers);
	if (listed)
		list_remove(&keeper->keepers);
	condition_broadcast(&backlogs->changed);
	return listed;
}

struct disk *keeper_find(struct pool_cache *pool_cache, const struct chain_link *link)
{
	struct disk *keeper;

	if (!pool_cache)
		return NULL;
	LOCK_GUARD(&pool_cache->backlogs.lock);
	keeper = find_locked(pool_cache, link);
	return keeper ? disk_ref_if_alive(keeper) : NULL;
}

struct disk *keeper_take_first(struct pool_cache *pool_cache)
{
	struct list *node;

	LOCK_GUARD(&pool_cache->backlogs.lock);
	node = list_pop(&pool_cache->keepers);
	return node ? container_of(node, struct disk, keepers) : NULL;
}
