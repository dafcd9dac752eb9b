/* An ephemeral disk becomes an image. */
#include "disk/keep.h"

#include <errno.h>

#include "cache/layer.h"
#include "core/error.h"
#include "disk/route.h"
#include "disk/saved.h"
#include "layer/copy.h"

/* So much may be copied while guests wait: 1 MiB, or what more is left after so many rounds. */
#define REST_BLOCKS 256
#define REST_BLOCKS_MAX (16 * REST_BLOCKS)
#define ROUNDS_MAX 12

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

/* In its log layer, which may get more at any moment. */
static uint64_t rest_blocks(const struct disk *disk)
{
	uint64_t blocks, zeros;

	cache_layer_get_pinned(disk->leaf->cached, &blocks, &zeros);
	return blocks + zeros;
}

bool disk_keep_most(struct disk_keep *keep, GError **error)
{
	struct disk *disk = keep->disk;

	for (unsigned round = 0; round < ROUNDS_MAX; round++) {
		int result;

		if (!disk_fork(disk, NULL, 0, keep->go_on, keep->opaque, error))
			return false;
		result = copy_logs(keep);
		if (result < 0)
			return refuse(keep, result, error);
		if (rest_blocks(disk) <= REST_BLOCKS)
			return true;
	}
	return rest_blocks(disk) <= REST_BLOCKS_MAX ||
	       error_set(error, EBUSY,
			 "%s: is written faster than the pool takes it; run leafctl keep while it is paused (leafctl "
			 "pause), or has less to do",
			 disk->name);
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
