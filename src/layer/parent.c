/* A child and its parent: what each records of the other.
 *
 * The child has its parent's UUID and generation, or the time when a raw one was written
 * last; the parent has a mark (image/children.h). */
#include "layer/parent.h"

#include <errno.h>
#include <string.h>
#include <xxhash.h>

#include "core/error.h"
#include "core/log.h"
#include "image/children.h"

void parent_describe(const struct image_info *info, char *path, struct image_parent *parent)
{
	*parent = (struct image_parent){
		.format = info->format,
		.path = path,
		.size_bytes = info->size_bytes,
		.generation = info->generation,
		.stamp = info->stamp,
	};
	memcpy(parent->uuid, info->uuid, sizeof(parent->uuid));
}

/* NULL: nothing differs. g_free. */
static char *find_difference(const struct image_parent *expected, const struct image_info *info)
{
	if (expected->size_bytes != info->size_bytes)
		return g_strdup_printf("has changed: it was %" G_GUINT64_FORMAT " bytes, now it is %" G_GUINT64_FORMAT,
				       expected->size_bytes, info->size_bytes);
	if (memcmp(expected->uuid, info->uuid, IMAGE_UUID_BYTES) != 0)
		return g_strdup("is another image than it was made from (the UUIDs differ)");
	if (expected->generation && expected->generation != info->generation)
		return g_strdup_printf("is not as it was when it was made (generation %" G_GUINT64_FORMAT
				       ", now %" G_GUINT64_FORMAT ")",
				       expected->generation, info->generation);
	if (expected->stamp && info->stamp && expected->stamp != info->stamp)
		return g_strdup("was written, or replaced, after it was made (its time of modification differs)");
	return NULL;
}

bool parent_is_as_expected(const struct image_parent *expected, const struct image_info *now)
{
	g_autofree char *difference = find_difference(expected, now);

	return !difference;
}

bool parent_is_the_same(const struct chain_link *child, const struct chain_link *parent, GError **error)
{
	g_autofree char *difference = find_difference(&child->info.parent, &parent->info);
	g_autofree char *word = difference ? g_shell_quote(child->path) : NULL;

	return !difference ||
	       error_set(error, ESTALE,
			 "%s: its parent %s %s; where its content is right all the same: leafctl rebase --accept %s",
			 child->path, parent->path, difference, word);
}

/* Not by the file's ctime, nor a leaf's mtime: a mark moves both. */
uint64_t parent_stamp_of(const GPtrArray *links, guint first)
{
	uint64_t stamp = 0;

	for (guint i = first; i < links->len; i++) {
		const struct chain_link *link = links->pdata[i];
		uint64_t facts[7] = {
			stamp,
			link->device,
			link->inode,
			link->info.size_bytes,
			link->info.generation,
			link->info.stamp,
		};

		memcpy(&facts[6], link->info.uuid, sizeof(facts[6]));
		stamp = XXH64(facts, sizeof(facts), 0);
	}
	return stamp;
}

static bool has_same_content(const struct image_info *then, const struct image_info *now)
{
	return then->size_bytes == now->size_bytes && then->generation == now->generation &&
	       then->stamp == now->stamp && memcmp(then->uuid, now->uuid, IMAGE_UUID_BYTES) == 0;
}

bool parent_is_unchanged(const struct chain_link *then, const struct chain_link *now)
{
	return has_same_content(&then->info, &now->info);
}

static bool has_same_parent(const struct image_parent *then, const struct image_parent *now)
{
	return then->format == now->format && g_strcmp0(then->path, now->path) == 0 &&
	       then->size_bytes == now->size_bytes && then->generation == now->generation &&
	       then->stamp == now->stamp && memcmp(then->uuid, now->uuid, IMAGE_UUID_BYTES) == 0;
}

bool parent_is_only_marked(const struct chain_link *then, const struct image_info *now)
{
	return (now->generation || now->stamp) && has_same_content(&then->info, now) &&
	       has_same_parent(&then->info.parent, &now->parent);
}

static void mark(const struct chain_link *parent, const struct chain_link *child)
{
	g_autoptr(GError) error = NULL;
	struct image_children *children = image_children_open(parent->real, parent->format, &error);

	if (children &&
	    (image_children_mark(children) || image_children_add(children, child->info.uuid, child->real, &error)))
		log_debug(LOG_IMAGE, "%s: is marked as a parent", parent->path);
	else
		log_debug(LOG_IMAGE, "%s", error->message);
	image_children_close(children);
}

void parent_mark_chain(const GPtrArray *links, bool (*told)(void *opaque, guint index), void *opaque)
{
	for (guint i = 1; i < links->len; i++) {
		const struct chain_link *parent = links->pdata[i], *child = links->pdata[i - 1];
		bool named = child->info.parent.format != IMAGE_FORMAT_NONE;

		if (named && !parent->info.children && !parent->outside && !parent->block_device &&
		    (!told || !told(opaque, i)))
			mark(parent, child);
	}
}
