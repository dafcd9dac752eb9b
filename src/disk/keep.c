/* An ephemeral disk becomes an image. */
#include "disk/keep.h"

#include <errno.h>

#include "cache/layer.h"
#include "core/bytes.h"
#include "core/error.h"
#include "disk/route.h"
#include "disk/saved.h"
#include "layer/copy.h"

/* So much may be copied while guests wait: 1 MiB, or what more is left after so many rounds. */
#define REST_BLOCKS 256
#define REST_BLOCKS_MAX (16 * REST_BLOCKS)
#define ROUNDS_MAX 12
/* Or after those that it takes as it gets more while locks are waited for. */
#define ROUNDS_MOST (2 * ROUNDS_MAX)

static bool refuse(const struct disk_keep *keep, int result, GError **error)
{
	if (result == -EINTR)
		return error_set(error, EINTR, "%s: given up; it runs on as it was", keep->disk->name);
	return error_set_errno(error, -result, "%s: cannot be copied to its image, and runs on as it was",
			       keep->disk->name);
}

static int set_size(struct disk_keep *keep, uint64_t size_bytes)
{
	struct image_op op = {.length = size_bytes};

	return size_bytes == keep->image->size_bytes ? 0 : image_run_blocking(keep->image, &op, image_resize);
}

static struct logs *hold_logs(struct disk *disk)
{
	LOCK_GUARD(&disk->lock);
	return logs_ref(disk->logs);
}

/* A disk that was taken back meanwhile does not stand on what was copied. */
static int copy_logs(struct disk_keep *keep)
{
	struct logs *logs = hold_logs(keep->disk);
	g_autoptr(GPtrArray) layers = logs_above(logs, keep->copied);
	int result = logs_have(logs, keep->copied) ? 0 : -ESTALE;

	if (result == 0)
		result = set_size(keep, MAX(keep->disk->size_bytes, keep->image->size_bytes));
	for (guint i = 0; i < layers->len && result == 0; i++)
		result = layer_copy(layers->pdata[i], keep->image, keep->go_on, keep->opaque);
	logs_unref(result == 0 ? keep->copied : logs);
	if (result == 0)
		keep->copied = logs;
	return result;
}

/* A range of zeros is as little as a block. */
static uint64_t blocks_in(struct image *overflow)
{
	uint64_t end = blocks_of(overflow->size_bytes), blocks = 0;

	for (uint64_t block = 0; block < end;) {
		struct image_extent extent = image_extent_blocking(overflow, block, end - block);

		if (extent.state != EXTENT_ABSENT)
			blocks += extent.state == EXTENT_ZERO ? 1 : extent.blocks;
		block += extent.blocks;
	}
	return blocks;
}

/* In its log layer, which may get more at any moment: in the cache, and what that had no room for. One that was kept
 * meanwhile has an image. */
static uint64_t rest_blocks(struct disk *disk)
{
	g_autoptr(layer_held) leaf = disk_hold_leaf(disk);
	uint64_t blocks, zeros;

	if (leaf->image || !leaf->cached)
		return 0;
	cache_layer_get_pinned(leaf->cached, &blocks, &zeros);
	if (leaf->overflow)
		blocks += blocks_in(leaf->overflow);
	return blocks + zeros;
}

bool disk_keep_is_little(const struct disk_keep *keep)
{
	return rest_blocks(keep->disk) <= (keep->rounds < ROUNDS_MAX ? REST_BLOCKS : REST_BLOCKS_MAX);
}

/* A chain that takes no more is copied as far as it is sealed: what is left may be little all the same. */
static bool seal(struct disk_keep *keep, GError **error)
{
	g_autoptr(GError) inner = NULL;

	if (disk_fork(keep->disk, NULL, 0, keep->go_on, keep->opaque, &inner))
		return true;
	keep->rounds = MAX(keep->rounds, ROUNDS_MAX);
	if (error_to_errno(inner) == -EMLINK && disk_keep_is_little(keep))
		return true;
	g_propagate_error(error, g_steal_pointer(&inner));
	return false;
}

static bool copy_round(struct disk_keep *keep, GError **error)
{
	int result;

	keep->rounds++;
	if (!seal(keep, error))
		return false;
	result = copy_logs(keep);
	return result == 0 || refuse(keep, result, error);
}

bool disk_keep_most(struct disk_keep *keep, GError **error)
{
	do {
		if (!copy_round(keep, error))
			return false;
	} while (!disk_keep_is_little(keep) && keep->rounds < ROUNDS_MAX);
	return (disk_keep_is_little(keep) && keep->rounds <= ROUNDS_MOST) ||
	       error_set(error, EBUSY,
			 "%s: is written faster than the pool takes it; run leafctl keep while it is paused (leafctl "
			 "pause), or has less to do",
			 keep->disk->name);
}

bool disk_keep_rest(struct disk_keep *keep, GError **error)
{
	struct disk *disk = keep->disk;
	int result = copy_logs(keep);

	if (result == 0)
		result = layer_copy(disk->leaf, keep->image, keep->go_on, keep->opaque);
	if (result == 0)
		result = set_size(keep, disk->size_bytes);
	if (result == 0)
		result = image_run_blocking(keep->image, &(struct image_op){0}, image_flush);
	return result == 0 || refuse(keep, result, error);
}

void disk_keep_clear(struct disk_keep *keep)
{
	logs_unref(keep->copied);
	keep->copied = NULL;
}
