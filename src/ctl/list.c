/* leafctl list: the disks of a pool, mounted or not. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/config.h"
#include "report.h"
#include "verbs.h"
#include "pool/pool.h"
#include "mounted.h"
#include "table.h"
#include "tree.h"

struct row {
	const char *name;
	const char *path;
	struct disk_attributes attributes;
	enum image_format format;
	unsigned layers;
	char *parent; /* the file's name; NULL: none */
	bool read_only;
};

/* A chain that broke since the pool was read counts as far as it opens. */
static bool row_fill(struct row *row, struct disk *disk, const char *layers, GError **error)
{
	g_autoptr(GPtrArray) chain = NULL;
	int result = disk_get_attributes(disk, &row->attributes);

	row->name = disk_name(disk);
	row->path = disk_image_path(disk);
	row->read_only = !disk_is_writable(disk);
	if (result != 0) {
		g_set_error(error, G_FILE_ERROR, G_FILE_ERROR_FAILED, "cannot look at %s: %s", row->path,
			    g_strerror(-result));
		return false;
	}
	chain = offline_info(row->path, IMAGE_FORMAT_NONE, layers, NULL);
	if (chain && chain->len > 0)
		row->format = ((struct offline_layer *)chain->pdata[0])->format;
	row->layers = chain ? chain->len : 0;
	if (row->layers > 0 && ((struct offline_layer *)chain->pdata[0])->parent)
		row->parent = g_path_get_basename(((struct offline_layer *)chain->pdata[0])->parent);
	return true;
}

static const char *const columns[] = {"<name", ">size", ">used", "<access", ">layers", "<format", "<parent", NULL};

static void print_row(struct table *table, const struct row *row)
{
	g_autofree char *size = config_format_size(row->attributes.size_bytes);
	g_autofree char *used = config_format_size(row->attributes.allocated_bytes);
	g_autofree char *layers = g_strdup_printf("%u", row->layers);
	const char *cells[] = {
		row->name,  size, used, row->read_only ? "ro" : "rw", layers, image_format_name(row->format),
		row->parent};

	table_add(table, cells);
}

static void add_row(JsonBuilder *builder, const struct row *row)
{
	json_builder_begin_object(builder);
	ctl_json_add_text(builder, "name", row->name);
	ctl_json_add_text(builder, "path", row->path);
	ctl_json_add_text(builder, "format", image_format_name(row->format));
	ctl_json_add_size(builder, "size_bytes", row->attributes.size_bytes);
	ctl_json_add_size(builder, "allocated_bytes", row->attributes.allocated_bytes);
	json_builder_set_member_name(builder, "read_only");
	json_builder_add_boolean_value(builder, row->read_only);
	ctl_json_add_size(builder, "layers", row->layers);
	ctl_json_add_text(builder, "parent", row->parent);
	json_builder_end_object(builder);
}

/* To the TABLE, or where that is NULL to BUILDER. The disk that cannot be looked at does not hide the others. */
static int print_rows(const GPtrArray *disks, const char *layers, struct table *table, JsonBuilder *builder)
{
	int status = CTL_DONE;

	for (unsigned i = 0; i < disks->len; i++) {
		g_autoptr(GError) error = NULL;
		struct row row = {0};

		if (!row_fill(&row, disks->pdata[i], layers, &error))
			status = ctl_fail_error(NULL, error);
		else if (table)
			print_row(table, &row);
		else
			add_row(builder, &row);
		g_free(row.parent);
	}
	return status;
}

static void add_lines(JsonBuilder *builder, const char *name, const char *text)
{
	g_auto(GStrv) lines = g_strsplit(text, "\n", -1);

	json_builder_set_member_name(builder, name);
	json_builder_begin_array(builder);
	for (char **line = lines; *line; line++) {
		g_autofree char *valid = g_utf8_make_valid(*line, -1);

		if (*valid)
			json_builder_add_string_value(builder, valid);
	}
	json_builder_end_array(builder);
}

static int print_json(const char *path, const GPtrArray *disks, const char *layers, const char *broken,
		      const char *foreign)
{
	g_autoptr(JsonBuilder) builder = json_builder_new();
	int status;

	json_builder_begin_object(builder);
	ctl_json_add_text(builder, "pool", path);
	json_builder_set_member_name(builder, "disks");
	json_builder_begin_array(builder);
	status = print_rows(disks, layers, NULL, builder);
	json_builder_end_array(builder);
	add_lines(builder, "broken", broken);
	add_lines(builder, "foreign", foreign);
	json_builder_end_object(builder);
	ctl_json_print(builder, true);
	return status;
}

static void print_lines(const char *kind, const char *text)
{
	g_auto(GStrv) lines = g_strsplit(text, "\n", -1);

	for (char **line = lines; *line; line++)
		if (**line)
			ctl_fail("%s: %s", kind, *line);
}

/* A mount shows what its own user may read. */
static void print_broken(const char *text)
{
	g_auto(GStrv) lines = g_strsplit(text, "\n", -1);

	for (char **line = lines; *line; line++)
		if (**line)
			ctl_fail("%s: %s",
				 g_str_has_suffix(*line, g_strerror(EACCES)) ? "you may not look at" : "not shown",
				 *line);
}

static void print_left(const char *pool)
{
	g_autoptr(GPtrArray) left = offline_left(pool);

	for (unsigned i = 0; i < left->len; i++)
		ctl_fail("warning: %s/%s: was left by a command that was killed; it goes when that is run again, or is "
			 "removed",
			 pool, (const char *)left->pdata[i]);
}

static void warn_owners(const GPtrArray *disks, const char *layers)
{
	for (unsigned i = 0; i < disks->len; i++)
		ctl_warn_owner(disk_image_path(disks->pdata[i]), layers);
}

/* The mount that has what is newer is asked with leafctl status. */
static int print_pool(struct disk_pool *pool, bool mounted, const struct ctl_arguments *arguments)
{
	g_autoptr(GPtrArray) disks = disk_pool_shown(pool);
	g_autofree char *broken = disk_pool_broken(pool), *foreign = disk_pool_foreign(pool);
	int status;

	if (arguments->json) {
		status = print_json(disk_pool_path(pool), disks, arguments->layers, broken, foreign);
	} else if (arguments->tree) {
		status = print_tree(disk_pool_path(pool), disks, arguments->layers);
	} else {
		g_autoptr(table) table = table_new(columns);

		status = print_rows(disks, arguments->layers, table, NULL);
		table_print(table);
	}
	if (disks->len == 0 && !*broken && !*foreign && !arguments->json)
		fprintf(stderr, "leafctl: %s has no images\n", disk_pool_path(pool));
	print_broken(broken);
	print_lines("warning", foreign);
	if (!mounted)
		warn_owners(disks, arguments->layers);
	print_left(disk_pool_path(pool));
	return status;
}

int ctl_list(const struct ctl_arguments *arguments)
{
	g_autoptr(GError) error = NULL;
	g_autoptr(mounted) mount = mounted_find(arguments->names[0]);
	struct disk_pool_options options = {
		.path = mount ? mount->pool : arguments->names[0],
		.layers = arguments->layers,
		.only_look = true,
		.quiet = true,
	};
	struct disk_pool *pool = disk_pool_open(&options, &error);
	int status;

	if (!pool)
		return ctl_fail_error(NULL, error);
	status = print_pool(pool, mount != NULL, arguments);
	disk_pool_close(pool);
	return status;
}
