/* Where a disk's writes go: from one mode to another, while it is open.
 *
 *     direct, persistent -> writeback   the cache's log has the new generation,
 *                                       durably; then the pool's record has it;
 *                                       then the image is marked as written
 *     writeback -> direct, persistent   nothing is dirty, and the image is flushed
 *     writeback -> direct (flight)      likewise; the pool's record gets a new
 *                                       generation, so what the failing cache may
 *                                       show again after a restart is void
 *     any -> failed                     for as long as the disk is open */
#include "disk/route.h"

#include <errno.h>

#include "cache/layer.h"
#include "core/error.h"
#include "core/log.h"
#include "layer/key.h"
#include "disk/claim.h"

static const struct chain_link *leaf_link(const struct disk *disk)
{
	return disk->links->pdata[0];
}

static bool wants_cache(const struct disk *disk)
{
	return disk->pool_cache && (disk->mode == DISK_MODE_PERSISTENT || disk->mode == DISK_MODE_WRITEBACK);
}

static bool flush_leaf(struct disk *disk, GError **error)
{
	struct image_op flush = {0};
	int result = disk->leaf->begun ? image_run_blocking(disk->leaf, &flush, image_flush) : 0;

	return result == 0 || error_set_errno(error, -result, "%s: cannot be flushed", disk_image_path(disk));
}

/* The layer in the cache is closed, with the image's stamp where it is good. */
static void close_layer(struct disk *disk, bool good)
{
	struct cache_layer_key key = {0};

	if (good && disk->cached)
		good = !disk->leaf->unstamped && layer_key_of(leaf_link(disk), disk->leaf, &key);
	cache_layer_close(disk->cached, good ? key.stamp : 0);
	disk->cached = NULL;
}

/* Blocks and zero ranges of the open leaf's that nobody has claimed yet. */
static uint64_t left_of_leaf(const struct disk *disk)
{
	uint8_t identity[CACHE_ID_BYTES];
	struct cache_layer_found found = {0};

	if (disk->pool_cache && !disk->cached) {
		layer_identity_of(leaf_link(disk), disk->leaf, identity);
		(void)cache_layer_find(disk->pool_cache->cache, identity, &found);
	}
	return found.dirty_blocks;
}

static void open_mirror(struct disk *disk, bool writable)
{
	struct cache_layer_key key;

	if (wants_cache(disk) && layer_key_of(leaf_link(disk), disk->leaf, &key))
		disk->cached = cache_layer_open(disk->pool_cache->cache, &key, writable);
	disk->route = disk->cached ? &route_persistent : &route_direct;
}

static bool begin_image(struct disk *disk, GError **error)
{
	int result = image_begin_writing(disk->leaf);

	return result == 0 ||
	       error_set_errno(error, -result, "%s: its image cannot be made ready for writing", disk->name);
}

/* ---- Into writeback -------------------------------------------------------- */

static bool open_dirty_layer(void *opaque, uint64_t owned, uint64_t generation, GError **error)
{
	struct disk *disk = opaque;
	struct cache_layer_key key;
	int result = -EBUSY;

	if (layer_key_of(leaf_link(disk), disk->leaf, &key)) {
		key.owned = owned;
		disk->cached = cache_layer_open_dirty(disk->pool_cache->cache, &key, generation, &result);
	}
	return disk->cached ||
	       error_set_errno(error, -result,
			       "%s: the cache does not take its leaf (another open image may have its UUID)",
			       disk->name);
}

bool route_enter_writeback(struct disk *disk, GError **error)
{
	if (disk->route == &route_writeback)
		return true;
	close_layer(disk, flush_leaf(disk, NULL));
	if (!owner_claim_disk(disk, DISK_MODE_WRITEBACK, open_dirty_layer, error) || !begin_image(disk, error)) {
		close_layer(disk, false);
		open_mirror(disk, disk->leaf->begun);
		return false;
	}
	disk->route = &route_writeback;
	migrate_attach(disk);
	return true;
}

/* Nothing is written yet in writeback: the layer is only read. */
bool route_open(struct disk *disk, GError **error)
{
	if (left_of_leaf(disk) == 0) {
		open_mirror(disk, disk->leaf->writable && disk->mode != DISK_MODE_WRITEBACK);
		return true;
	}
	disk->route = &route_direct;
	if (disk->leaf->writable)
		return route_enter_writeback(disk, error);
	return error_set(
		error, EBUSY,
		"%s: the cache has changes of it that are not in the pool yet, and its image cannot be written "
		"to bring them there",
		disk->name);
}

bool route_begin_writing(struct disk *disk, GError **error)
{
	if (disk->route == &route_ephemeral || disk->route == &route_failed || disk->leaf->begun)
		return true;
	if (disk->mode == DISK_MODE_WRITEBACK)
		return route_enter_writeback(disk, error);
	return owner_claim_disk(disk, disk->mode, NULL, error) && begin_image(disk, error);
}

/* ---- Out of it ------------------------------------------------------------- */

bool route_leave_writeback(struct disk *disk, GError **error)
{
	if (disk->route != &route_writeback)
		return true;
	if (!flush_leaf(disk, error) || !owner_claim_disk(disk, disk->mode, NULL, error))
		return false;
	migrate_detach(disk);
	close_layer(disk, true);
	open_mirror(disk, true);
	return true;
}

/* Direct and persistent differ in the layers of the whole chain: those are
 * opened anew. */
bool route_change(struct disk *disk, GError **error)
{
	bool written = disk->leaf->begun;

	if (!route_leave_writeback(disk, error))
		return false;
	if (disk->mode == DISK_MODE_WRITEBACK && written)
		return route_enter_writeback(disk, error);
	if (!flush_leaf(disk, error) || (written && !owner_claim_disk(disk, disk->mode, NULL, error)))
		return false;
	close_layer(disk, true);
	open_mirror(disk, written);
	return true;
}

bool route_flee_cache(struct disk *disk, const char *reason, GError **error)
{
	if (!flush_leaf(disk, error) || !owner_claim_disk(disk, DISK_MODE_DIRECT, NULL, error))
		return false;
	cache_layer_abandon(disk->cached, reason);
	close_layer(disk, false);
	disk->route = &route_direct;
	return true;
}

/* Of a lost image not even what is left to commit is written. */
static void give_up_leaf(struct disk *disk)
{
	cache_layer_orphan(disk->cached);
	disk->cached = NULL;
	disk->owner_generation = 0;
	disk->leaf->failed = true;
	image_close(disk->leaf);
	disk->leaf = NULL;
}

void route_fail(struct disk *disk, bool lost)
{
	disk->route = &route_failed;
	disk->refusing = false;
	if (lost)
		give_up_leaf(disk);
}

static bool has_dirty(struct disk *disk)
{
	struct cache_dirty dirty = {0};

	if (disk->cached)
		cache_layer_get_dirty(disk->cached, &dirty);
	return dirty.oldest_ns != 0 || left_of_leaf(disk) > 0;
}

/* With dirty blocks left, also where their claim went wrong halfway, the record
 * stays unclean, and the layer keeps what it has. */
void route_close(struct disk *disk)
{
	bool good;

	migrate_detach(disk);
	if (disk->refusing)
		route_fail(disk, disk->migration.lost);
	good = disk->route != &route_failed && !has_dirty(disk) && flush_leaf(disk, NULL);
	if (good)
		owner_release_disk(disk);
	close_layer(disk, good);
}

uint64_t route_left_in_cache(struct disk *disk)
{
	g_autoptr(GPtrArray) links = disk_get_links(disk);
	struct cache_layer_found found = {0};
	struct cache_layer_key key;

	if (!disk->pool_cache)
		return 0;
	if (!layer_key_of(links->pdata[0], NULL, &key))
		layer_identity_of(links->pdata[0], NULL, key.identity);
	(void)cache_layer_find(disk->pool_cache->cache, key.identity, &found);
	return found.dirty_blocks;
}
