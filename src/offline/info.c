/* Images without a mount: info, map, check, resize. */
#include "offline/offline.h"

#include <dirent.h>
#include <errno.h>
#include <string.h>

#include "core/error.h"
#include "core/verdict.h"
#include "image/children.h"
#include "image/foreign.h"
#include "layer/chain.h"
#include "layer/parent.h"
#include "open.h"
#include "unlock.h"

static void told_free(void *data)
{
	struct offline_layer *layer = data;

	g_free(layer->path);
	g_free(layer->parent);
	g_free(layer->children);
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
		.children = link->info.children ? image_children_text(link->info.children) : NULL,
	};
	memcpy(layer->uuid, link->info.uuid, sizeof(layer->uuid));
	return layer;
}

/* Its journal tells more than its header. One that a mount writes may look damaged. */
static void add_claim(const struct chain_link *link, struct offline_layer *layer)
{
	struct image *image =
		image_open(link->path, link->format, IMAGE_NO_LOCK | IMAGE_NO_DIRECT, link->base_offset, NULL);

	if (!image)
		return;
	memcpy(layer->claim, image->claim, sizeof(layer->claim));
	layer->progress = image->progress;
	(void)image_close(image);
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
	add_claim(links->pdata[0], result->pdata[0]);
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

static bool lacks_header(const char *path)
{
	g_autoptr(GError) error = NULL;
	g_autofree char *foreign = NULL;

	if (!g_str_has_suffix(path, ".leaf") || image_probe(path, &error) != IMAGE_FORMAT_NONE || error)
		return false;
	foreign = image_foreign_text(path, IMAGE_FORMAT_NONE);
	return !foreign;
}

bool offline_is_damage(const GError *why)
{
	switch (-error_to_errno(why)) {
	case ENOENT:
	case ENOTDIR:
	case ENODATA:
	case EINVAL:
	case EFBIG:
	case EPERM:
	case ELOOP:
	case EMLINK:
	case ESTALE:
		return true;
	default:
		return false;
	}
}

/* The chain of the image at PATH opens. */
static bool check_chain(const char *path, enum image_format format, const char *layers, bool repair,
			void (*finding)(void *opaque, bool repaired, const char *sentence), void *opaque,
			struct image_check_result *result, GError **error)
{
	g_autoptr(GError) chain = NULL;
	GPtrArray *links = offline_links(path, format, layers, &chain);

	if (links && repair)
		parent_mark_chain(links, NULL, NULL);
	g_clear_pointer(&links, g_ptr_array_unref);
	if (!chain)
		return true;
	if (!offline_is_damage(chain)) {
		g_propagate_error(error, g_steal_pointer(&chain));
		return false;
	}
	result->damages++;
	finding(opaque, false, chain->message);
	return true;
}

bool offline_check(const char *path, enum image_format format, const char *layers, bool repair,
		   void (*finding)(void *opaque, bool repaired, const char *sentence), void *opaque,
		   struct image_check_result *result, GError **error)
{
	if (format == IMAGE_FORMAT_NONE && lacks_header(path)) {
		result->damages++;
		finding(opaque, false, "is named .leaf, and both copies of its header are gone");
		return true;
	}
	format = offline_format_of(path, format, error);
	if (format == IMAGE_FORMAT_NONE || (repair && !offline_owner_allows(path, false, error)))
		return false;
	if (!image_check(path, format, repair, finding, opaque, result, error)) {
		offline_owner_explain(path, error);
		return false;
	}
	return check_chain(path, format, layers, repair, finding, opaque, result, error);
}

bool offline_size_is_allowed(const char *path, uint64_t bytes, GError **error)
{
	return bytes >= IMAGE_SIZE_MIN ||
	       error_set(error, EINVAL, "%s: a disk has at least %d bytes", path, IMAGE_SIZE_MIN);
}

bool offline_resize(const char *path, enum image_format format, const char *layers, uint64_t size_bytes, bool shrink,
		    GError **error)
{
	struct disk *disk;
	int64_t result;

	if (!offline_size_is_allowed(path, size_bytes, error))
		return false;
	if (!offline_owner_allows(path, false, error))
		return false;
	disk = offline_open(path, format, layers, OPEN_TO_WRITE, error);
	if (!disk)
		return false;
	if (size_bytes < disk->size_bytes && !shrink) {
		error_set(error, EPERM,
			  "%s: has %" G_GUINT64_FORMAT " bytes; making it smaller, %" G_GUINT64_FORMAT
			  " bytes, loses data and needs --shrink",
			  path, disk->size_bytes, size_bytes);
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

static void add_warning(const char *path, GPtrArray *warnings)
{
	char *warning = offline_owner_warning(path);

	if (warning)
		g_ptr_array_add(warnings, warning);
}

GPtrArray *offline_owner_warnings(const char *path, enum image_format format, const char *layers)
{
	GPtrArray *warnings = g_ptr_array_new_with_free_func(g_free);
	g_autoptr(GError) error = NULL;
	g_autoptr(GPtrArray) chain = offline_info(path, format, layers, &error);

	add_warning(path, warnings);
	for (guint i = 1; chain && i < chain->len; i++) {
		const struct offline_layer *layer = chain->pdata[i];

		if (chain_is_sealed_name(layer->path))
			add_warning(layer->path, warnings);
	}
	return warnings;
}
