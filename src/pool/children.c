/* What images of a pool, and sealed layers that are not complete, remember of their children. */
#include "children.h"

#include "core/error.h"
#include "core/log.h"
#include "core/verdict.h"
#include "disk/keeper.h"
#include "image/children.h"
#include "layer/seal.h"

/* A golden image on a store that is not written has children all the same. */
static bool may_be_unmarked(const GError *error)
{
	enum error_class class = error_class_of(STORE_OPEN, error_to_errno(error));

	return class == ERROR_READ_ONLY || class == ERROR_UNSUPPORTED;
}

bool pool_add_child(struct layer *layer, const struct chain_link *parent, const uint8_t uuid[IMAGE_UUID_BYTES],
		    const char *path, GError **error)
{
	g_autoptr(GError) inner = NULL;
	struct image_children *children;

	if (layer && layer->sealed && seal_add_child(layer, uuid, path))
		return true;
	children = image_children_open(parent->real, parent->format, &inner);
	if (children)
		(void)image_children_add(children, uuid, path, &inner);
	image_children_close(children);
	if (!inner || may_be_unmarked(inner))
		return true;
	g_propagate_error(error, g_steal_pointer(&inner));
	return false;
}

void pool_forget_child(struct disk_pool *pool, const struct chain_link *parent, const uint8_t uuid[IMAGE_UUID_BYTES])
{
	struct disk *keeper = keeper_find(pool->pool_cache, parent);
	g_autoptr(GError) error = NULL;
	struct image_children *children = NULL;

	if (!keeper || !seal_remove_child(keeper->leaf, uuid))
		children = image_children_open(parent->real, parent->format, &error);
	if (children)
		(void)image_children_remove(children, uuid, &error);
	image_children_close(children);
	disk_unref(keeper);
	if (error)
		log_debug(LOG_DISK, "%s", error->message);
}
