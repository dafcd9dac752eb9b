/* The snapshot that a disk goes back to. */
#include "target.h"

#include <errno.h>
#include <string.h>

#include "children.h"
#include "core/error.h"
#include "disk/keeper.h"
#include "layer/parent.h"
#include "pool/snapshot.h"
#include "removal.h"
#include "tags.h"

/* ---- Which it is ---------------------------------------------------------------------- */

static const struct chain_link *link_of(const struct target *target)
{
	return target->links->pdata[0];
}

static void take_parent(struct target *target, const struct image_parent *parent)
{
	target->parent = *parent;
	target->parent.path = g_strdup(parent->path);
}

static bool has_tag(const struct chain_link *link, const char *stem, const char *tag)
{
	const char *file = pool_file_name(link->path);
	g_autofree char *own = pool_tag_of(file, stem), *whole = pool_stem_of_file(file);

	return chain_is_sealed_name(link->path) && (!tag || strcmp(own, tag) == 0 || strcmp(whole, tag) == 0);
}

/* What stands on it now says what it is held to: of one that is not complete its header does not. */
static bool find_below(const struct disk *disk, const char *stem, const char *tag, struct target *target)
{
	for (guint i = 1; i < disk->links->len; i++) {
		const struct chain_link *child = disk->links->pdata[i - 1];

		if (!has_tag(disk->links->pdata[i], stem, tag))
			continue;
		chain_links_add(target->links, disk->links, i);
		take_parent(target, i == 1 ? &disk->leaf->image->parent : &child->info.parent);
		return true;
	}
	return false;
}

/* A raw one that is not complete will be written yet. */
static void describe(struct disk_pool *pool, struct target *target)
{
	const struct chain_link *link = link_of(target);
	struct disk *keeper = keeper_find(pool->pool_cache, link);
	g_autofree char *file = g_path_get_basename(link->path);

	parent_describe(&link->info, g_build_filename(SEALED_DIRECTORY, file, NULL), &target->parent);
	if (keeper)
		target->parent.stamp = 0;
	disk_unref(keeper);
}

static bool is_among(const struct chain_link *link, const GPtrArray *links)
{
	for (guint i = 0; i < links->len; i++) {
		const struct chain_link *other = links->pdata[i];

		if (other->inode == link->inode && other->device == link->device)
			return true;
	}
	return false;
}

/* One of another name is of this disk where both stand on something: it was called otherwise then. */
static bool is_related(const struct disk *disk, const char *tag, const struct target *target, GError **error)
{
	for (guint i = 0; i < target->links->len; i++)
		if (is_among(target->links->pdata[i], disk->links))
			return true;
	return error_set(error, EINVAL, "%s: has nothing in common with %s, which is of another disk", disk->name, tag);
}

static bool find_beside(struct disk_pool *pool, const struct disk *disk, const char *stem, const char *tag,
			struct target *target, GError **error)
{
	g_autofree char *file = pool_sealed_file(pool, stem, tag, error), *path = NULL;
	enum image_format format;

	if (!file)
		return false;
	if (removal_awaits(pool, file))
		return error_set(error, EBUSY, "%s.img: snapshot %s is being deleted", stem, tag);
	path = g_build_filename(disk_pool_path(pool), SEALED_DIRECTORY, file, NULL);
	format = image_probe(path, error);
	if (format == IMAGE_FORMAT_NONE || !chain_resolve(path, format, pool->roots, NULL, target->links, error))
		return false;
	if (strchr(tag, '@') && !is_related(disk, tag, target, error))
		return false;
	describe(pool, target);
	return true;
}

bool target_find(struct disk_pool *pool, struct disk *disk, const char *tag, struct target *target, GError **error)
{
	g_autofree char *stem = pool_stem_of_file(pool_file_name(disk->leaf->link->path));

	*target = (struct target){.links = chain_links_new()};
	if (find_below(disk, stem, tag, target))
		return true;
	if (!tag)
		return error_set(error, ENOENT, "%s: stands on no snapshot", disk->name);
	return find_beside(pool, disk, stem, tag, target, error);
}

/* ---- A leaf on it --------------------------------------------------------------------- */

bool target_open(struct target *target, struct disk *disk, const uint8_t uuid[IMAGE_UUID_BYTES], const char *path,
		 GError **error)
{
	target->stack = disk_open_stack(disk, target->links, error);
	return target->stack && pool_add_child(stack_layer(target->stack, 0), link_of(target), uuid, path, error);
}

uint64_t target_size_bytes(const struct target *target)
{
	return target->parent.size_bytes;
}

void target_clear(struct target *target)
{
	if (target->links)
		g_ptr_array_unref(target->links);
	stack_put(target->stack);
	image_parent_clear(&target->parent);
}
