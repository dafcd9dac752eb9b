/* leafctl info: the layers of a chain. */
#include <inttypes.h>
#include <stdio.h>

#include "report.h"
#include "verbs.h"
#include "mounted.h"

static char *uuid_text(const struct offline_layer *layer)
{
	return layer->has_uuid ? ctl_uuid_text(layer->uuid) : NULL;
}

static char *claim_text(const struct offline_layer *layer)
{
	return buffer_is_zero(layer->claim, sizeof(layer->claim)) ? NULL : ctl_uuid_text(layer->claim);
}

static void print_size(const char *name, uint64_t bytes)
{
	g_autofree char *size = ctl_size_text(bytes);

	printf("    %-12s%s\n", name, size);
}

static void print_claim(const struct offline_layer *layer)
{
	g_autofree char *claim = claim_text(layer);

	if (claim)
		printf("    %-12s%s\n", "claim:", claim);
	if (layer->progress)
		printf("    %-12s%" PRIu64 "\n", "progress:", layer->progress);
}

static void print_layer(unsigned depth, const struct offline_layer *layer)
{
	g_autofree char *uuid = uuid_text(layer);
	g_autofree char *path = ctl_printable(layer->path);
	g_autofree char *parent = ctl_printable(layer->parent ? layer->parent : "");
	g_autofree char *children = ctl_printable(layer->children ? layer->children : "");

	printf("layer %u: %s\n", depth, path);
	printf("    %-12s%s\n", "format:", image_format_name(layer->format));
	print_size("size:", layer->size_bytes);
	print_size("allocated:", layer->allocated_bytes);
	if (layer->chunk_bytes)
		print_size("chunk:", layer->chunk_bytes);
	if (uuid)
		printf("    %-12s%s\n    %-12s%" PRIu64 "\n", "uuid:", uuid, "generation:", layer->generation);
	print_claim(layer);
	if (layer->parent)
		printf("    %-12s%s\n", "parent:", parent);
	if (layer->children)
		printf("    %-12s%s\n", "children:", children);
}

static void add_layer(JsonBuilder *builder, const struct offline_layer *layer)
{
	g_autofree char *uuid = uuid_text(layer);
	g_autofree char *claim = claim_text(layer);

	json_builder_begin_object(builder);
	ctl_json_add_text(builder, "path", layer->path);
	ctl_json_add_text(builder, "format", image_format_name(layer->format));
	ctl_json_add_size(builder, "size_bytes", layer->size_bytes);
	ctl_json_add_size(builder, "allocated_bytes", layer->allocated_bytes);
	ctl_json_add_size(builder, "chunk_bytes", layer->chunk_bytes);
	ctl_json_add_text(builder, "uuid", uuid);
	ctl_json_add_size(builder, "generation", layer->generation);
	ctl_json_add_text(builder, "claim", claim);
	ctl_json_add_size(builder, "progress", layer->progress);
	ctl_json_add_text(builder, "parent", layer->parent);
	ctl_json_add_text(builder, "children", layer->children);
	json_builder_end_object(builder);
}

static void print_json(const GPtrArray *layers, const GError *error)
{
	g_autoptr(JsonBuilder) builder = json_builder_new();

	json_builder_begin_object(builder);
	json_builder_set_member_name(builder, "layers");
	json_builder_begin_array(builder);
	for (unsigned i = 0; i < layers->len; i++)
		add_layer(builder, layers->pdata[i]);
	json_builder_end_array(builder);
	ctl_json_add_text(builder, "error", error ? error->message : NULL);
	json_builder_end_object(builder);
	ctl_json_print(builder, true);
}

int ctl_info(const struct ctl_arguments *arguments)
{
	g_autoptr(GError) error = NULL;
	g_autoptr(GPtrArray) layers = NULL;
	g_autofree char *path = mounted_image_path(arguments->names[0], arguments->layers, &error);

	if (path) {
		ctl_warn_owner(path, arguments->layers);
		layers = offline_info(path, arguments->format, arguments->layers, &error);
	}
	if (!layers)
		return ctl_fail_error(NULL, error);
	if (arguments->json)
		print_json(layers, error);
	for (unsigned i = 0; i < layers->len && !arguments->json; i++)
		print_layer(i, layers->pdata[i]);
	return error ? ctl_fail_error(NULL, error) : CTL_DONE;
}
