/* An unmounted cache: opened, locked, recovered in memory, described. */
#include "view.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "aio/file.h"
#include "core/error.h"
#include "core/nearest.h"

static bool lock_shared(const struct cache_view *view, GError **error)
{
	switch (aio_fd_lock(view->fd, false)) {
	case ANSWER_YES:
		return true;
	case ANSWER_NO:
		return error_set(error, EBUSY, "%s: is the cache of a mount; unmount that first", view->path);
	case ANSWER_UNKNOWN:
		break;
	}
	return error_set_errno(error, errno, "%s: cannot be locked", view->path);
}

bool cache_view_open(struct cache_view *view, const char *path, GError **error)
{
	struct stat st;
	int64_t bytes;

	*view = (struct cache_view){.path = path};
	view->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (view->fd < 0) {
		error_set_errno(error, errno, "%s: cannot be opened", path);
		nearest_add_file(path, error);
		goto fail;
	}
	if (!aio_fd_look(view->fd, path, &st, error))
		goto fail;
	bytes = aio_fd_size(view->fd);
	if (bytes < 0) {
		error_set_errno(error, (int)-bytes, "%s: its size cannot be told", path);
		goto fail;
	}
	view->file_bytes = (uint64_t)bytes;
	if (lock_shared(view, error))
		return true;
fail:
	cache_view_close(view);
	return false;
}

void cache_view_close(struct cache_view *view)
{
	if (view->fd >= 0)
		close(view->fd);
	view->fd = -1;
	g_clear_pointer(&view->layers, layers_free);
	g_clear_pointer(&view->index, index_free);
	cache_log_end_clear(&view->end);
}

enum cache_super_result cache_view_load(struct cache_view *view, GError **error)
{
	enum cache_super_result result =
		cache_super_read(view->fd, view->path, view->file_bytes, &view->super, &view->bad_copies, error);

	if (result == CACHE_SUPER_BLANK)
		error_set(error, ENODATA, "%s: is empty, no cache yet", view->path);
	return result;
}

bool cache_view_recover(struct cache_view *view, GError **error)
{
	view->index = index_new(le64_get(view->super.ring_segments) * CACHE_SEGMENT_BLOCKS, error);
	if (!view->index)
		return false;
	view->layers = layers_new(NULL);
	cache_recover(view->fd, &view->super, view->index, view->layers, &view->end);
	return true;
}

bool cache_view_open_recovered(struct cache_view *view, const char *path, GError **error)
{
	if (!cache_view_open(view, path, error))
		return false;
	if (cache_view_load(view, error) == CACHE_SUPER_GOOD && cache_view_recover(view, error))
		return true;
	cache_view_close(view);
	return false;
}

/* ---- Layers -------------------------------------------------------------- */

static void layer_info_free(void *opaque)
{
	struct cache_layer_info *info = opaque;

	g_free(info->name);
	g_free(info->loss);
	g_free(info);
}

static void add_layer_info(void *opaque, struct cache_layer *layer)
{
	struct cache_layer_info *info = g_new0(struct cache_layer_info, 1);

	info->id = layer->id;
	info->name = g_strdup(layer->name);
	memcpy(info->identity, layer->identity, sizeof(info->identity));
	info->stamp = layer->stamp;
	info->size_bytes = layer->size_bytes;
	info->generation = layer->generation;
	memcpy(info->nonce, layer->nonce, sizeof(info->nonce));
	info->reached = layer->reached;
	info->orphan = layer->orphan;
	info->orphan_text = layer_orphan_text(layer);
	info->orphan_time_ns = layer->orphan_time_ns;
	info->loss = layer->incomplete ? layer_loss_text(layer) : NULL;
	info->epochs = layer->epochs ? epochs_count(layer->epochs) : 0;
	info->clean_blocks = layer->live_blocks - layer->pinned_blocks;
	info->dirty_blocks = layer->pinned_blocks;
	for (unsigned i = 0; layer->zeros && i < intervals_length(layer->zeros); i++)
		info->zero_blocks += intervals_get(layer->zeros, i).count;
	g_ptr_array_add(opaque, info);
}

static int compare_ids(const void *left, const void *right)
{
	const struct cache_layer_info *const *a = left, *const *b = right;

	return ((*a)->id > (*b)->id) - ((*a)->id < (*b)->id);
}

GPtrArray *cache_view_layers(const struct cache_view *view)
{
	GPtrArray *layers = g_ptr_array_new_with_free_func(layer_info_free);

	layers_foreach(view->layers, add_layer_info, layers);
	g_ptr_array_sort(layers, compare_ids);
	return layers;
}
