/* A parent and a child that is being made, or accepts it. */
#include "lineage.h"

#include <stdlib.h>

#include "core/error.h"
#include "core/verdict.h"
#include "layer/parent.h"

/* A golden image on a store that is not written has children all the same. */
static bool may_be_unmarked(const GError *error)
{
	enum error_class class = error_class_of(STORE_OPEN, error_to_errno(error));

	return class == ERROR_READ_ONLY || class == ERROR_UNSUPPORTED;
}

char *lineage_absolute(const char *path)
{
	g_autofree char *directory = g_path_get_dirname(path), *name = g_path_get_basename(path);
	char *real = realpath(directory, NULL);
	char *joined = g_build_filename(real ? real : directory, name, NULL);

	free(real);
	return joined;
}

bool lineage_mark(struct lineage *lineage, const char *parent, const uint8_t *uuid, const char *child, char **note,
		  GError **error)
{
	g_autofree char *path = lineage_absolute(child);
	g_autoptr(GError) inner = NULL;

	lineage->children = image_children_open(parent, lineage->parent.format, &inner);
	lineage->marked = lineage->children && image_children_add(lineage->children, uuid, path, &inner);
	if (lineage->marked)
		return true;
	if (!may_be_unmarked(inner)) {
		g_propagate_error(error, g_steal_pointer(&inner));
		return false;
	}
	*note = g_strdup_printf("%s: nothing there tells that it is a parent now (%s): see to it that it is not "
				"written",
				parent, inner->message);
	return true;
}

bool lineage_describe(struct lineage *lineage, const struct chain_link *parent, char *path, GError **error)
{
	struct image_info info;

	image_parent_clear(&lineage->parent);
	if (!chain_link_read_info(parent, &info, NULL, error)) {
		g_free(path);
		return false;
	}
	parent_describe(&info, path, &lineage->parent);
	image_info_clear(&info);
	return true;
}

void lineage_undo(struct lineage *lineage, const uint8_t *uuid)
{
	if (lineage->marked)
		(void)image_children_remove(lineage->children, uuid, NULL);
}

void lineage_clear(struct lineage *lineage)
{
	image_parent_clear(&lineage->parent);
	g_clear_pointer(&lineage->children, image_children_close);
}
