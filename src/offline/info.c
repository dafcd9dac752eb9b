/* Images without a mount: create, info, map, check, convert, resize. */
#include "offline/offline.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "open.h"
#include "unlock.h"

/* TO as seen from directory FROM, both absolute. */
static char *relative_path(const char *from, const char *to)
{
	g_auto(GStrv) base = g_strsplit(from, "/", -1);
	g_auto(GStrv) path = g_strsplit(to, "/", -1);
	GString *result = g_string_new(NULL);
	unsigned same = 0;

	while (base[same] && path[same] && strcmp(base[same], path[same]) == 0)
		same++;
	for (unsigned i = same; base[i]; i++)
		if (*base[i])
			g_string_append(result, "../");
	for (unsigned i = same; path[i]; i++)
		g_string_append_printf(result, "%s%s", path[i], path[i + 1] ? "/" : "");
	return g_string_free(result, FALSE);
}

/* What the pool would refuse later is refused now. */
static bool parent_is_allowed(const char *directory, const char *parent, const char *layers, GError **error)
{
	struct chain_roots *roots = chain_roots_new(directory, layers, error);
	bool inside = false;

	if (!roots)
		return false;
	inside = chain_is_inside(parent, roots);
	chain_roots_unref(roots);
	return inside || error_set(error, EPERM,
				   "%s: is outside %s, where its child would look for it; allow its directory with "
				   "--layers DIR, and mount with -o layers=DIR",
				   parent, directory);
}

static char *path_from(const char *image, const char *parent, const char *layers, GError **error)
{
	g_autofree char *directory = g_path_get_dirname(image);
	char *from = realpath(directory, NULL), *to = realpath(parent, NULL);
	char *relative = NULL;

	if (!from || !to)
		error_set_errno(error, errno, "%s: cannot be found", from ? parent : directory);
	else if (parent_is_allowed(from, to, layers, error))
		relative = relative_path(from, to);
	free(from);
	free(to);
	return relative;
}

/* The identity that the child will hold its parent to. */
static bool describe_parent(const char *path, const struct offline_create_options *options, struct image_parent *parent,
			    GError **error)
{
	enum image_format format = offline_format_of(options->parent, options->parent_format, error);
	g_autoptr(GPtrArray) links = NULL;
	g_autoptr(GError) inner = NULL;
	const struct chain_link *top;

	if (format == IMAGE_FORMAT_NONE || !offline_owner_parent(options->parent, error))
		return false;
	links = offline_links(options->parent, format, options->layers, &inner);
	if (inner) {
		g_propagate_error(error, g_steal_pointer(&inner));
		return false;
	}
	if (links->len >= CHAIN_DEPTH_MAX)
		return error_set(error, EMLINK, "%s: its chain already has %d layers", options->parent,
				 CHAIN_DEPTH_MAX);
	top = links->pdata[0];
	*parent = (struct image_parent){
		.format = format,
		.path = path_from(path, options->parent, options->layers, error),
		.size_bytes = top->info.size_bytes,
		.generation = top->info.generation,
	};
	memcpy(parent->uuid, top->info.uuid, sizeof(parent->uuid));
	return parent->path;
}

static enum image_format format_by_name(const char *path)
{
	return g_str_has_suffix(path, ".raw") || g_str_has_suffix(path, ".img") ? IMAGE_FORMAT_RAW : IMAGE_FORMAT_LEAF;
}

bool offline_create(const char *path, const struct offline_create_options *options, GError **error)
{
	enum image_format format = options->format ? options->format : format_by_name(path);
	struct image_parent parent = {0};
	struct image_create_options create = {
		.size_bytes = options->size_bytes,
		.chunk_bytes = options->chunk_bytes,
		.parent = &parent,
		.force = options->force,
	};
	bool good = true;

	if (options->parent)
		good = describe_parent(path, options, &parent, error);
	if (good && options->parent && !create.size_bytes)
		create.size_bytes = parent.size_bytes;
	if (good && create.size_bytes < IMAGE_SIZE_MIN)
		good = error_set(error, EINVAL, "%s: a disk has at least %d bytes", path, IMAGE_SIZE_MIN);
	good = good && image_create(path, format, &create, error);
	image_parent_clear(&parent);
	return good;
}

static void told_free(void *data)
{
	struct offline_layer *layer = data;

	g_free(layer->path);
	g_free(layer->parent);
	g_free(layer);
}

static struct offline_layer *layer_of(const struct chain_link *link)
{
	struct offline_layer *layer = g_new0(struct offline_layer, 1);

	*layer = (struct offline_layer){
		.path = g_strdup(link->path),
		.format = link->format,
		.size_bytes = link->info.size_bytes,
		.allocated_bytes = link->allocated_bytes,
		.chunk_bytes = link->info.chunk_bytes,
		.generation = link->info.generation,
		.has_uuid = link->format == IMAGE_FORMAT_LEAF,
		.parent = g_strdup(link->info.parent.path),
	};
	memcpy(layer->uuid, link->info.uuid, sizeof(layer->uuid));
	return layer;
}

GPtrArray *offline_info(const char *path, enum image_format format, const char *layers, GError **error)
{
	g_autoptr(GPtrArray) links = offline_links(path, format, layers, error);
	GPtrArray *result;

	if (!links)
		return NULL;
	result = g_ptr_array_new_with_free_func(told_free);
	for (guint i = 0; i < links->len; i++)
		g_ptr_array_add(result, layer_of(links->pdata[i]));
	return result;
}

static bool may_join(const struct disk_extent *a, const struct disk_extent *b)
{
	return a->length && a->layer == b->layer && a->zero == b->zero;
}

static const char *layer_path(const struct disk *disk, int layer)
{
	return layer < 0 ? NULL : ((const struct chain_link *)disk->links->pdata[layer])->path;
}

bool offline_map(const char *path, enum image_format format, const char *layers,
		 void (*extent)(void *opaque, const struct disk_extent *extent, const char *layer_path), void *opaque,
		 GError **error)
{
	struct disk *disk = offline_open(path, format, layers, OPEN_TO_LOOK, error);
	struct disk_extent run = {0}, next;

	if (!disk)
		return false;
	for (uint64_t offset = 0; disk_get_extent(disk, offset, &next); offset = next.offset + next.length) {
		if (may_join(&run, &next)) {
			run.length += next.length;
			continue;
		}
		if (run.length)
			extent(opaque, &run, layer_path(disk, run.layer));
		run = next;
	}
	if (run.length)
		extent(opaque, &run, layer_path(disk, run.layer));
	return offline_close(disk, error);
}

bool offline_check(const char *path, enum image_format format, const char *layers, bool repair,
		   void (*finding)(void *opaque, bool repaired, const char *sentence), void *opaque,
		   struct image_check_result *result, GError **error)
{
	g_autoptr(GError) chain = NULL;
	GPtrArray *links;

	format = offline_format_of(path, format, error);
	if (format == IMAGE_FORMAT_NONE || (repair && !offline_owner_allows(path, false, error)))
		return false;
	if (!image_check(path, format, repair, finding, opaque, result, error)) {
		offline_owner_explain(path, error);
		return false;
	}
	links = offline_links(path, format, layers, &chain);
	g_clear_pointer(&links, g_ptr_array_unref);
	if (chain) {
		result->damages++;
		finding(opaque, false, chain->message);
	}
	return true;
}

bool offline_resize(const char *path, enum image_format format, const char *layers, uint64_t size_bytes, bool shrink,
		    GError **error)
{
	struct disk *disk;
	int64_t result;

	if (size_bytes < IMAGE_SIZE_MIN)
		return error_set(error, EINVAL, "%s: a disk has at least %d bytes", path, IMAGE_SIZE_MIN);
	if (!offline_owner_allows(path, false, error))
		return false;
	disk = offline_open(path, format, layers, OPEN_TO_WRITE, error);
	if (!disk)
		return false;
	if (size_bytes < disk->size_bytes && !shrink) {
		error_set(error, EPERM,
			  "%s: has %" G_GUINT64_FORMAT " bytes; making it smaller loses data and needs --shrink", path,
			  disk->size_bytes);
		offline_close(disk, NULL);
		return false;
	}
	result = offline_run(disk, DISK_RESIZE, size_bytes);
	if (result < 0) {
		error_set_errno(error, (int)-result, "%s: cannot be resized", path);
		offline_close(disk, NULL);
		return false;
	}
	return offline_close(disk, error);
}
