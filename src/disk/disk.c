/* Disks: the object. */
#include "disk/disk.h"

#include <stdatomic.h>

#include "disk/object.h"
#include "disk/route.h"

/* The gate closes: who waits for the migrator, which may be closing it. */
static void send_back(struct gate *gate)
{
	backlog_send_back(container_of(gate, struct disk, gate)->leaf);
}

struct disk *disk_new(const char *name, bool writable, uint64_t id, GPtrArray *links, const struct chain_roots *roots,
		      const char *spelled, enum disk_mode mode, struct pool_cache *pool_cache)
{
	const struct chain_link *leaf = links->pdata[0];
	struct disk *disk = g_new0(struct disk, 1);

	disk->name = g_strdup(name);
	disk->path = g_strdup(leaf->path);
	disk->writable = writable;
	disk->id = id;
	disk->links = links;
	disk->roots = chain_roots_ref(roots);
	disk->spelled = g_strdup(spelled);
	disk->configured_mode = mode;
	disk->mode = mode;
	disk->pool_cache = pool_cache;
	disk->references = 1;
	list_init(&disk->keepers);
	disk->route = &route_direct;
	disk->leaf = layer_new(name, pool_cache, roots);
	disk->leaf->disk = disk;
	layer_set_link(disk->leaf, leaf);
	gate_init(&disk->gate, &disk->lock, pool_cache ? &pool_cache->ending : NULL, disk_io_restart, send_back);
	lock_init(&disk->open_lock, LOCK_RANK_OPEN);
	lock_init(&disk->lock, LOCK_RANK_DISK);
	condition_init(&disk->looked);
	range_lock_init(&disk->ranges);
	list_init(&disk->requests);
	list_init(&disk->pauses);
	return disk;
}

struct disk *disk_ref(struct disk *disk)
{
	disk->references++;
	return disk;
}

struct disk *disk_ref_if_alive(struct disk *disk)
{
	unsigned references = disk->references;

	while (references > 0)
		if (atomic_compare_exchange_weak(&disk->references, &references, references + 1))
			return disk;
	return NULL;
}

const char *disk_name(const struct disk *disk)
{
	return disk->name;
}

const char *disk_image_path(const struct disk *disk)
{
	return disk->path;
}

bool disk_is_writable(const struct disk *disk)
{
	return disk->writable;
}

bool disk_was_opened(struct disk *disk)
{
	return disk->was_opened;
}

bool disk_grow_in_room(struct disk *disk, uint64_t bytes)
{
	LOCK_GUARD(&disk->lock);
	if (disk->resizing || !disk->leaf->image || bytes > disk->leaf->image->size_bytes)
		return bytes <= disk->size_bytes;
	disk->size_bytes = MAX(disk->size_bytes, bytes);
	return true;
}

struct layer *disk_new_leaf(struct disk *disk, const struct chain_link *link)
{
	struct layer *leaf = layer_new(disk->name, disk->pool_cache, disk->roots);

	leaf->disk = disk;
	leaf->owner = disk->leaf->owner;
	layer_set_link(leaf, link);
	return leaf;
}

struct layer *disk_hold_leaf(struct disk *disk)
{
	LOCK_GUARD(&disk->lock);
	return layer_ref(disk->leaf);
}

unsigned disk_open_count(struct disk *disk)
{
	unsigned changers = disk->changers, opens = disk->opens;

	return opens - MIN(opens, changers);
}

GPtrArray *disk_get_links(struct disk *disk)
{
	GPtrArray *links;

	LOCK_GUARD(&disk->lock);
	links = g_ptr_array_ref(disk->links);
	return links;
}

bool disk_is_fork(const struct disk *disk)
{
	return disk->forked;
}

unsigned disk_count_layers(struct disk *disk)
{
	LOCK_GUARD(&disk->lock);
	return disk->links->len;
}

/* The headers may have changed since the pool was read. */
GPtrArray *disk_resolve(struct disk *disk, GError **error)
{
	g_autoptr(GPtrArray) known = disk_get_links(disk);
	g_autoptr(GPtrArray) links = chain_links_new();
	const struct chain_link *leaf = known->pdata[0];
	bool good = disk->spelled ? chain_resolve_spelled(disk->spelled, disk->roots, NULL, links, error)
				  : chain_resolve(leaf->path, leaf->format, disk->roots, NULL, links, error);

	return good ? g_steal_pointer(&links) : NULL;
}
