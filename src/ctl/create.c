/* leafctl create and clone: new images. */
#include <inttypes.h>

#include "report.h"
#include "verbs.h"
#include "mounted.h"

static bool check_chunk(const struct ctl_arguments *arguments, int *status)
{
	if (arguments->chunk_bytes <= UINT32_MAX)
		return true;
	*status = ctl_usage_error(arguments->verb, "option --chunk: a chunk is at most 16 MiB");
	return false;
}

/* Everything but the size, which the verbs take from different places. */
static struct offline_create_options options_of(const struct ctl_arguments *arguments, const char *parent)
{
	return (struct offline_create_options){
		.format = arguments->output_format,
		.chunk_bytes = (uint32_t)arguments->chunk_bytes,
		.parent = parent,
		.parent_format = arguments->parent_format,
		.layers = arguments->layers,
		.force = arguments->force,
	};
}

/* Of an image that can be looked at. */
static bool has_no_children(const char *path, const struct offline_create_options *options)
{
	g_autoptr(GPtrArray) layers = offline_info(path, options->parent_format, options->layers, NULL);

	return layers && layers->len > 0 && !((struct offline_layer *)layers->pdata[0])->children;
}

/* Who uses the parent as a disk finds it read-only: that is said where it begins. */
static bool create_image(const char *path, const struct offline_create_options *options, GError **error)
{
	g_autofree char *note = NULL;
	bool first = options->parent && has_no_children(options->parent, options);
	bool good = mounted_allow_new(path, error) && offline_create(path, options, &note, error);

	if (good && note)
		ctl_fail("warning: %s", note);
	else if (good && first)
		ctl_fail("note: %s is read-only from now on, as %s stands on it", options->parent, path);
	return good;
}

static bool parse_create_size(const struct ctl_arguments *arguments, uint64_t *bytes, int *status)
{
	const char *text = arguments->names[1], *fault;

	*bytes = 0;
	fault = text ? ctl_size_fault(text, bytes) : NULL;
	if (fault)
		*status = ctl_usage_error(arguments->verb, "\"%s\" %s (like 10G)", text, fault);
	else if (!text && !arguments->parent)
		*status = ctl_usage_error(arguments->verb, "an image without a parent needs a SIZE");
	else if (arguments->parent_format != IMAGE_FORMAT_NONE && !arguments->parent)
		*status = ctl_usage_error(arguments->verb, "option --parent-format needs --parent");
	else
		return true;
	return false;
}

#define SECTOR_BYTES 512

static void note_sectors(const char *path, uint64_t size_bytes)
{
	if (size_bytes % SECTOR_BYTES)
		ctl_fail("note: a guest or a loop device sees whole sectors of %d bytes, and so not the last %" PRIu64
			 " bytes of %s",
			 SECTOR_BYTES, size_bytes % SECTOR_BYTES, path);
}

int ctl_create(const struct ctl_arguments *arguments)
{
	g_autoptr(GError) error = NULL;
	g_autofree char *parent = NULL;
	struct offline_create_options options;
	uint64_t size_bytes;
	int status;

	if (!parse_create_size(arguments, &size_bytes, &status) || !check_chunk(arguments, &status))
		return status;
	if (arguments->parent) {
		parent = mounted_image_path(arguments->parent, arguments->layers, &error);
		if (!parent)
			return ctl_fail_error(NULL, error);
	}
	options = options_of(arguments, parent);
	options.size_bytes = size_bytes;
	if (!create_image(arguments->names[0], &options, &error))
		return ctl_fail_error(NULL, error);
	note_sectors(arguments->names[0], size_bytes);
	return CTL_DONE;
}

/* MADE of the names behind the parent exist now. */
static int fail_clones(const struct ctl_arguments *arguments, int made, const GError *error)
{
	g_autoptr(GString) list = g_string_new(NULL);

	ctl_fail_error(NULL, error);
	for (int i = 0; i < made; i++)
		g_string_append_printf(list, "%s%s", i ? ", " : "", arguments->names[1 + i]);
	if (made > 0)
		ctl_fail("%d of %d images were made: %s", made, arguments->name_count - 1, list->str);
	return CTL_FAILED;
}

int ctl_clone(const struct ctl_arguments *arguments)
{
	g_autoptr(GError) error = NULL;
	g_autofree char *parent = NULL;
	struct offline_create_options options;
	int status;

	if (!check_chunk(arguments, &status))
		return status;
	parent = mounted_image_path(arguments->names[0], arguments->layers, &error);
	if (!parent)
		return ctl_fail_error(NULL, error);
	options = options_of(arguments, parent);
	for (int i = 1; i < arguments->name_count; i++)
		if (!create_image(arguments->names[i], &options, &error))
			return fail_clones(arguments, i - 1, error);
	return CTL_DONE;
}
