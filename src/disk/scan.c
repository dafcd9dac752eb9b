/* Reading a pool's directory.
 *
 * In order: the stacks that the configuration spells out; every image of the top
 * level with its chain; who is whose parent (by device and inode, so that links
 * do not hide it) and therefore read-only; names.
 *
 * An image that cannot be opened is no disk, and the scan goes on. When there are
 * no descriptors left that would be so of every image, and nothing is known: the
 * scan fails, and what was known before stays. */
#include "scan.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/config.h"
#include "core/error.h"
#include "core/verdict.h"
#include "disk/pool.h"
#include "names.h"

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
	GPtrArray *files;    /* names in the directory */
	GPtrArray *found;    /* struct scan_found */
	GHashTable *parents; /* "device:inode" of every layer that is not a leaf */
	GHashTable *leaves;  /* the same of leaves of configured stacks */
	GHashTable *modes;   /* shown name -> enum disk_mode, of those that name one */
	GHashTable *known;   /* file -> its links, GPtrArray: of the last scan, then of this one */
	GHashTable *seen;
};

static void found_free(void *data)
{
	struct scan_found *found = data;

	g_free(found->file);
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

static void add_found(struct scan *scan, const char *file, const char *name, GPtrArray *links, const char *spelled)
{
	struct scan_found *found = g_new0(struct scan_found, 1);

	found->file = g_strdup(file);
	found->name = g_strdup(name);
	found->spelled = g_strdup(spelled);
	found->links = links;
	for (guint i = 1; i < links->len; i++)
		g_hash_table_add(scan->parents, identity(links->pdata[i]));
	g_ptr_array_add(scan->found, found);
	if (file)
		g_hash_table_replace(scan->seen, g_strdup(file), g_ptr_array_ref(links));
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

static bool is_out_of_descriptors(const GError *error)
{
	return error && error_class_of(STORE_OPEN, error_to_errno(error)) == ERROR_DESCRIPTORS;
}

/* NONE without ERROR: it is no image. */
static enum image_format probe(struct scan *scan, const char *path, const struct chain_file *file, GError **error)
{
	g_autoptr(GError) local = NULL;
	enum image_format format = chain_probe(path, file, scan->cache, &local);

	if (format == IMAGE_FORMAT_NONE && !local && g_str_has_suffix(path, ".leaf"))
		error_set(&local, EINVAL, "%s: is named .leaf, but is not a leaf image", path);
	if (local)
		g_propagate_error(error, g_steal_pointer(&local));
	return format;
}

static void scan_image(struct scan *scan, const char *name, const char *path, const struct chain_file *file,
		       GError **error)
{
	g_autoptr(GPtrArray) links = chain_links_new();
	enum image_format format = probe(scan, path, file, error);

	if (format == IMAGE_FORMAT_NONE)
		return;
	if (chain_resolve_file(path, file, format, scan->roots, scan->cache, links, error))
		add_found(scan, name, NULL, g_steal_pointer(&links), NULL);
	else
		note_ancestors(scan, links);
}

/* An image that was known and cannot be told now is as it was: its disk stays, and
 * what is below it stays somebody's parent. Opening it looks again. */
static void keep_known(struct scan *scan, const char *name, const GError *error)
{
	GPtrArray *links = g_hash_table_lookup(scan->known, name);
	enum error_class class = error_class_of(STORE_OPEN, error_to_errno(error));

	if (links && (class == ERROR_OUTAGE || class == ERROR_TRANSIENT) && !g_hash_table_contains(scan->seen, name))
		add_found(scan, name, NULL, g_ptr_array_ref(links), NULL);
}

/* A link that leads nowhere, and what is no regular file, is passed over. */
static bool scan_file(struct scan *scan, const char *name, GError **error)
{
	g_autofree char *path = g_build_filename(chain_roots_pool(scan->roots)->path, name, NULL);
	g_autoptr(GError) local = NULL;
	struct chain_file file;

	if (chain_file_find(&file, "", path, scan->roots, &local)) {
		if (S_ISREG(file.st.st_mode))
			scan_image(scan, name, path, &file, &local);
		chain_file_clear(&file);
	} else if (error_class_of(STORE_OPEN, error_to_errno(local)) == ERROR_ABSENT) {
		g_clear_error(&local);
	}
	if (is_out_of_descriptors(local)) {
		g_propagate_error(error, g_steal_pointer(&local));
		return false;
	}
	if (local) {
		keep_known(scan, name, local);
		add_broken(scan, local);
	}
	return true;
}

static gint compare_files(gconstpointer a, gconstpointer b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Sorted, so that nothing depends on the order of the directory. */
static bool list_files(struct scan *scan, GError **error)
{
	const struct place *pool = chain_roots_pool(scan->roots);
	int fd = openat(pool->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *directory = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;

	if (!directory) {
		error_set_errno(error, errno, "%s: cannot be listed", pool->path);
		if (fd >= 0)
			close(fd);
		return false;
	}
	while ((errno = 0, entry = readdir(directory)))
		if (entry->d_name[0] != '.')
			g_ptr_array_add(scan->files, g_strdup(entry->d_name));
	if (errno)
		error_set_errno(error, errno, "%s: cannot be listed", pool->path);
	closedir(directory);
	g_ptr_array_sort(scan->files, compare_files);
	return !*error;
}

static bool scan_files(struct scan *scan, GError **error)
{
	for (guint i = 0; i < scan->files->len; i++)
		if (!scan_file(scan, scan->files->pdata[i], error))
			return false;
	return true;
}

/* A [disk NAME] group is checked whole even when it spells no stack. */
static bool scan_group(struct scan *scan, const char *group, GError **error)
{
	struct disk_config config = {0};
	g_autoptr(GPtrArray) links = chain_links_new();
	enum disk_mode mode;
	const char *name = group + strlen(DISK_GROUP);
	bool good = g_str_has_suffix(name, ".img") && !strchr(name, '/') && strlen(name) <= NAME_MAX
			    ? config_set_group(disk_config_keys, &config, scan->options->config, group, error)
			    : error_set(error, EINVAL,
					"[%s]: names no disk; a disk's name ends in .img and has %d bytes at most",
					group, NAME_MAX);

	if (good && config.mode && disk_mode_from_name(config.mode, &mode))
		g_hash_table_insert(scan->modes, g_strdup(name), GINT_TO_POINTER(mode));
	if (good && config.layers && chain_resolve_spelled(config.layers, scan->roots, links, error)) {
		g_hash_table_add(scan->leaves, identity(links->pdata[0]));
		add_found(scan, NULL, name, g_steal_pointer(&links), config.layers);
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
		if (!scan_group(scan, *group, &local) || is_out_of_descriptors(local)) {
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

static enum disk_mode mode_of(const struct scan *scan, const struct scan_found *found)
{
	gpointer mode;

	if (g_hash_table_lookup_extended(scan->modes, found->name, NULL, &mode))
		return GPOINTER_TO_INT(mode);
	return scan->options->mode;
}

static bool is_outside(const struct scan_found *found)
{
	return ((const struct chain_link *)found->links->pdata[0])->outside;
}

/* An ephemeral disk writes no image, so its image may have children, and be
 * outside the pool. */
static void set_rights(struct scan *scan)
{
	for (guint i = 0; i < scan->found->len; i++) {
		struct scan_found *found = scan->found->pdata[i];

		found->mode = mode_of(scan, found);
		found->writable = !scan->options->read_only && (found->mode == DISK_MODE_EPHEMERAL ||
								(!is_in(scan->parents, found) && !is_outside(found)));
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

static void scan_clear(struct scan *scan)
{
	g_ptr_array_unref(scan->files);
	g_hash_table_destroy(scan->parents);
	g_hash_table_destroy(scan->leaves);
	g_hash_table_destroy(scan->modes);
}

GHashTable *scan_known_new(void)
{
	return g_hash_table_new_full(g_str_hash, g_str_equal, g_free, (GDestroyNotify)g_ptr_array_unref);
}

GPtrArray *scan_directory(const struct scan_options *options, const struct chain_roots *roots,
			  struct chain_cache *cache, struct names *names, GHashTable **known, GString *broken,
			  GString *notes, GError **error)
{
	struct scan scan = {options, roots, cache, broken, notes, .known = *known, .seen = scan_known_new()};
	g_autoptr(GError) local = NULL;

	scan.files = g_ptr_array_new_with_free_func(g_free);
	scan.found = g_ptr_array_new_with_free_func(found_free);
	scan.parents = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
	scan.leaves = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
	scan.modes = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
	if (scan_config(&scan, &local) && list_files(&scan, &local) && scan_files(&scan, &local)) {
		drop_configured_leaves(&scan);
		names_give(names, scan.found, scan.files, broken, notes);
		set_rights(&scan);
		apply_glob(&scan);
		g_hash_table_unref(*known);
		*known = g_hash_table_ref(scan.seen);
	} else {
		g_clear_pointer(&scan.found, g_ptr_array_unref);
		g_propagate_error(error, g_steal_pointer(&local));
	}
	g_hash_table_unref(scan.seen);
	scan_clear(&scan);
	return scan.found;
}
