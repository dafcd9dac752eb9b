/* leafctl map: which layer holds what.
 *
 * A map has as many lines as the disk has fragments, so each is printed as it
 * comes, in JSON too. */
#include <inttypes.h>
#include <stdio.h>

#include "core/config.h"
#include "picture.h"
#include "report.h"
#include "verbs.h"
#include "mounted.h"

struct printer {
	uint64_t count;
	bool json;
	struct picture *picture; /* NULL: extents are printed */
};

static const char *state_name(const struct disk_extent *extent)
{
	if (extent->layer < 0)
		return "none";
	return extent->zero ? "zero" : "data";
}

static void print_line(const struct disk_extent *extent, const char *layer_path)
{
	bool present = extent->layer >= 0;
	g_autofree char *layer = present ? g_strdup_printf("%d", extent->layer) : g_strdup("-");
	g_autofree char *path = ctl_printable(present && layer_path ? layer_path : "-");
	g_autofree char *size = config_format_size(extent->length);

	printf("0x%-16" PRIx64 "0x%-16" PRIx64 "%-11s%-7s%-7s%s\n", extent->offset, extent->length, size, layer,
	       state_name(extent), path);
}

static void add_bool(JsonBuilder *builder, const char *name, bool value)
{
	json_builder_set_member_name(builder, name);
	json_builder_add_boolean_value(builder, value);
}

static void print_object(const struct disk_extent *extent, const char *layer_path)
{
	g_autoptr(JsonBuilder) builder = json_builder_new();
	bool present = extent->layer >= 0;

	json_builder_begin_object(builder);
	ctl_json_add_size(builder, "start", extent->offset);
	ctl_json_add_size(builder, "length", extent->length);
	json_builder_set_member_name(builder, "depth");
	json_builder_add_int_value(builder, present ? extent->layer : -1);
	add_bool(builder, "present", present);
	add_bool(builder, "zero", !present || extent->zero);
	add_bool(builder, "data", present && !extent->zero);
	ctl_json_add_text(builder, "path", present ? layer_path : NULL);
	json_builder_end_object(builder);
	ctl_json_print(builder, false);
}

static void extent_cb(void *opaque, const struct disk_extent *extent, const char *layer_path)
{
	struct printer *printer = opaque;

	if (printer->picture) {
		picture_add(printer->picture, extent, layer_path);
	} else if (printer->json) {
		fputs(printer->count ? ",\n  " : "\n  ", stdout);
		print_object(extent, layer_path);
	} else {
		if (printer->count == 0)
			printf("%-18s%-18s%-11s%-7s%-7s%s\n", "offset", "length", "size", "layer", "state", "path");
		print_line(extent, layer_path);
	}
	printer->count++;
}

/* Of the leaf. */
static bool size_of(const char *path, const struct ctl_arguments *arguments, uint64_t *bytes, GError **error)
{
	g_autoptr(GPtrArray) layers = offline_info(path, arguments->format, arguments->layers, error);

	*bytes = layers ? ((const struct offline_layer *)layers->pdata[0])->size_bytes : 0;
	return layers;
}

static int summarise(const char *path, const struct ctl_arguments *arguments)
{
	g_autoptr(GError) error = NULL;
	struct printer printer = {0};
	uint64_t bytes;
	bool good;

	if (!size_of(path, arguments, &bytes, &error) || error)
		return ctl_fail_error(NULL, error);
	printer.picture = picture_new(bytes);
	good = offline_map(path, arguments->format, arguments->layers, extent_cb, &printer, &error);
	if (good)
		picture_print(printer.picture);
	picture_free(printer.picture);
	return good ? CTL_DONE : ctl_fail_error(NULL, error);
}

int ctl_map(const struct ctl_arguments *arguments)
{
	g_autoptr(GError) error = NULL;
	g_autofree char *path = mounted_image_path(arguments->names[0], arguments->layers, &error);
	struct printer printer = {.json = arguments->json};

	if (!path)
		return ctl_fail_error(NULL, error);
	ctl_warn_owner(path, arguments->layers);
	if (arguments->summary)
		return summarise(path, arguments);
	if (arguments->json)
		putchar('[');
	/* After an error the array stays open: no reader takes half a map for a whole one. */
	if (!offline_map(path, arguments->format, arguments->layers, extent_cb, &printer, &error))
		return ctl_fail_error(NULL, error);
	if (arguments->json)
		puts("\n]");
	return CTL_DONE;
}
