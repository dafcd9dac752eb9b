/* A leaf that is sealed, and the leaf that is put on it. */
#include "layer/seal.h"

#include <errno.h>
#include <string.h>

#include "core/error.h"
#include "core/log.h"
#include "core/random.h"
#include "image/children.h"
#include "layer/backlog_locked.h"
#include "layer/claim.h"
#include "layer/key.h"
#include "layer/pool_cache.h"
#include "layer/share.h"

/* ---- The new leaf --------------------------------------------------------------- */

static bool has_other_name(const struct layer *layer, const struct layer *leaf)
{
	return strcmp(layer->link->real, leaf->link->real) != 0;
}

/* The record at LAYER's name is LEAF's, or of an image that had the name once. */
static bool read_before(struct layer *layer, const struct layer *leaf, GError **error)
{
	struct owner_record record = {0};
	enum answer there;

	if (has_other_name(layer, leaf)) {
		layer->succession->former = g_strdup(leaf->link->real);
		memcpy(layer->succession->nonce, leaf->claim.nonce, OWNER_ID_BYTES);
		return claim_forget_former(layer, error);
	}
	there = claim_read(layer, &record, error);
	layer->succession->before = record.generation;
	owner_record_clear(&record);
	return there != ANSWER_UNKNOWN;
}

/* Of the claim that follows the one at its name. */
static bool begin_succession(struct layer *layer, const struct layer *leaf, const char *mark, GError **error)
{
	int result;

	layer->succession = g_new0(struct layer_succession, 1);
	layer->succession->mark = g_strdup(mark);
	if (layer->owner && !read_before(layer, leaf, error))
		return false;
	layer->claim.generation = MAX(layer->succession->before, layer->image->generation) + 1;
	random_fill(layer->claim.nonce, sizeof(layer->claim.nonce));
	result = image_begin_writing(layer->image, layer->claim.nonce);
	return result == 0 ||
	       error_set_errno(error, -result, "%s: cannot be made ready for writing", layer->link->path);
}

static bool open_share(struct layer *layer, enum layer_share share, GError **error)
{
	if (share == SHARE_DIRTY)
		return share_open_new(layer, error);
	if (share == SHARE_MIRRORED)
		share_open(layer, true);
	return true;
}

struct layer *seal_new_leaf(const struct layer *leaf, int fd, const struct chain_link *link, const char *mark,
			    GError **error)
{
	struct layer *layer = layer_new(leaf->name, leaf->pool_cache, leaf->roots);

	layer->owner = leaf->owner;
	layer_set_link(layer, link);
	layer->image = image_open_fd(fd, link->path, link->format, IMAGE_WRITABLE | IMAGE_BEGIN_LATER, 0, error);
	if (layer->image && begin_succession(layer, leaf, mark, error) && open_share(layer, leaf->share, error) &&
	    (!has_other_name(layer, leaf) || claim_announce(layer, error)))
		return layer;
	share_close(layer, false);
	layer_unref(layer);
	return NULL;
}

/* ---- The old one ---------------------------------------------------------------- */

static void clear_child(void *data)
{
	g_free(((struct image_child *)data)->path);
}

/* Until it is complete. */
static void await_children(struct layer *layer)
{
	layer->children = g_array_new(FALSE, FALSE, sizeof(struct image_child));
	g_array_set_clear_func(layer->children, clear_child);
}

/* Its place among them, or their number. */
static guint find_child(const struct layer *layer, const uint8_t child[IMAGE_UUID_BYTES])
{
	guint i = 0;

	while (i < layer->children->len &&
	       memcmp(g_array_index(layer->children, struct image_child, i).uuid, child, IMAGE_UUID_BYTES) != 0)
		i++;
	return i;
}

bool seal_add_child(struct layer *layer, const uint8_t child[IMAGE_UUID_BYTES], const char *path)
{
	struct image_child entry = {.path = (char *)path};

	LOCK_GUARD(&layer->lock);
	if (!layer->children)
		return false;
	if (find_child(layer, child) < layer->children->len)
		return true;
	memcpy(entry.uuid, child, IMAGE_UUID_BYTES);
	entry.path = g_strdup(path);
	g_array_append_val(layer->children, entry);
	return true;
}

bool seal_remove_child(struct layer *layer, const uint8_t child[IMAGE_UUID_BYTES])
{
	guint i;

	LOCK_GUARD(&layer->lock);
	if (!layer->children)
		return false;
	i = find_child(layer, child);
	if (i < layer->children->len)
		g_array_remove_index(layer->children, i);
	return true;
}

bool seal_has_children(struct layer *layer)
{
	LOCK_GUARD(&layer->lock);
	return layer->children && layer->children->len > 0;
}

void seal_layer(struct layer *layer, const struct chain_link *link, const uint8_t child[IMAGE_UUID_BYTES],
		const char *path)
{
	layer->former_link = layer->link;
	layer->link = chain_link_ref(link);
	await_children(layer);
	if (child)
		(void)seal_add_child(layer, child, path);
	layer->image->sealed = true;
	layer->sealed = true;
	/* That of its other name is its own. */
	claim_settle(layer);
	layer_publish(layer);
}

void seal_opened(struct layer *layer, const struct chain_link *child)
{
	await_children(layer);
	if (child)
		(void)seal_add_child(layer, child->info.uuid, child->real);
	layer->sealed = true;
	layer_publish(layer);
}

static GArray *take_children(struct layer *layer)
{
	GArray *children;

	LOCK_GUARD(&layer->lock);
	children = layer->children;
	layer->children = NULL;
	return children;
}

void seal_complete(struct layer *layer)
{
	g_autoptr(GArray) children = take_children(layer);
	int result = image_seal(layer->image, (const void *)children->data, children->len);
	struct cache_layer_key key;

	if (result < 0)
		log_warning("%s: that it is a parent cannot be noted: %s", layer->link->path, g_strerror(-result));
	if (!layer->cached)
		return;
	cache_layer_seal(layer->cached, layer_key_of(layer->link, layer->image, &key) ? key.stamp : 0);
	layer->share = SHARE_CLEAN;
}
