/* What the cache has of an image that is to be moved or removed, and could not be opened to
 * get it.
 *
 * Moved, an image takes it along where the cache knows it by an identity of its own: its
 * owner record has the new name then. Under a path that is gone, and of an image that is
 * gone, nobody would ever know it again: it is not for a rename to decide that. Once a
 * command has given it up (leafctl unlock --force) it is set aside, and the image may go. */
#include <errno.h>
#include <string.h>

#include "cache/layer.h"
#include "core/error.h"
#include "core/log.h"
#include "dirty.h"
#include "internal.h"
#include "layer/claim.h"
#include "layer/key.h"

static struct disk *find_owner(struct disk_pool *pool, const struct cache_layer_dirty *dirty)
{
	g_autoptr(GPtrArray) disks = disk_pool_shown(pool);

	return pool_find_dirty(disks, dirty);
}

/* Not where another image is meant, of which DISK's is a copy. */
static bool find_left(struct disk_pool *pool, struct disk *disk, const struct chain_link *link,
		      struct cache_layer_key *key, struct cache_layer_found *found)
{
	struct cache_layer_dirty dirty = {.name = found->name};

	*key = (struct cache_layer_key){.name = link->path, .disowned = true, .reason = CACHE_ORPHAN_COMMAND};
	layer_identity_of(link, NULL, key->identity);
	memcpy(dirty.identity, key->identity, CACHE_ID_BYTES);
	return cache_layer_find(pool->pool_cache->cache, key->identity, found) && found->dirty_blocks > 0 &&
	       find_owner(pool, &dirty) == disk;
}

static char *reason_of(struct disk *disk)
{
	LOCK_GUARD(&disk->lock);
	return g_strdup(disk->left ? disk->left : "it was not opened yet");
}

static bool refuse(struct disk *disk, const struct chain_link *link, const char *size, GError **error)
{
	g_autoptr(layer_held) leaf = disk_hold_leaf(disk);
	g_autofree char *command = claim_unlock_command(leaf, link), *reason = reason_of(disk);

	return error_set(error, EBUSY,
			 "%s: the cache has %s of changes of it that are not in the pool yet, and would be nobody's: "
			 "%s; leafctl drain brings them there once it can be opened, and %s gives them up",
			 disk->name, size, reason, command);
}

bool pool_left_allows(struct disk_pool *pool, struct disk *disk, bool moved, GError **error)
{
	g_autoptr(GPtrArray) links = disk_get_links(disk);
	g_autoptr(layer_held) leaf = disk_hold_leaf(disk);
	const struct chain_link *link = links->pdata[0];
	struct cache_layer_found found;
	struct cache_layer_key key;
	g_autofree char *size = NULL;

	if (!pool->pool_cache || !find_left(pool, disk, link, &key, &found) || (moved && layer_identity_is_own(link)))
		return true;
	size = config_format_size(found.dirty_blocks << BLOCK_SHIFT);
	if (!claim_is_given_up(leaf, link))
		return refuse(disk, link, size, error);
	log_warning(
		"%s: the %s of changes that the cache has of it were given up, and are set aside: leafctl cache dump "
		"saves them",
		disk->name, size);
	cache_layer_disown(pool->pool_cache->cache, &key);
	return true;
}
