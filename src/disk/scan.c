/* Reading a pool's directory.
 *
 * In order: every image of the top level with its chain; the stacks that the
 * configuration spells out; who is whose parent (by device and inode, so that
 * links do not hide it) and therefore read-only; names, where two images with
 * one stem both keep their whole file name. */
#include "scan.h"

#include <dirent.h>
#include <errno.h>
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "core/config.h"
#include "core/error.h"
#include "disk/pool.h"

struct disk_config {
	char *layers;
	char *mode;
};

const struct config_key disk_config_keys[] = {
	{"layers", CONFIG_STRING, offsetof(struct disk_config, layers), 0, 0, NULL,
	 "the disk's stack, base first: FILE[@OFFSET]; FILE; ..."},
	{"mode", CONFIG_STRING, offsetof(struct disk_config, mode), 0, 0, disk_mode_names,
	 "where this disk's writes go (default: the mount's mode)"},
	{NULL, 0, 0, 0, 0, NULL, NULL},
};

#define DISK_GROUP "disk "

struct scan {
	const struct scan_options *options;
	const struct chain_roots *roots;
	struct chain_cache *cache;
	GString *broken;
	GString *notes;
	GPtrArray *found;    /* struct scan_found */
	GHashTable *parents; /* "device:inode" of every layer that is not a leaf */
	GHashTable *leaves;  /* the same of leaves of configured stacks */
	GHashTable *modes;   /* shown name -> enum disk_mode, of those that name one */
};

static void found_free(void *data)
{
	struct scan_found *found = data;

	g_free(found->name);
	g_free(found->spelled);
	g_ptr_array_unref(found->links);
	g_free(found);
}

static char *identity(const struct chain_link *link)
{
	return g_strdup_printf("%" G_GUINT64_FORMAT ":%" G_GUINT64_FORMAT, (uint64_t)link->device,
			       (uint64_t)link->inode);
}

static void add_found(struct scan *scan, const char *name, const char *spelled, GPtrArray *links)
{
	struct scan_found *found = g_new0(struct scan_found, 1);

	found->name = g_strdup(name);
	found->spelled = g_strdup(spelled);
	found->links = links;
	for (guint i = 1; i < links->len; i++)
		g_hash_table_add(scan->parents, identity(links->pdata[i]));
	g_ptr_array_add(scan->found, found);
}

static void add_broken(struct scan *scan, const GError *error)
{
	g_autofree char *line = g_strdup(error->message);

	g_strdelimit(line, "\n", ' ');
	g_string_append_printf(scan->broken, "%s\n", line);
}

/* Ancestors that were found keep their read-only rule even when the chain is
 * broken further down. */
static void note_ancestors(struct scan *scan, const GPtrArray *links)
{
	for (guint i = 1; i < links->len; i++)
		g_hash_table_add(scan->parents, identity(links->pdata[i]));
}

/* A symbolic link may name an image elsewhere, within the same bounds as a
 * parent. */
static bool stays_inside(const struct scan *scan, const char *path, GError **error)
{
	char *resolved = realpath(path, NULL);
	bool inside = resolved && chain_is_inside(resolved, scan->roots);

	if (!inside)
		error_set(error, EPERM, "%s: leads to %s, outside the pool; allow its directory with -o layers=DIR",
			  path, resolved ? resolved : "nothing");
	free(resolved);
	return inside;
}

static void scan_file(struct scan *scan, const char *file)
{
	g_autofree char *path = g_build_filename(scan->roots->directories[0], file, NULL);
	g_autoptr(GPtrArray) links = chain_links_new();
	g_autoptr(GError) error = NULL;
	enum image_format format = IMAGE_FORMAT_NONE;
	struct stat st;

	if (file[0] == '.' || stat(path, &st) < 0 || !S_ISREG(st.st_mode))
		return;
	if (stays_inside(scan, path, &error))
		format = image_probe(path, &error);
	if (format == IMAGE_FORMAT_NONE && !error && g_str_has_suffix(file, ".leaf"))
		error_set(&error, EINVAL, "%s: is named .leaf, but is not a leaf image", path);
	if (format != IMAGE_FORMAT_NONE && !chain_resolve(path, format, scan->roots, scan->cache, links, &error))
		note_ancestors(scan, links);
	if (error)
		add_broken(scan, error);
	else if (format != IMAGE_FORMAT_NONE)
		add_found(scan, file, NULL, g_steal_pointer(&links));
}

static bool scan_files(struct scan *scan, GError **error)
{
	const char *path = scan->roots->directories[0];
	DIR *directory = opendir(path);
	struct dirent *entry;

	if (!directory)
		return error_set_errno(error, errno, "%s: cannot be listed", path);
	while ((entry = readdir(directory)))
		scan_file(scan, entry->d_name);
	closedir(directory);
	return true;
}

/* A [disk NAME] group is checked whole even when it spells no stack. */
static bool scan_group(struct scan *scan, const char *group, GError **error)
{
	struct disk_config config = {0};
	g_autoptr(GPtrArray) links = chain_links_new();
	enum disk_mode mode;
	const char *name = group + strlen(DISK_GROUP);
	bool good = g_str_has_suffix(name, ".img") && !strchr(name, '/')
			    ? config_set_group(disk_config_keys, &config, scan->options->config, group, error)
			    : error_set(error, EINVAL, "[%s]: names no disk; a disk's name ends in .img", group);

	if (good && config.mode && disk_mode_from_name(config.mode, &mode))
		g_hash_table_insert(scan->modes, g_strdup(name), GINT_TO_POINTER(mode));
	if (good && config.layers && chain_resolve_spelled(config.layers, scan->roots, links, error)) {
		g_hash_table_add(scan->leaves, identity(links->pdata[0]));
		add_found(scan, name, config.layers, g_steal_pointer(&links));
	}
	config_clear(disk_config_keys, &config);
	return good;
}

static bool scan_config(struct scan *scan, GError **error)
{
	g_auto(GStrv) groups = scan->options->config ? g_key_file_get_groups(scan->options->config, NULL) : NULL;

	for (char **group = groups; group && *group; group++) {
		g_autoptr(GError) local = NULL;

		if (!g_str_has_prefix(*group, DISK_GROUP))
			continue;
		if (!scan_group(scan, *group, &local)) {
			g_propagate_error(error, g_steal_pointer(&local));
			return false;
		}
		if (local) {
			g_prefix_error(&local, "[%s]: ", *group);
			add_broken(scan, local);
		}
	}
	return true;
}

static bool is_in(GHashTable *set, const struct scan_found *found)
{
	g_autofree char *key = identity(found->links->pdata[0]);

	return g_hash_table_contains(set, key);
}

/* An image that is the leaf of a configured stack is no disk of its own. */
static void drop_configured_leaves(struct scan *scan)
{
	for (guint i = scan->found->len; i-- > 0;) {
		struct scan_found *found = scan->found->pdata[i];

		if (!found->spelled && is_in(scan->leaves, found))
			g_ptr_array_remove_index(scan->found, i);
	}
}

static char *shown_name(const char *file, bool whole)
{
	const char *dot = strrchr(file, '.');

	if (whole || !dot || dot == file)
		return g_strconcat(file, ".img", NULL);
	return g_strdup_printf("%.*s.img", (int)(dot - file), file);
}

static char *short_name(const struct scan_found *found)
{
	return found->spelled ? g_strdup(found->name) : shown_name(found->name, false);
}

static GHashTable *count_names(const struct scan *scan)
{
	GHashTable *names = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);

	for (guint i = 0; i < scan->found->len; i++) {
		char *name = short_name(scan->found->pdata[i]);
		guint n = GPOINTER_TO_UINT(g_hash_table_lookup(names, name));

		g_hash_table_replace(names, name, GUINT_TO_POINTER(n + 1));
	}
	return names;
}

/* File names become shown names. */
static void name_disks(struct scan *scan)
{
	g_autoptr(GHashTable) names = count_names(scan);

	for (guint i = 0; i < scan->found->len; i++) {
		struct scan_found *found = scan->found->pdata[i];
		char *name = short_name(found);

		if (!found->spelled && GPOINTER_TO_UINT(g_hash_table_lookup(names, name)) > 1) {
			g_string_append_printf(scan->notes, "%s: another image has the name %s too, shown as %s.img\n",
					       found->name, name, found->name);
			g_free(name);
			name = shown_name(found->name, true);
		}
		g_free(found->name);
		found->name = name;
	}
}

static enum disk_mode mode_of(const struct scan *scan, const struct scan_found *found)
{
	gpointer mode;

	if (g_hash_table_lookup_extended(scan->modes, found->name, NULL, &mode))
		return GPOINTER_TO_INT(mode);
	return scan->options->mode;
}

/* An ephemeral disk writes no image, so its image may have children. */
static void set_rights(struct scan *scan)
{
	for (guint i = 0; i < scan->found->len; i++) {
		struct scan_found *found = scan->found->pdata[i];

		found->mode = mode_of(scan, found);
		found->writable = !scan->options->read_only &&
				  (found->mode == DISK_MODE_EPHEMERAL || !is_in(scan->parents, found));
	}
}

static void apply_glob(struct scan *scan)
{
	for (guint i = scan->found->len; scan->options->glob && i-- > 0;) {
		struct scan_found *found = scan->found->pdata[i];

		if (fnmatch(scan->options->glob, found->name, 0) != 0)
			g_ptr_array_remove_index(scan->found, i);
	}
}

GPtrArray *scan_directory(const struct scan_options *options, const struct chain_roots *roots,
			  struct chain_cache *cache, GString *broken, GString *notes, GError **error)
{
	struct scan scan = {options, roots, cache, broken, notes, NULL, NULL, NULL, NULL};
	bool good;

	scan.found = g_ptr_array_new_with_free_func(found_free);
	scan.parents = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
	scan.leaves = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
	scan.modes = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
	good = scan_config(&scan, error) && scan_files(&scan, error);
	if (good) {
		drop_configured_leaves(&scan);
		name_disks(&scan);
		set_rights(&scan);
		apply_glob(&scan);
	} else {
		g_clear_pointer(&scan.found, g_ptr_array_unref);
	}
	g_hash_table_destroy(scan.parents);
	g_hash_table_destroy(scan.leaves);
	g_hash_table_destroy(scan.modes);
	return scan.found;
}
