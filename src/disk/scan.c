/* Reading a pool's directory.
 *
 * In order: the stacks that the configuration spells out; every image of the top
 * level with its chain; who is whose parent (by device and inode, so that links
 * do not hide it) and therefore read-only; names.
 *
 * What an earlier look knows is taken over where no file of a chain has changed
 * since, and of all files but the changed ones after a change of our own: on a
 * slow store a look costs one call for each file, and a change none.
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

/* A file of the directory, or the stack of a group. */
struct known {
	GPtrArray *links; /* what was found of its chain; NULL: no image */
	bool shown;	  /* all of it */
	char *trouble;	  /* a line for the broken ones, or NULL */
};

struct scan_known {
	struct chain_cache *cache;
	GHashTable *files;  /* name -> struct known */
	GHashTable *groups; /* group -> struct known */
};

struct scan {
	struct scan_result result;
	const struct scan_options *options;
	const struct chain_roots *roots;
	const struct scan_known *known; /* by the looks before */
	const char *const *changed;	/* only these files are looked at; NULL: all */
	GHashTable *files;		/* what is known after this one */
	GHashTable *groups;
	GHashTable *stats;   /* path -> struct stat, of this look */
	GHashTable *parents; /* "device:inode" of every layer that is not a leaf */
	GHashTable *leaves;  /* the same of leaves of configured stacks */
	GHashTable *modes;   /* shown name -> enum disk_mode, of those that name one */
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

/* ---- What is known ------------------------------------------------------------ */

static void known_free(void *data)
{
	struct known *known = data;

	g_clear_pointer(&known->links, g_ptr_array_unref);
	g_free(known->trouble);
	g_free(known);
}

static GHashTable *known_table_new(void)
{
	return g_hash_table_new_full(g_str_hash, g_str_equal, g_free, known_free);
}

struct scan_known *scan_known_new(void)
{
	struct scan_known *known = g_new0(struct scan_known, 1);

	known->cache = chain_cache_new();
	known->files = known_table_new();
	known->groups = known_table_new();
	return known;
}

void scan_known_free(struct scan_known *known)
{
	if (!known)
		return;
	chain_cache_free(known->cache);
	g_hash_table_destroy(known->files);
	g_hash_table_destroy(known->groups);
	g_free(known);
}

static struct known *known_of(const struct known *old)
{
	struct known *known = g_new0(struct known, 1);

	known->links = old->links ? g_ptr_array_ref(old->links) : NULL;
	known->shown = old->shown;
	known->trouble = g_strdup(old->trouble);
	return known;
}

static void set_trouble(struct known *known, const GError *error)
{
	g_free(known->trouble);
	known->trouble = g_strdelimit(g_strdup(error->message), "\n", ' ');
}

static void add_found(struct scan *scan, const char *file, const char *name, const struct known *known,
		      const char *spelled)
{
	struct scan_found *found = g_new0(struct scan_found, 1);

	found->file = g_strdup(file);
	found->name = g_strdup(name);
	found->spelled = g_strdup(spelled);
	found->links = g_ptr_array_ref(known->links);
	g_ptr_array_add(scan->result.found, found);
}

/* Ancestors that were found keep their read-only rule even when the chain is
 * broken further down. */
static void note_ancestors(struct scan *scan, const GPtrArray *links)
{
	for (guint i = 1; i < links->len; i++)
		g_hash_table_add(scan->parents, identity(links->pdata[i]));
}

static void take_known(struct scan *scan, const struct known *known)
{
	if (known->links)
		note_ancestors(scan, known->links);
	if (known->trouble)
		g_string_append_printf(scan->result.broken, "%s\n", known->trouble);
}

/* KNOWN is taken over. */
static void take_file(struct scan *scan, const char *name, struct known *known)
{
	take_known(scan, known);
	if (known->shown)
		add_found(scan, name, NULL, known, NULL);
	g_hash_table_replace(scan->files, g_strdup(name), known);
}

static bool is_looked_at(const struct scan *scan, const char *name)
{
	return !scan->changed || g_strv_contains(scan->changed, name);
}

/* NULL: the store does not tell, or there is nothing. */
static const struct stat *stat_of(struct scan *scan, const char *path)
{
	struct stat *st = g_hash_table_lookup(scan->stats, path);

	if (st)
		return st;
	st = g_new0(struct stat, 1);
	if (chain_file_stat(path, scan->roots, st) < 0)
		*st = (struct stat){0};
	g_hash_table_insert(scan->stats, g_strdup(path), st);
	return st;
}

static bool is_unchanged(struct scan *scan, const struct known *known)
{
	if (!known->shown || known->trouble)
		return false;
	for (guint i = 0; i < known->links->len; i++) {
		const struct chain_link *link = known->links->pdata[i];

		if (!chain_link_is_same(link, stat_of(scan, link->path)))
			return false;
	}
	return true;
}

/* ---- Images ------------------------------------------------------------------- */

static bool is_out_of_descriptors(const GError *error)
{
	return error && error_class_of(STORE_OPEN, error_to_errno(error)) == ERROR_DESCRIPTORS;
}

/* NONE without ERROR: it is no image. */
static enum image_format probe(struct scan *scan, const char *path, const struct chain_file *file, GError **error)
{
	g_autoptr(GError) local = NULL;
	enum image_format format = chain_probe(path, file, scan->known->cache, &local);

	if (format == IMAGE_FORMAT_NONE && !local && g_str_has_suffix(path, ".leaf"))
		error_set(&local, EINVAL, "%s: is named .leaf, but is not a leaf image", path);
	if (local)
		g_propagate_error(error, g_steal_pointer(&local));
	return format;
}

static void look_at_image(struct scan *scan, const char *path, const struct chain_file *file, struct known *known,
			  GError **error)
{
	enum image_format format = probe(scan, path, file, error);

	if (format == IMAGE_FORMAT_NONE)
		return;
	known->links = chain_links_new();
	known->shown = chain_resolve_file(path, file, format, scan->roots, scan->known->cache, known->links, error);
}

/* An image that was known and cannot be told now is as it was: its disk stays, and
 * what is below it stays somebody's parent. Opening it looks again. */
static void keep_links(struct known *known, const struct known *before, const GError *error)
{
	enum error_class class = error_class_of(STORE_OPEN, error_to_errno(error));

	if (!before || !before->shown || (class != ERROR_OUTAGE && class != ERROR_TRANSIENT))
		return;
	g_clear_pointer(&known->links, g_ptr_array_unref);
	known->links = g_ptr_array_ref(before->links);
	known->shown = true;
}

/* A link that leads nowhere, and what is no regular file, is passed over. False:
 * there is nothing of that name, as far as it leads. */
static bool look_at_file(struct scan *scan, const char *name, struct known *known, GError **error)
{
	g_autofree char *path = g_build_filename(chain_roots_pool(scan->roots)->path, name, NULL);
	g_autoptr(GError) local = NULL;
	struct chain_file file;

	if (chain_file_find(&file, "", path, scan->roots, &local)) {
		if (S_ISREG(file.st.st_mode))
			look_at_image(scan, path, &file, known, &local);
		chain_file_clear(&file);
	} else if (error_class_of(STORE_OPEN, error_to_errno(local)) == ERROR_ABSENT) {
		return false;
	}
	if (local)
		g_propagate_error(error, g_steal_pointer(&local));
	return true;
}

static bool scan_file(struct scan *scan, const char *name, GError **error)
{
	const struct known *before = g_hash_table_lookup(scan->known->files, name);
	g_autoptr(GError) local = NULL;
	struct known *known;

	if (before && (!is_looked_at(scan, name) || is_unchanged(scan, before))) {
		take_file(scan, name, known_of(before));
		return true;
	}
	known = g_new0(struct known, 1);
	if (!look_at_file(scan, name, known, &local) && scan->changed) {
		known_free(known);
		return true;
	}
	if (is_out_of_descriptors(local)) {
		known_free(known);
		g_propagate_error(error, g_steal_pointer(&local));
		return false;
	}
	if (local) {
		set_trouble(known, local);
		keep_links(known, before, local);
	}
	take_file(scan, name, known);
	return true;
}

/* ---- The directory ------------------------------------------------------------ */

static gint compare_files(gconstpointer a, gconstpointer b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static bool read_directory(const struct place *pool, GPtrArray *names, GError **error)
{
	int fd = openat(pool->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *directory = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;
	int result;

	if (!directory) {
		error_set_errno(error, errno, "%s: cannot be listed", pool->path);
		if (fd >= 0)
			close(fd);
		return false;
	}
	while ((errno = 0, entry = readdir(directory)))
		if (entry->d_name[0] != '.')
			g_ptr_array_add(names, g_strdup(entry->d_name));
	result = errno;
	closedir(directory);
	return result == 0 || error_set_errno(error, result, "%s: cannot be listed", pool->path);
}

/* Those that are known, and those that have changed. */
static void list_known(const struct scan *scan, GPtrArray *names)
{
	GHashTableIter iter;
	gpointer name;

	g_hash_table_iter_init(&iter, scan->known->files);
	while (g_hash_table_iter_next(&iter, &name, NULL))
		if (!is_looked_at(scan, name))
			g_ptr_array_add(names, g_strdup(name));
	for (const char *const *changed = scan->changed; *changed; changed++)
		g_ptr_array_add(names, g_strdup(*changed));
}

/* Sorted, so that nothing depends on the order of the directory. */
static bool scan_files(struct scan *scan, GError **error)
{
	g_autoptr(GPtrArray) names = g_ptr_array_new_with_free_func(g_free);

	if (scan->changed)
		list_known(scan, names);
	else if (!read_directory(chain_roots_pool(scan->roots), names, error))
		return false;
	g_ptr_array_sort(names, compare_files);
	for (guint i = 0; i < names->len; i++)
		if (!scan_file(scan, names->pdata[i], error))
			return false;
	return true;
}

/* ---- The configuration -------------------------------------------------------- */

/* False: there are no descriptors. */
static bool scan_stack(struct scan *scan, const char *group, const char *layers, GError **error)
{
	const struct known *before = g_hash_table_lookup(scan->known->groups, group);
	g_autoptr(GError) local = NULL;
	struct known *known;

	if (before && (scan->changed || is_unchanged(scan, before))) {
		known = known_of(before);
	} else {
		known = g_new0(struct known, 1);
		known->links = chain_links_new();
		known->shown = chain_resolve_spelled(layers, scan->roots, known->links, &local);
	}
	if (local) {
		g_prefix_error(&local, "[%s]: ", group);
		set_trouble(known, local);
	}
	g_hash_table_replace(scan->groups, g_strdup(group), known);
	if (is_out_of_descriptors(local)) {
		g_propagate_error(error, g_steal_pointer(&local));
		return false;
	}
	take_known(scan, known);
	if (known->shown) {
		g_hash_table_add(scan->leaves, identity(known->links->pdata[0]));
		add_found(scan, NULL, group + strlen(DISK_GROUP), known, layers);
	}
	return true;
}

/* A [disk NAME] group is checked whole even when it spells no stack. */
static bool scan_group(struct scan *scan, const char *group, GError **error)
{
	struct disk_config config = {0};
	enum disk_mode mode;
	const char *name = group + strlen(DISK_GROUP);
	bool good = g_str_has_suffix(name, ".img") && !strchr(name, '/') && strlen(name) <= NAME_MAX
			    ? config_set_group(disk_config_keys, &config, scan->options->config, group, error)
			    : error_set(error, EINVAL,
					"[%s]: names no disk; a disk's name ends in .img and has %d bytes at most",
					group, NAME_MAX);

	if (good && config.mode && disk_mode_from_name(config.mode, &mode))
		g_hash_table_insert(scan->modes, g_strdup(name), GINT_TO_POINTER(mode));
	if (good && config.layers)
		good = scan_stack(scan, group, config.layers, error);
	config_clear(disk_config_keys, &config);
	return good;
}

static bool scan_config(struct scan *scan, GError **error)
{
	g_auto(GStrv) groups = scan->options->config ? g_key_file_get_groups(scan->options->config, NULL) : NULL;

	for (char **group = groups; group && *group; group++)
		if (g_str_has_prefix(*group, DISK_GROUP) && !scan_group(scan, *group, error))
			return false;
	return true;
}

/* ---- Rights and names --------------------------------------------------------- */

static bool is_in(GHashTable *set, const struct scan_found *found)
{
	g_autofree char *key = identity(found->links->pdata[0]);

	return g_hash_table_contains(set, key);
}

/* An image that is the leaf of a configured stack is no disk of its own. */
static void drop_configured_leaves(struct scan *scan)
{
	for (guint i = scan->result.found->len; i-- > 0;) {
		struct scan_found *found = scan->result.found->pdata[i];

		if (!found->spelled && is_in(scan->leaves, found))
			g_ptr_array_remove_index(scan->result.found, i);
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
	for (guint i = 0; i < scan->result.found->len; i++) {
		struct scan_found *found = scan->result.found->pdata[i];

		found->mode = mode_of(scan, found);
		found->writable = !scan->options->read_only && (found->mode == DISK_MODE_EPHEMERAL ||
								(!is_in(scan->parents, found) && !is_outside(found)));
	}
}

static void apply_glob(struct scan *scan)
{
	for (guint i = scan->result.found->len; scan->options->glob && i-- > 0;) {
		struct scan_found *found = scan->result.found->pdata[i];

		if (fnmatch(scan->options->glob, found->name, 0) != 0)
			g_ptr_array_remove_index(scan->result.found, i);
	}
}

/* ---- A look ------------------------------------------------------------------- */

static struct scan *scan_new(const struct scan_options *options, const struct chain_roots *roots,
			     const struct scan_known *known, const char *const *changed)
{
	struct scan *scan = g_new0(struct scan, 1);

	scan->result.broken = g_string_new(NULL);
	scan->result.notes = g_string_new(NULL);
	scan->result.found = g_ptr_array_new_with_free_func(found_free);
	scan->options = options;
	scan->roots = roots;
	scan->known = known;
	scan->changed = changed;
	scan->files = known_table_new();
	scan->groups = known_table_new();
	scan->stats = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
	scan->parents = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
	scan->leaves = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
	scan->modes = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
	return scan;
}

void scan_result_free(struct scan_result *result)
{
	struct scan *scan = container_of(result, struct scan, result);

	if (!result)
		return;
	g_string_free(result->broken, TRUE);
	g_string_free(result->notes, TRUE);
	g_ptr_array_unref(result->found);
	g_hash_table_unref(scan->files);
	g_hash_table_destroy(scan->groups);
	g_hash_table_destroy(scan->stats);
	g_hash_table_destroy(scan->parents);
	g_hash_table_destroy(scan->leaves);
	g_hash_table_destroy(scan->modes);
	g_free(scan);
}

struct scan_result *scan_look(const struct scan_options *options, const struct chain_roots *roots,
			      struct scan_known *known, const char *const *changed, GError **error)
{
	struct scan *scan = scan_new(options, roots, known, changed);

	if (!scan_config(scan, error) || !scan_files(scan, error)) {
		scan_result_free(&scan->result);
		return NULL;
	}
	g_hash_table_unref(known->files);
	known->files = g_hash_table_ref(scan->files);
	g_hash_table_destroy(known->groups);
	known->groups = g_steal_pointer(&scan->groups);
	scan->groups = known_table_new();
	return &scan->result;
}

void scan_settle(struct scan_result *result, struct names *names)
{
	struct scan *scan = container_of(result, struct scan, result);

	drop_configured_leaves(scan);
	names_give(names, result->found, scan->files, result->broken, result->notes);
	set_rights(scan);
	apply_glob(scan);
}
