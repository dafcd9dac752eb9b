/* The mark of a parent (image/children.h) in a leaf's header. */
#include "mark.h"

#include <errno.h>
#include <string.h>

#include "core/error.h"
#include "format.h"
#include "header.h"
#include "image/children.h"
#include "report.h"

/* The bit alone makes a parent. */
char *leaf_mark_of(const struct leaf_header_ondisk *header)
{
	if (!(le64_get(header->features_read_only) & LEAF_FEATURE_CHILDREN))
		return NULL;
	return g_strndup(header->children, sizeof(header->children));
}

bool leaf_mark_allows(const struct leaf_header_ondisk *header, unsigned flags, struct leaf_report *report)
{
	g_autofree char *mark = leaf_mark_of(header);

	return !mark || !(flags & IMAGE_WRITABLE) || flags & (IMAGE_LOCK_ONLY | IMAGE_SEALED) ||
	       image_children_refuse(report->path, mark, report->error);
}

bool leaf_read_mark(struct image_file *file, char **mark, GError **error)
{
	struct leaf_report report = {.path = file->path, .error = error};
	struct leaf_header_ondisk header;

	*mark = NULL;
	if (!leaf_header_read(file, &header, &report))
		return false;
	*mark = leaf_mark_of(&header);
	return true;
}

static void set_mark(struct leaf_header_ondisk *header, const char *mark)
{
	uint64_t others = le64_get(header->features_read_only) & ~LEAF_FEATURE_CHILDREN;

	header->features_read_only = le64_of(others | (mark ? LEAF_FEATURE_CHILDREN : 0));
	memset(header->children, 0, sizeof(header->children));
	if (mark)
		g_strlcpy(header->children, mark, sizeof(header->children));
}

bool leaf_write_mark(struct image_file *file, const char *mark, GError **error)
{
	struct leaf_report report = {.path = file->path, .error = error};
	struct leaf_header_ondisk header;
	bool read_only;
	int result = leaf_header_level(file);

	if (result == 0 &&
	    (!leaf_header_read(file, &header, &report) || !leaf_header_usable(&header, file->path, &read_only, error)))
		return false;
	if (result == 0 && read_only)
		result = -EROFS;
	if (result == 0) {
		set_mark(&header, mark);
		result = leaf_header_write(file, &header);
	}
	return result == 0 || error_set_errno(error, -result, "%s: its children cannot be noted", file->path);
}
