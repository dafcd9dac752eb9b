/* What is asked of a disk besides I/O: attributes, layers, and where its data is. */
#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include "apart.h"
#include "core/error.h"
#include "core/fault.h"
#include "core/thread.h"
#include "core/time.h"
#include "disk/object.h"
#include "disk/route.h"
#include "layer/logs.h"
#include "layer/parent.h"
#include "layer/read.h"

/* For one that answers. */
#define LOOK_PATIENCE_NS (20 * NS_PER_MS)

static void take_own_time(const struct disk *disk, struct timespec *modified)
{
	int64_t changed_ns = disk->changed_ns;
	struct timespec changed = {changed_ns / (int64_t)NS_PER_S, changed_ns % (int64_t)NS_PER_S};

	if (changed.tv_sec > modified->tv_sec ||
	    (changed.tv_sec == modified->tv_sec && changed.tv_nsec > modified->tv_nsec))
		*modified = changed;
}

static void remember(struct disk *disk, const struct disk_attributes *attributes)
{
	LOCK_GUARD(&disk->lock);
	disk->seen = *attributes;
	disk->has_seen = true;
}

bool disk_recall_attributes(struct disk *disk, struct disk_attributes *attributes)
{
	bool has;

	lock_take(&disk->lock);
	has = disk->has_seen;
	*attributes = disk->seen;
	lock_let_go(&disk->lock);
	attributes->size_bytes = disk->size_bytes;
	take_own_time(disk, &attributes->modified);
	return has;
}

void disk_recall_size(struct disk *disk, uint64_t *size_bytes, uint64_t *allocated_bytes)
{
	g_autoptr(GPtrArray) links = disk_get_links(disk);
	const struct chain_link *leaf = links->pdata[0];
	struct disk_attributes seen;
	bool has = disk_recall_attributes(disk, &seen);

	*size_bytes = seen.size_bytes ? seen.size_bytes
				      : leaf->info.size_bytes - MIN(leaf->info.size_bytes, leaf->base_offset);
	*allocated_bytes = has ? seen.allocated_bytes : leaf->allocated_bytes;
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
		.below = parent_stamp_of(links, 1),
		.writable = disk->writable,
		.size_bytes = disk->size_bytes,
	};
	remember(disk, attributes);
	take_own_time(disk, &attributes->modified);
	if (!known && image_read_info_fd(file.fd, leaf->path, leaf->format, &info, &error))
		attributes->size_bytes = info.size_bytes - MIN(info.size_bytes, leaf->base_offset);
	image_info_clear(&info);
	chain_file_clear(&file);
	return error ? error_to_errno(error) : 0;
}

int disk_get_attributes(struct disk *disk, struct disk_attributes *attributes)
{
	bool known = disk->open || (disk->mode == DISK_MODE_EPHEMERAL && disk->stays);
	int result;

	thread_assert_may_block();
	disk->lookers++;
	result = look_at_image(disk, known, attributes);
	disk->lookers--;
	return result < 0 && known && disk_recall_attributes(disk, attributes) ? 0 : result;
}

static void look_apart(struct loop_work *work)
{
	struct disk *disk = container_of(work, struct disk, look);
	struct disk_attributes attributes;

	(void)disk_get_attributes(disk, &attributes);
	lock_take(&disk->lock);
	disk->looking = false;
	condition_broadcast(&disk->looked);
	lock_let_go(&disk->lock);
	disk_end_apart(disk);
}

static bool begin_look(struct disk *disk)
{
	bool begin;

	LOCK_GUARD(&disk->lock);
	begin = disk->was_opened && !disk->looking;
	disk->looking |= begin;
	return begin;
}

void disk_look_for_a_while(struct disk *disk)
{
	uint64_t until_ns = loop_now_ns() + LOOK_PATIENCE_NS;

	thread_assert_may_wait();
	if (!begin_look(disk))
		return;
	disk->look.work = look_apart;
	disk_begin_apart(disk);
	loop_offload_step_apart(&disk->look);
	LOCK_GUARD(&disk->lock);
	while (disk->looking && lock_wait_until(&disk->lock, &disk->looked, until_ns))
		;
}

static void told_free(void *data)
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
	g_autoptr(GPtrArray) links = open ? disk_get_links(disk) : disk_resolve(disk, error);
	GPtrArray *layers;

	if (!links)
		return NULL;
	layers = g_ptr_array_new_with_free_func(told_free);
	for (guint i = 0; i < links->len; i++)
		g_ptr_array_add(layers, layer_of(links->pdata[i]));
	if (open)
		((struct disk_layer *)layers->pdata[0])->size_bytes = disk->size_bytes;
	return layers;
}

static uint64_t blocks_of_layer(struct disk *disk, unsigned layer)
{
	if (layer > 0)
		return blocks_of(layer_size_bytes(stack_layer(disk->stack, layer - 1)));
	return blocks_of(disk->leaf->image ? disk->leaf->image->size_bytes : disk->size_bytes);
}

static struct image_extent extent_of_layer(struct disk *disk, unsigned layer, uint64_t block, uint64_t limit)
{
	if (layer == 0)
		return disk->route->extent(disk, block, limit);
	return layer_extent_blocking(stack_layer(disk->stack, layer - 1), block, limit);
}

/* As who asks counts layers: all that is in the log is one. */
static int number_of(struct disk *disk, unsigned layer)
{
	return (int)(layer - MIN(layer, logs_depth(disk->logs)));
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
		*layer = number_of(disk, i);
		if (extent.state != EXTENT_ABSENT)
			return extent;
	}
	*layer = -1;
	return (struct image_extent){EXTENT_ABSENT, limit};
}

bool disk_leaf_is_empty(struct disk *disk)
{
	uint64_t end = blocks_of(disk->size_bytes);
	struct image_extent extent = {.state = EXTENT_ABSENT};

	for (uint64_t block = 0; block < end && extent.state == EXTENT_ABSENT; block += extent.blocks)
		extent = disk->route->extent(disk, block, end - block);
	return extent.state == EXTENT_ABSENT;
}

/* 1; 0 past the end of the disk; or a negative errno. */
static int get_extent(struct disk *disk, uint64_t offset, struct disk_extent *extent)
{
	uint64_t size = disk->size_bytes, end;
	struct image_extent found;

	if (disk->route == &route_failed || disk->refusing)
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

	gate_wait(&disk->gate);
	found = get_extent(disk, offset, extent);
	gate_leave(&disk->gate);
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
