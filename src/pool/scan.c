/* Reading a pool's directory.
 *
 * In order: the stacks that the configuration spells out; every image of the top
 * level with its chain; who is whose parent (by device and inode, so that links
 * do not hide it, or by its own mark) and therefore read-only; names.
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
#include "pool/pool.h"
#include "look.h"
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
	GPtrArray *items;    /* struct look_item: what is asked of the store */
	GHashTable *parents; /* "device:inode" of every layer that is not a leaf */
	GHashTable *untold;  /* path of each layer that only its child's word makes one */
	GHashTable *leaves;  /* as parents, of leaves of configured stacks */
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
	chain_cache_unref(known->cache);
	g_hash_table_destroy(known->files);
	g_hash_table_destroy(known->groups);
	g_free(known);
}

static char *trouble_of(const GError *error)
{
	return g_strdelimit(g_strdup(error->message), "\n", ' ');
}

static void set_trouble(struct known *known, const GError *error)
{
	g_free(known->trouble);
	known->trouble = trouble_of(error);
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
	for (guint i = 0; i < links->len; i++) {
		const struct chain_link *link = links->pdata[i];

		if (link->untold)
			g_hash_table_add(scan->untold, g_strdup(link->untold));
	}
}

static void take_known(struct scan *scan, const struct known *known)
{
	if (known->links)
		note_ancestors(scan, known->links);
	if (known->untold)
		g_hash_table_add(scan->untold, g_strdup(known->untold));
	if (known->foreign)
		g_string_append_printf(scan->result.foreign, "%s\n", known->foreign);
}

/* What is wrong further down does not say of which image it is. */
static void take_trouble(struct scan *scan, const char *name, const char *trouble)
{
	g_autofree char *itself = g_strdup_printf("/%s: ", name);

	if (strstr(trouble, itself))
		g_string_append_printf(scan->result.broken, "%s\n", trouble);
	else
		g_string_append_printf(scan->result.broken, "%s: %s\n", name, trouble);
}

/* KNOWN is taken over. */
static void take_file(struct scan *scan, const char *name, struct known *known)
{
	take_known(scan, known);
	if (known->trouble)
		take_trouble(scan, name, known->trouble);
	if (known->shown)
		add_found(scan, name, NULL, known, NULL);
	g_hash_table_replace(scan->files, g_strdup(name), known);
}

static void ask(struct scan *scan, const char *name, const char *layers, const struct known *before)
{
	g_ptr_array_add(scan->items, look_item_new(name, layers, before));
}

/* ---- Answers ------------------------------------------------------------------ */

static char *untold_of(const GPtrArray *links)
{
	const struct chain_link *last = links->len ? links->pdata[links->len - 1] : NULL;

	return last ? g_strdup(last->untold) : NULL;
}

/* An image that was known and cannot be told now is as it was: its disk stays, or stays
 * away, and what is below it stays somebody's parent. Opening it looks again. */
static void keep_links(struct known *known, const struct known *before, const GError *error)
{
	enum error_class class = error_class_of(STORE_OPEN, error_to_errno(error));

	if (!before || !before->links || (class != ERROR_OUTAGE && class != ERROR_TRANSIENT))
		return;
	known->untold = known->links ? untold_of(known->links) : NULL;
	g_clear_pointer(&known->links, g_ptr_array_unref);
	known->links = g_ptr_array_ref(before->links);
	known->shown = before->shown;
}

/* KNOWN is taken over. */
static void take_stack(struct scan *scan, const char *group, const char *layers, struct known *known)
{
	take_known(scan, known);
	if (known->trouble)
		g_string_append_printf(scan->result.broken, "%s\n", known->trouble);
	if (known->shown) {
		g_hash_table_add(scan->leaves, identity(known->links->pdata[0]));
		add_found(scan, NULL, group + strlen(DISK_GROUP), known, layers);
	}
	g_hash_table_replace(scan->groups, g_strdup(group), known);
}

static void take_answer(struct scan *scan, struct look_item *item)
{
	struct known *known = g_steal_pointer(&item->known);

	if (item->error && item->layers)
		g_prefix_error(&item->error, "[%s]: ", item->name);
	if (item->error) {
		set_trouble(known, item->error);
		keep_links(known, item->before, item->error);
	}
	if (item->layers)
		take_stack(scan, item->name, item->layers, known);
	else if (item->absent && scan->changed)
		known_free(known);
	else
		take_file(scan, item->name, known);
}

static bool is_out_of_descriptors(const GError *error)
{
	return error && error_class_of(STORE_OPEN, error_to_errno(error)) == ERROR_DESCRIPTORS;
}

static gint compare_found(gconstpointer a, gconstpointer b)
{
	const struct scan_found *const *first = a, *const *second = b;

	return g_strcmp0((*first)->file, (*second)->file);
}

/* Sorted in the end, so that nothing depends on the order of the directory. */
static bool take_answers(struct scan *scan, GError **error)
{
	for (guint i = 0; i < scan->items->len; i++) {
		struct look_item *item = scan->items->pdata[i];

		if (is_out_of_descriptors(item->error)) {
			g_propagate_error(error, g_steal_pointer(&item->error));
			return false;
		}
		take_answer(scan, item);
	}
	g_ptr_array_sort(scan->result.found, compare_found);
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

/* After a change of our own. */
static void take_unchanged(struct scan *scan)
{
	g_autoptr(GList) names = g_list_sort(g_hash_table_get_keys(scan->known->files), (GCompareFunc)strcmp);

	for (GList *name = names; name; name = name->next)
		if (!g_strv_contains(scan->changed, name->data))
			take_file(scan, name->data, known_copy(g_hash_table_lookup(scan->known->files, name->data)));
}

static bool ask_about_files(struct scan *scan, GError **error)
{
	g_autoptr(GPtrArray) names = g_ptr_array_new_with_free_func(g_free);

	if (!scan->changed && !read_directory(chain_roots_pool(scan->roots), names, error))
		return false;
	if (scan->changed)
		take_unchanged(scan);
	for (const char *const *changed = scan->changed; changed && *changed; changed++)
		g_ptr_array_add(names, g_strdup(*changed));
	g_ptr_array_sort(names, compare_files);
	for (guint i = 0; i < names->len; i++)
		ask(scan, names->pdata[i], NULL, g_hash_table_lookup(scan->known->files, names->pdata[i]));
	return true;
}

/* ---- The configuration -------------------------------------------------------- */

static void scan_stack(struct scan *scan, const char *group, const char *layers)
{
	const struct known *before = g_hash_table_lookup(scan->known->groups, group);

	if (before && scan->changed)
		take_stack(scan, group, layers, known_copy(before));
	else
		ask(scan, group, layers, before);
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
		scan_stack(scan, group, config.layers);
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

/* By what an image was when it could be read. */
static void note_untold(struct scan *scan)
{
	for (guint i = 0; i < scan->result.found->len; i++) {
		const struct scan_found *found = scan->result.found->pdata[i];
		const struct chain_link *link = found->links->pdata[0];

		if (g_hash_table_contains(scan->untold, link->path))
			g_hash_table_add(scan->parents, identity(link));
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

static bool is_parent(const struct scan *scan, const struct scan_found *found)
{
	return ((const struct chain_link *)found->links->pdata[0])->info.children || is_in(scan->parents, found);
}

/* An ephemeral disk writes no image, so its image may have children, and be
 * outside the pool. */
static void set_rights(struct scan *scan)
{
	for (guint i = 0; i < scan->result.found->len; i++) {
		struct scan_found *found = scan->result.found->pdata[i];

		found->mode = mode_of(scan, found);
		found->parent = is_parent(scan, found);
		found->writable = !scan->options->read_only &&
				  (found->mode == DISK_MODE_EPHEMERAL || (!found->parent && !is_outside(found)));
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
	scan->result.foreign = g_string_new(NULL);
	scan->result.notes = g_string_new(NULL);
	scan->result.found = g_ptr_array_new_with_free_func(found_free);
	scan->options = options;
	scan->roots = roots;
	scan->known = known;
	scan->changed = changed;
	scan->files = known_table_new();
	scan->groups = known_table_new();
	scan->items = g_ptr_array_new_with_free_func(look_item_free);
	scan->parents = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
	scan->untold = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
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
	g_string_free(result->foreign, TRUE);
	g_string_free(result->notes, TRUE);
	g_ptr_array_unref(result->found);
	g_hash_table_unref(scan->files);
	g_hash_table_destroy(scan->groups);
	g_ptr_array_unref(scan->items);
	g_hash_table_destroy(scan->parents);
	g_hash_table_destroy(scan->untold);
	g_hash_table_destroy(scan->leaves);
	g_hash_table_destroy(scan->modes);
	g_free(scan);
}

struct scan_result *scan_look(const struct scan_options *options, const struct chain_roots *roots,
			      struct scan_known *known, const char *const *changed, GError **error)
{
	struct scan *scan = scan_new(options, roots, known, changed);
	bool good = scan_config(scan, error) && ask_about_files(scan, error);

	if (good)
		look_at(scan->items, roots, known->cache);
	if (!good || !take_answers(scan, error)) {
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

/* ---- What could not be told ---------------------------------------------------- */

static bool has_trouble(GHashTable *table, GPtrArray *items)
{
	GHashTableIter iter;
	gpointer name, value;
	bool found = false;

	g_hash_table_iter_init(&iter, table);
	while (g_hash_table_iter_next(&iter, &name, &value)) {
		const struct known *known = value;

		if (!known->trouble)
			continue;
		found = true;
		if (items)
			g_ptr_array_add(items, look_item_new(name, NULL, known));
	}
	return found;
}

static bool differs(const struct look_item *item)
{
	g_autofree char *trouble = item->error ? trouble_of(item->error) : NULL;

	return g_strcmp0(trouble, item->before->trouble) != 0;
}

/* A stack is told by its configuration: the whole look knows it. */
bool scan_may_differ(const struct scan_known *known, const struct chain_roots *roots)
{
	g_autoptr(GPtrArray) items = g_ptr_array_new_with_free_func(look_item_free);
	bool may = has_trouble(known->groups, NULL);

	if (may || !has_trouble(known->files, items))
		return may;
	look_at(items, roots, known->cache);
	for (guint i = 0; i < items->len && !may; i++)
		may = differs(items->pdata[i]);
	return may;
}

void scan_settle(struct scan_result *result, struct names *names)
{
	struct scan *scan = container_of(result, struct scan, result);

	note_untold(scan);
	drop_configured_leaves(scan);
	names_give(names, result->found, scan->files, result->broken, result->notes);
	set_rights(scan);
	apply_glob(scan);
}
