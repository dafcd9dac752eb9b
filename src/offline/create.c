/* New images without a mount.
 *
 * A child's parent is marked before the child exists, and nobody writes the parent until it
 * does: so whatever happens in between, no child is ever there whose parent does not know. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "aio/foreign.h"
#include "cache/offline.h"
#include "core/error.h"
#include "create.h"
#include "lineage.h"
#include "offline/offline.h"
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
	g_autofree char *directory = chain_directory_of(image);
	char *from = realpath(directory, NULL), *to = from ? realpath(parent, NULL) : NULL;
	char *relative = NULL;

	if (!to)
		error_set_errno(error, errno, "%s: cannot be found", from ? parent : directory);
	else if (parent_is_allowed(from, to, layers, error))
		relative = relative_path(from, to);
	free(from);
	free(to);
	return relative;
}

/* Its child would show how the leaf is stored. */
static bool is_what_it_is_said_to_be(const char *parent, enum image_format format, GError **error)
{
	return format != IMAGE_FORMAT_RAW || image_probe(parent, NULL) != IMAGE_FORMAT_LEAF ||
	       error_set(error, EINVAL, "%s: is a leaf image, not a raw one; leave -F raw out", parent);
}

/* What the child holds its parent to is read when nobody can write it any more. */
static bool begin_lineage(const char *path, const struct offline_create_options *options, const uint8_t *uuid,
			  struct lineage *lineage, char **note, GError **error)
{
	enum image_format format = offline_format_of(options->parent, options->parent_format, error);
	g_autofree char *relative = NULL;
	g_autoptr(GPtrArray) links = NULL;
	g_autoptr(GError) inner = NULL;

	if (format == IMAGE_FORMAT_NONE || !is_what_it_is_said_to_be(options->parent, format, error) ||
	    !offline_owner_parent(options->parent, error))
		return false;
	links = offline_links(options->parent, format, options->layers, &inner);
	if (inner) {
		g_propagate_error(error, g_steal_pointer(&inner));
		return false;
	}
	if (links->len >= CHAIN_DEPTH_MAX)
		return error_set(error, EMLINK, "%s: its chain already has %d layers", options->parent,
				 CHAIN_DEPTH_MAX);
	relative = path_from(path, options->parent, options->layers, error);
	lineage->parent.format = format;
	return relative && lineage_mark(lineage, options->parent, uuid, path, note, error) &&
	       lineage_describe(lineage, links->pdata[0], g_steal_pointer(&relative), error);
}

static enum image_format format_by_name(const char *path)
{
	return g_str_has_suffix(path, ".raw") || g_str_has_suffix(path, ".img") ? IMAGE_FORMAT_RAW : IMAGE_FORMAT_LEAF;
}

/* Names what is there. A parent of others stays by force too. */
static bool device_may_be_overwritten(const char *path, bool force, GError **error)
{
	g_autofree char *text = NULL;
	struct image_info info = {0};
	bool parent;

	parent = image_probe(path, NULL) == IMAGE_FORMAT_LEAF &&
		 image_read_info(path, IMAGE_FORMAT_LEAF, &info, NULL) && info.children;
	image_info_clear(&info);
	if (parent)
		return error_set(error, EBUSY,
				 "%s: other images stand on it; leafctl info names them, and leafctl forget-child has "
				 "it forget those that are gone",
				 path);
	if (force)
		return true;
	text = cache_tell_content(path);
	return error_set(error, EEXIST, "%s: %s; it is overwritten only with --force", path,
			 text ? text : "is a block device");
}

/* Whoever names it so expects that other programs know it by that. */
static bool name_is_allowed(const char *path, enum image_format format, GError **error)
{
	return format != IMAGE_FORMAT_NONE || !foreign_format_of_name(path) ||
	       error_set(error, EINVAL,
			 "%s: has the name of a format that is not made here; name it .leaf or .raw, or say which "
			 "it is to have",
			 path);
}

bool create_image(const struct whole *whole, const struct offline_create_options *options, char **note, GError **error)
{
	enum image_format format = options->format ? options->format : format_by_name(whole->path);
	uint8_t uuid[IMAGE_UUID_BYTES];
	struct lineage lineage = {0};
	struct image_create_options create = {
		.size_bytes = options->size_bytes,
		.chunk_bytes = options->chunk_bytes,
		.parent = &lineage.parent,
		.uuid = uuid,
		.force = options->force,
	};
	bool good = true;

	*note = NULL;
	if (!name_is_allowed(whole->path, options->format, error) ||
	    (whole->device && !device_may_be_overwritten(whole->path, options->force, error)))
		return false;
	image_make_uuid(uuid);
	if (options->parent)
		good = begin_lineage(whole->path, options, uuid, &lineage, note, error);
	if (good && options->parent && !create.size_bytes)
		create.size_bytes = lineage.parent.size_bytes;
	if (good)
		good = offline_size_is_allowed(whole->path, create.size_bytes, error);
	good = good && image_create(whole->hidden, format, &create, error);
	if (!good)
		lineage_undo(&lineage, uuid);
	lineage_clear(&lineage);
	return good;
}

bool offline_create(const char *path, const struct offline_create_options *options, char **note, GError **error)
{
	struct whole whole;

	return whole_begin(&whole, path, error) && whole_end(&whole, create_image(&whole, options, note, error), error);
}
