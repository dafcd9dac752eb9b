/* Disks: opening and closing their chain, and what is asked of them besides
 * I/O.
 *
 * A disk is closed most of its life: 2,000 idle ones cost their names. The
 * first open opens the leaf (writable when the disk is) and gets the stack
 * below it; the last close commits and lets go of both. open_lock is held
 * meanwhile, so opens and closes of one disk follow each other. Whoever only
 * looks at a disk does not wait for them. */
#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/error.h"
#include "core/fault.h"
#include "core/log.h"
#include "core/thread.h"
#include "disk/object.h"
#include "layer/key.h"
#include "disk/overflow.h"
#include "claim.h"
#include "route.h"

struct disk *disk_new(const char *name, bool writable, uint64_t id, GPtrArray *links, const struct chain_roots *roots,
		      const char *spelled, enum disk_mode mode, struct local *local)
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
	disk->local = local;
	disk->references = 1;
	gate_init(&disk->gate);
	migration_init(&disk->migration);
	g_mutex_init(&disk->open_lock);
	g_mutex_init(&disk->lock);
	list_init(&disk->overflow_runs);
	range_lock_init(&disk->ranges);
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

static void disk_free(struct disk *disk)
{
	if (disk->open && disk->opens == 0)
		(void)disk_close_chain(disk);
	/* An ephemeral disk's; the others' went with their last close. */
	cache_layer_close(disk->cached, 0);
	overflow_free(disk);
	g_ptr_array_unref(disk->links);
	chain_roots_unref(disk->roots);
	g_mutex_clear(&disk->open_lock);
	g_mutex_clear(&disk->lock);
	gate_clear(&disk->gate);
	g_free(disk->spelled);
	g_free(disk->path);
	g_free(disk->name);
	g_free(disk);
}

/* Disks that are being freed in the background. */
static struct {
	GMutex lock;
	GCond none;
	unsigned count;
} disposals;

static void dispose(struct loop_work *work)
{
	disk_free(container_of(work, struct disk, disposal));
	g_mutex_lock(&disposals.lock);
	if (--disposals.count == 0)
		g_cond_broadcast(&disposals.none);
	g_mutex_unlock(&disposals.lock);
}

/* Freeing closes what is still open, with flushes: not on a loop. */
void disk_unref(struct disk *disk)
{
	if (!disk || --disk->references)
		return;
	if (thread_may_wait()) {
		disk_free(disk);
		return;
	}
	g_mutex_lock(&disposals.lock);
	disposals.count++;
	g_mutex_unlock(&disposals.lock);
	disk->disposal.work = dispose;
	loop_offload_wait_apart(&disk->disposal);
}

void disk_await_disposals(void)
{
	g_mutex_lock(&disposals.lock);
	while (disposals.count > 0)
		g_cond_wait(&disposals.none, &disposals.lock);
	g_mutex_unlock(&disposals.lock);
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

unsigned disk_open_count(struct disk *disk)
{
	return disk->opens;
}

GPtrArray *disk_get_links(struct disk *disk)
{
	GPtrArray *links;

	g_mutex_lock(&disk->lock);
	links = g_ptr_array_ref(disk->links);
	g_mutex_unlock(&disk->lock);
	return links;
}

/* The headers may have changed since the pool was read. */
static GPtrArray *resolve(struct disk *disk, GError **error)
{
	g_autoptr(GPtrArray) known = disk_get_links(disk);
	g_autoptr(GPtrArray) links = chain_links_new();
	const struct chain_link *leaf = known->pdata[0];
	bool good = disk->spelled ? chain_resolve_spelled(disk->spelled, disk->roots, NULL, links, error)
				  : chain_resolve(leaf->path, leaf->format, disk->roots, NULL, links, error);

	return good ? g_steal_pointer(&links) : NULL;
}

static bool resolve_again(struct disk *disk, GError **error)
{
	GPtrArray *links = resolve(disk, error);
	GPtrArray *old;

	if (!links)
		return false;
	g_mutex_lock(&disk->lock);
	old = disk->links;
	disk->links = links;
	g_mutex_unlock(&disk->lock);
	g_ptr_array_unref(old);
	return true;
}

static bool open_stack(struct disk *disk, guint first, GError **error)
{
	if (disk->links->len <= first)
		return true;
	disk->stack = stack_get(disk->links, first, disk_uses_cache(disk) ? disk->local->cache : NULL, error);
	return disk->stack;
}

/* Every image is below the local leaf, and none is written. */
static bool open_ephemeral(struct disk *disk, GError **error)
{
	if (!disk->cached && route_left_in_cache(disk))
		return error_set(
			error, EBUSY,
			"%s: the cache has changes of it that are not in the pool yet, which an ephemeral disk "
			"would not show; mount it in another mode first, or run leafctl cache drain",
			disk->name);
	if (!open_stack(disk, 0, error))
		return false;
	if (!disk->cached) {
		disk->cached = cache_layer_new_volatile(disk->local->cache, disk->name);
		disk->size_bytes = stack_size_bytes(disk->stack);
	}
	if (disk->cached)
		return true;
	stack_put(disk->stack);
	disk->stack = NULL;
	return error_set(error, ENOSPC, "%s: the cache has no layer number left; make it anew", disk->name);
}

/* Even an open for reading finishes what a crash has interrupted, unless the
 * image is another's. */
static bool open_leaf(struct disk *disk, bool write, GError **error)
{
	g_autoptr(GError) local = NULL;
	bool ours = owner_allows_disk(disk, &local);
	unsigned flags = (disk->writable && ours ? IMAGE_WRITABLE | IMAGE_BEGIN_LATER : 0) |
			 (disk->unlocked ? IMAGE_NO_LOCK : 0);
	const struct chain_link *leaf = disk->links->pdata[0];

	if (ours || !write) {
		g_clear_error(&local);
		disk->leaf = chain_link_open(leaf, flags, &local);
	}
	if (!disk->leaf && disk->writable && !write &&
	    error_class_of(STORE_OPEN, error_to_errno(local)) == ERROR_READ_ONLY) {
		g_clear_error(&local);
		disk->leaf = chain_link_open(leaf, 0, &local);
	}
	if (!disk->leaf) {
		if (ours)
			owner_explain_disk_lock(disk, &local);
		g_propagate_error(error, g_steal_pointer(&local));
	}
	return disk->leaf;
}

/* The owner's claim is given up, and the stamp taken, of an image that is all
 * written and still locked. */
static int close_leaf(struct disk *disk)
{
	int result;

	route_close(disk);
	result = image_close(disk->leaf);
	disk->leaf = NULL;
	return result;
}

/* The key is taken under the image's lock, and before anything is written. */
static bool open_shared(struct disk *disk, bool write, GError **error)
{
	if (!open_stack(disk, 1, error))
		return false;
	if (!open_leaf(disk, write, error)) {
		stack_put(disk->stack);
		disk->stack = NULL;
		return false;
	}
	disk->size_bytes = disk->leaf->size_bytes;
	if (route_open(disk, error))
		return true;
	(void)close_leaf(disk);
	stack_put(disk->stack);
	disk->stack = NULL;
	return false;
}

static bool open_chain(struct disk *disk, bool write, GError **error)
{
	if (!resolve_again(disk, error))
		return false;
	if (disk->mode != DISK_MODE_EPHEMERAL)
		return open_shared(disk, write, error);
	disk->route = ROUTE_LOCAL;
	return open_ephemeral(disk, error);
}

static bool open_chain_once(struct disk *disk, bool write, GError **error)
{
	if (!disk->open)
		disk->open = open_chain(disk, write, error);
	return disk->open;
}

/* What an ephemeral disk was given stays until the unmount. */
int disk_close_chain(struct disk *disk)
{
	int result = disk->route == ROUTE_LOCAL ? 0 : close_leaf(disk);

	stack_put(disk->stack);
	disk->stack = NULL;
	disk->open = false;
	return result;
}

/* Behind the gate: others may have it open for reading. */
static bool begin_writing(struct disk *disk, GError **error)
{
	bool good;

	gate_close(disk);
	good = route_begin_writing(disk, error);
	gate_open(disk);
	return good;
}

/* While something is dirty the chain stays open; the migrator closes it then. */
static int close_or_leave(struct disk *disk)
{
	if (!migrate_is_needed(disk))
		return disk_close_chain(disk);
	if (disk->route == ROUTE_WRITEBACK)
		cache_end_epoch(disk->cached);
	migrate_kick(disk->local);
	return 0;
}

static void count_open(struct disk *disk)
{
	disk->opens++;
	disk->was_opened = true;
}

int disk_open(struct disk *disk, bool write, GError **error)
{
	g_autoptr(GError) local = NULL;
	int result = 0;

	thread_assert_may_wait();
	g_mutex_lock(&disk->open_lock);
	if (write && !disk->writable)
		error_set(
			&local, EROFS,
			"%s: is read-only: another image depends on it, its image is outside the pool, or the pool is "
			"mounted read-only",
			disk->name);
	else if (open_chain_once(disk, write, &local) && write && !disk_takes_writes(disk))
		error_set(&local, EROFS, "%s: was opened read-only, its image cannot be written", disk->name);
	if (!local && write)
		begin_writing(disk, &local);
	if (local && disk->opens == 0 && disk->open)
		(void)close_or_leave(disk);
	if (local)
		result = error_to_errno(local);
	else
		count_open(disk);
	g_mutex_unlock(&disk->open_lock);
	if (local)
		g_propagate_error(error, g_steal_pointer(&local));
	return result;
}

int disk_close(struct disk *disk)
{
	int result = 0;

	thread_assert_may_wait();
	g_mutex_lock(&disk->open_lock);
	if (--disk->opens == 0)
		result = close_or_leave(disk);
	g_mutex_unlock(&disk->open_lock);
	return result;
}

static void remember(struct disk *disk, const struct disk_attributes *attributes)
{
	g_mutex_lock(&disk->lock);
	disk->seen = *attributes;
	disk->has_seen = true;
	g_mutex_unlock(&disk->lock);
}

bool disk_recall_attributes(struct disk *disk, struct disk_attributes *attributes)
{
	bool has;

	g_mutex_lock(&disk->lock);
	has = disk->has_seen;
	*attributes = disk->seen;
	g_mutex_unlock(&disk->lock);
	attributes->size_bytes = disk->size_bytes;
	return has;
}

bool disk_is_looked_at(struct disk *disk)
{
	return disk->lookers > 0;
}

uint64_t disk_size_bytes(struct disk *disk)
{
	return disk->size_bytes;
}

/* The size is what the chain says while that is KNOWN. */
static int look_at_image(struct disk *disk, bool known, struct disk_attributes *attributes)
{
	g_autoptr(GPtrArray) links = disk_get_links(disk);
	const struct chain_link *leaf = links->pdata[0];
	g_autoptr(GError) error = NULL;
	struct image_info info = {0};
	struct chain_file file;

	if (!chain_link_find(leaf, &file, &error))
		return error_to_errno(error);
	*attributes = (struct disk_attributes){
		.allocated_bytes = (uint64_t)file.st.st_blocks * 512,
		.modified = file.st.st_mtim,
		.writable = disk->writable,
		.size_bytes = disk->size_bytes,
	};
	remember(disk, attributes);
	if (!known && image_read_info_fd(file.fd, leaf->path, leaf->format, &info, &error))
		attributes->size_bytes = info.size_bytes - MIN(info.size_bytes, leaf->base_offset);
	image_info_clear(&info);
	chain_file_clear(&file);
	return error ? error_to_errno(error) : 0;
}

int disk_get_attributes(struct disk *disk, struct disk_attributes *attributes)
{
	bool known = disk->open || (disk->mode == DISK_MODE_EPHEMERAL && disk->cached);
	int result;

	thread_assert_may_block();
	disk->lookers++;
	result = look_at_image(disk, known, attributes);
	disk->lookers--;
	return result < 0 && known && disk_recall_attributes(disk, attributes) ? 0 : result;
}

static void layer_free(void *data)
{
	struct disk_layer *layer = data;

	g_free(layer->path);
	g_free(layer);
}

static struct disk_layer *layer_of(const struct chain_link *link)
{
	struct disk_layer *layer = g_new0(struct disk_layer, 1);

	layer->path = g_strdup(link->path);
	layer->format = image_format_name(link->format);
	layer->size_bytes = link->info.size_bytes - MIN(link->info.size_bytes, link->base_offset);
	return layer;
}

/* The headers of an open disk were read when it was opened; its own size may
 * have changed since. */
GPtrArray *disk_get_layers(struct disk *disk, GError **error)
{
	bool open = disk->open;
	g_autoptr(GPtrArray) links = open ? disk_get_links(disk) : resolve(disk, error);
	GPtrArray *layers;

	if (!links)
		return NULL;
	layers = g_ptr_array_new_with_free_func(layer_free);
	for (guint i = 0; i < links->len; i++)
		g_ptr_array_add(layers, layer_of(links->pdata[i]));
	if (open)
		((struct disk_layer *)layers->pdata[0])->size_bytes = disk->size_bytes;
	return layers;
}

/* What the local leaf of an ephemeral disk has. */
static struct image_extent extent_of_local(struct disk *disk, uint64_t block, uint64_t limit)
{
	struct cache_extent cached = cache_lookup_far(disk->cached, block, limit);
	struct image *overflow = disk->overflow;

	if (cached.answer != CACHE_MISS)
		return (struct image_extent){cached.answer == CACHE_HIT ? EXTENT_DATA : EXTENT_ZERO, cached.blocks};
	if (!overflow)
		return (struct image_extent){EXTENT_ABSENT, cached.blocks};
	return image_extent(overflow, block, cached.blocks);
}

/* What is newer in the cache, or else what the leaf has. */
static struct image_extent extent_of_cached(struct disk *disk, uint64_t block, uint64_t limit)
{
	struct cache_extent cached = cache_lookup_far(disk->cached, block, limit);

	if (cached.answer != CACHE_MISS)
		return (struct image_extent){cached.answer == CACHE_HIT ? EXTENT_DATA : EXTENT_ZERO, cached.blocks};
	return image_extent_blocking(disk->leaf, block, cached.blocks);
}

static uint64_t blocks_of_layer(struct disk *disk, unsigned layer)
{
	struct image *image = layer ? stack_layer(disk->stack, layer - 1) : disk->leaf;

	return blocks_of(image ? image->size_bytes : disk->size_bytes);
}

static struct image_extent extent_of_layer(struct disk *disk, unsigned layer, uint64_t block, uint64_t limit)
{
	if (layer == 0 && disk->route == ROUTE_LOCAL)
		return extent_of_local(disk, block, limit);
	if (layer == 0 && disk->route == ROUTE_WRITEBACK)
		return extent_of_cached(disk, block, limit);
	return image_extent_blocking(layer ? stack_layer(disk->stack, layer - 1) : disk->leaf, block, limit);
}

/* The layer that answers for BLOCK, and for how long, asking top down. Past
 * its end a layer is zero. */
static struct image_extent extent_of_layers(struct disk *disk, uint64_t block, uint64_t limit, int *layer)
{
	unsigned depth = 1 + stack_depth(disk->stack);

	for (unsigned i = 0; i < depth; i++) {
		uint64_t blocks = blocks_of_layer(disk, i);
		struct image_extent extent;

		if (block >= blocks)
			break;
		extent = extent_of_layer(disk, i, block, MIN(limit, blocks - block));
		limit = extent.blocks;
		*layer = (int)i;
		if (extent.state != EXTENT_ABSENT)
			return extent;
	}
	*layer = -1;
	return (struct image_extent){EXTENT_ABSENT, limit};
}

/* 1; 0 past the end of the disk; or a negative errno. */
static int get_extent(struct disk *disk, uint64_t offset, struct disk_extent *extent)
{
	uint64_t size = disk->size_bytes, end;
	struct image_extent found;

	if (disk->route == ROUTE_FAILED || disk->refusing)
		return -EIO;
	if (offset >= size)
		return 0;
	found = extent_of_layers(disk, offset >> BLOCK_SHIFT, blocks_of(size) - (offset >> BLOCK_SHIFT),
				 &extent->layer);
	end = MIN(round_down(offset, BLOCK_SIZE) + (found.blocks << BLOCK_SHIFT), size);
	extent->offset = offset;
	extent->length = end - offset;
	extent->zero = found.state != EXTENT_DATA;
	return 1;
}

static int wait_and_get_extent(struct disk *disk, uint64_t offset, struct disk_extent *extent)
{
	int found;

	gate_wait(disk);
	found = get_extent(disk, offset, extent);
	gate_leave(disk);
	return found;
}

bool disk_get_extent(struct disk *disk, uint64_t offset, struct disk_extent *extent)
{
	return wait_and_get_extent(disk, offset, extent) > 0;
}

int64_t disk_seek(struct disk *disk, uint64_t offset, int whence, bool (*go_on)(void *opaque), void *opaque)
{
	struct disk_extent extent;
	int found;

	if (offset >= disk->size_bytes)
		return -ENXIO;
	while ((found = wait_and_get_extent(disk, offset, &extent)) > 0) {
		if (extent.zero == (whence == SEEK_HOLE))
			return (int64_t)extent.offset;
		if (go_on && !go_on(opaque))
			return -EINTR;
		if (fault_hit("disk.seek", disk->name) == 0)
			offset = extent.offset + extent.length;
	}
	if (found < 0)
		return found;
	return whence == SEEK_HOLE ? (int64_t)disk->size_bytes : -ENXIO;
}
