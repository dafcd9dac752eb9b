/* An unmounted cache: opened, locked, recovered in memory, described. */
#include "view.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/error.h"

/* A daemon whose mount has just gone still holds its cache for a moment. */
#define LOCK_PATIENCE_US (G_USEC_PER_SEC)
#define LOCK_RETRY_US (10 * 1000)

static bool lock_shared(struct cache_view *view, GError **error)
{
	struct flock lock = {.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_len = 1};

	for (gint64 patience = LOCK_PATIENCE_US; fcntl(view->fd, F_OFD_SETLK, &lock) < 0; patience -= LOCK_RETRY_US) {
		if (errno != EAGAIN && errno != EACCES)
			return error_set_errno(error, errno, "%s: cannot be locked", view->path);
		if (patience <= 0)
			return error_set(error, EBUSY, "%s: is the cache of a mount; unmount that first", view->path);
		g_usleep(LOCK_RETRY_US);
	}
	return true;
}

bool cache_view_open(struct cache_view *view, const char *path, GError **error)
{
	struct stat st;
	off_t bytes;

	*view = (struct cache_view){.path = path};
	view->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (view->fd < 0 || fstat(view->fd, &st) < 0) {
		error_set_errno(error, errno, "%s: cannot be opened", path);
		goto fail;
	}
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode)) {
		error_set(error, EINVAL, "%s: is neither a file nor a block device", path);
		goto fail;
	}
	bytes = lseek(view->fd, 0, SEEK_END);
	if (bytes < 0) {
		error_set_errno(error, errno, "%s: its size cannot be told", path);
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
	return cache_recover(view->fd, view->path, &view->super, view->index, view->layers, &view->end, error);
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
	info->orphan = layer->orphan;
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
