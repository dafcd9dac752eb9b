/* Reading a pool's directory.
 *
 * In order: the stacks that the configuration spells out; every image of the top
 * level with its chain; who is whose parent (by device and inode, so that links
 * do not hide it, or by its own mark) and therefore read-only; names.
 *
 * What an earlier look knows is taken over. How much is asked of the store:
 *
 *     SCAN_ALL    each file, in one call: whether it has changed since
 *     SCAN_NEW    the listing alone, and of files no more than those
 *                     that are new to it, or have another number there;
 *                     that nothing can be taken over of: they are broken, links, or were too fresh;
 *                     that are parents of one of these, or children of one that has gone or changed
 *     GIVEN       of all files but those that are named: nothing
 *
 * So with SCAN_NEW a look costs what is new, not the pool. It does not see what was written
 * into a known image, nor a file that has the name and the number of one that was removed:
 * that is for a look at all, soon after (recheck.c).
 *
 * An image that cannot be opened is no disk, and the scan goes on. When there are
 * no descriptors left that would be so of every image, and nothing is known: the
 * scan fails, and what was known before stays. */
#include "scan.h"

#include <errno.h>
#include <fnmatch.h>
#include <limits.h>
#include <string.h>

#include "core/config.h"
#include "core/error.h"
#include "core/verdict.h"
#include "layer/parent.h"
#include "pool/pool.h"
#include "listing.h"
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
	uint64_t scans;	    /* so far */
	bool lost;	    /* a name has left the directory since */
};

struct scan {
	struct scan_result result;
	const struct scan_options *options;
	const struct chain_roots *roots;
	struct scan_known *known;
	enum scan_extent extent;
	bool given;	     /* the files that are asked about: all else is taken over */
	uint64_t number;     /* of this scan: see struct known */
	dev_t device;	     /* the directory's */
	guint listed;	     /* names of it that are known */
	bool lost;	     /* names that were known */
	GPtrArray *items;    /* struct look_item: what is asked of the store */
	GHashTable *parents; /* a set of files: of every layer that is not a leaf */
	GHashTable *untold;  /* path of each layer that only its child's word makes one */
	GHashTable *leaves;  /* a set of files: leaves of configured stacks */
	GHashTable *modes;   /* shown name -> enum disk_mode, of those that name one */
	GHashTable *stacks;  /* group -> layers, as configured */
	GPtrArray *broken;   /* lines */
	GPtrArray *foreign;
};

static void found_free(void *data)
{
	struct scan_found *found = data;

	g_ptr_array_unref(found->links);
	g_free(found);
}

/* ---- Sets of files ------------------------------------------------------------ */

static guint hash_file(gconstpointer data)
{
	const struct known_file *file = data;
	uint64_t mixed = ((uint64_t)file->inode ^ (uint64_t)file->device << 32) * UINT64_C(0x9e3779b97f4a7c15);

	return (guint)(mixed >> 32);
}

static gboolean is_same_file(gconstpointer a, gconstpointer b)
{
	const struct known_file *first = a, *second = b;

	return first->inode == second->inode && first->device == second->device;
}

/* Of struct known_file that others keep. */
static GHashTable *file_set_new(void)
{
	return g_hash_table_new(hash_file, is_same_file);
}

/* ---- What is known ------------------------------------------------------------ */

static GHashTable *known_table_new(void)
{
	return g_hash_table_new_full(g_str_hash, g_str_equal, g_free, known_unref);
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

/* FILE, NAME and SPELLED are kept by whoever has them, as long as SCAN is. */
static void add_found(struct scan *scan, const char *file, const char *name, const struct known *known,
		      const char *spelled)
{
	struct scan_found *found = g_new(struct scan_found, 1);

	*found = (struct scan_found){
		.file = file,
		.name = name,
		.spelled = spelled,
		.known = known,
		.links = g_ptr_array_ref(known->links),
	};
	g_ptr_array_add(scan->result.found, found);
}

/* Ancestors that were found keep their read-only rule even when the chain is
 * broken further down. A chain that is whole has told all of it. */
static void note_ancestors(struct scan *scan, const struct known *known)
{
	for (guint i = 1; i < known->file_count; i++)
		g_hash_table_add(scan->parents, &known->files[i]);
	for (guint i = 0; i < known->file_count && !known->shown; i++) {
		const struct chain_link *link = known->links->pdata[i];

		if (link->untold)
			g_hash_table_add(scan->untold, g_strdup(link->untold));
	}
}

static void take_known(struct scan *scan, const struct known *known)
{
	note_ancestors(scan, known);
	if (known->untold)
		g_hash_table_add(scan->untold, g_strdup(known->untold));
	if (known->foreign)
		g_ptr_array_add(scan->foreign, known->foreign);
}

/* What is wrong further down does not say of which image it is. */
static void take_trouble(struct scan *scan, const char *name, const char *trouble)
{
	g_autofree char *itself = g_strdup_printf("/%s: ", name);

	g_ptr_array_add(scan->broken,
			strstr(trouble, itself) ? g_strdup(trouble) : g_strdup_printf("%s: %s", name, trouble));
}

static void ask(struct scan *scan, const char *name, const char *layers, struct known *before)
{
	if (before)
		before->asked = scan->number;
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

/* Of a file that is given, the name may be gone. */
static void take_answer(struct scan *scan, struct look_item *item)
{
	GHashTable *table = item->layers ? scan->known->groups : scan->known->files;

	if (item->error && item->layers)
		g_prefix_error(&item->error, "[%s]: ", item->name);
	if (item->error) {
		set_trouble(item->known, item->error);
		keep_links(item->known, item->before, item->error);
	}
	if (item->known != item->before)
		known_list_files(item->known);
	if (item->absent && scan->given)
		scan->lost |= g_hash_table_remove(table, item->name);
	else if (item->known != item->before)
		g_hash_table_insert(table, g_strdup(item->name), g_steal_pointer(&item->known));
}

static bool is_out_of_descriptors(const GError *error)
{
	return error && error_class_of(STORE_OPEN, error_to_errno(error)) == ERROR_DESCRIPTORS;
}

static bool all_are_answers(const struct scan *scan, GError **error)
{
	for (guint i = 0; i < scan->items->len; i++) {
		struct look_item *item = scan->items->pdata[i];

		if (is_out_of_descriptors(item->error)) {
			g_propagate_error(error, g_steal_pointer(&item->error));
			return false;
		}
	}
	return true;
}

static gboolean is_gone(gpointer name, gpointer value, gpointer opaque)
{
	const struct known *known = value;
	const struct scan *scan = opaque;

	(void)name;
	return known->listed != scan->number;
}

static bool are_names_gone(const struct scan *scan)
{
	return !scan->given && scan->listed < g_hash_table_size(scan->known->files);
}

static void take_answers(struct scan *scan)
{
	scan->lost = scan->known->lost;
	scan->known->lost = false;
	if (are_names_gone(scan))
		scan->lost |= g_hash_table_foreach_remove(scan->known->files, is_gone, scan) > 0;
	for (guint i = 0; i < scan->items->len; i++)
		take_answer(scan, scan->items->pdata[i]);
}

static void add_files(struct scan *scan)
{
	GHashTableIter iter;
	gpointer name, value;
	const char *withheld;

	g_hash_table_iter_init(&iter, scan->known->files);
	while (g_hash_table_iter_next(&iter, &name, &value)) {
		const struct known *known = value;

		take_known(scan, known);
		withheld = g_hash_table_lookup(scan->options->withheld, name);
		if (withheld)
			g_ptr_array_add(scan->broken, g_strdup_printf("%s: %s", (const char *)name, withheld));
		else if (known->trouble)
			take_trouble(scan, name, known->trouble);
		if (known->shown && !withheld)
			add_found(scan, name, NULL, known, NULL);
	}
}

static void add_stacks(struct scan *scan)
{
	GHashTableIter iter;
	gpointer group, layers;

	g_hash_table_iter_init(&iter, scan->stacks);
	while (g_hash_table_iter_next(&iter, &group, &layers)) {
		const struct known *known = g_hash_table_lookup(scan->known->groups, group);

		take_known(scan, known);
		if (known->trouble)
			g_ptr_array_add(scan->broken, g_strdup(known->trouble));
		if (!known->shown)
			continue;
		g_hash_table_add(scan->leaves, &known->files[0]);
		add_found(scan, NULL, (const char *)group + strlen(DISK_GROUP), known, layers);
	}
}

static gint compare_lines(gconstpointer a, gconstpointer b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static void join_lines(GPtrArray *lines, GString *text)
{
	g_ptr_array_sort(lines, compare_lines);
	for (guint i = 0; i < lines->len; i++)
		g_string_append_printf(text, "%s\n", (const char *)lines->pdata[i]);
}

/* ---- The directory ------------------------------------------------------------ */

/* The listing tells that the file is the one that is known. */
static bool is_told(const struct scan *scan, const struct known *known, ino_t inode)
{
	return known && !known->trouble && known->inode && known->inode == inode && known->device == scan->device;
}

/* A directory that changes may list a name twice. */
static void take_listed(void *opaque, const char *name, ino_t inode)
{
	struct scan *scan = opaque;
	struct known *before = g_hash_table_lookup(scan->known->files, name);

	if (before && before->listed != scan->number) {
		before->listed = scan->number;
		scan->listed++;
	}
	if (scan->extent != SCAN_NEW || !is_told(scan, before, inode))
		ask(scan, name, NULL, before);
}

static void ask_about_given(struct scan *scan, const char *const *names)
{
	scan->given = true;
	for (; *names; names++)
		ask(scan, *names, NULL, g_hash_table_lookup(scan->known->files, *names));
}

/* ---- Kin of what has changed --------------------------------------------------- */

/* What is new had no children that were known to be whole. */
static bool matters_to_children(const struct known *before, const struct known *now)
{
	const struct chain_link *then, *leaf;

	if (!before || before->file_count == 0)
		return false;
	if (!now || !now->links || now->links->len == 0)
		return true;
	then = before->links->pdata[0];
	leaf = now->links->pdata[0];
	return then->inode != leaf->inode || then->device != leaf->device || !parent_is_only_marked(then, &leaf->info);
}

static bool may_be_asked(const struct scan *scan, const struct known *known)
{
	return known && known->file_count > 0 && known->listed == scan->number && known->asked != scan->number;
}

/* A parent right in the pool, found by its path there, has a mark now, perhaps. */
static void ask_about_parents(struct scan *scan, const struct known *child)
{
	for (guint i = 1; child && child->links && i < child->links->len; i++) {
		const struct chain_link *link = child->links->pdata[i];
		const char *name = place_relative(chain_roots_pool(scan->roots), link->path);
		struct known *known = name ? g_hash_table_lookup(scan->known->files, name) : NULL;

		if (may_be_asked(scan, known) && known->files[0].inode == link->inode &&
		    known->files[0].device == link->device)
			ask(scan, name, NULL, known);
	}
}

static bool has_parent_in(const struct known *known, GHashTable *changed)
{
	for (guint i = 1; i < known->file_count; i++)
		if (g_hash_table_contains(changed, &known->files[i]))
			return true;
	return false;
}

static void ask_about_children(struct scan *scan, GHashTable *changed)
{
	GHashTableIter iter;
	gpointer name, known;

	g_hash_table_iter_init(&iter, scan->known->files);
	while (g_hash_table_size(changed) > 0 && g_hash_table_iter_next(&iter, &name, &known))
		if (may_be_asked(scan, known) && has_parent_in(known, changed))
			ask(scan, name, NULL, known);
}

/* NOW NULL: it is gone. */
static void note_changed(struct scan *scan, struct known *before, const struct known *now, GHashTable *changed)
{
	if (before == now)
		return;
	ask_about_parents(scan, before);
	ask_about_parents(scan, now);
	if (matters_to_children(before, now))
		g_hash_table_add(changed, &before->files[0]);
}

/* Of what was taken over, once what is new has been asked about. */
static void ask_about_kin(struct scan *scan)
{
	g_autoptr(GHashTable) changed = file_set_new();
	guint asked = scan->items->len;
	GHashTableIter iter;
	gpointer before;

	for (guint i = 0; i < asked; i++) {
		const struct look_item *item = scan->items->pdata[i];

		if (!item->layers)
			note_changed(scan, item->before, item->known, changed);
	}
	g_hash_table_iter_init(&iter, scan->known->files);
	while (are_names_gone(scan) && g_hash_table_iter_next(&iter, NULL, &before))
		if (is_gone(NULL, before, scan))
			note_changed(scan, before, NULL, changed);
	ask_about_children(scan, changed);
}

/* ---- The configuration -------------------------------------------------------- */

static void scan_stack(struct scan *scan, const char *group, const char *layers)
{
	struct known *before = g_hash_table_lookup(scan->known->groups, group);

	g_hash_table_insert(scan->stacks, g_strdup(group), g_strdup(layers));
	if (!before || !scan->given)
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

bool scan_is_configured(const struct scan_options *options, const char *name)
{
	g_autofree char *group = g_strconcat(DISK_GROUP, name, NULL);

	return options->config && g_key_file_has_key(options->config, group, "layers", NULL);
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
	return g_hash_table_contains(set, &found->known->files[0]);
}

/* An image that is the leaf of a configured stack is no disk of its own. */
static void drop_configured_leaves(struct scan *scan)
{
	for (guint i = scan->result.found->len; i-- > 0 && g_hash_table_size(scan->leaves) > 0;) {
		struct scan_found *found = scan->result.found->pdata[i];

		if (!found->spelled && is_in(scan->leaves, found))
			g_ptr_array_remove_index(scan->result.found, i);
	}
}

/* By what an image was when it could be read. */
static void note_untold(struct scan *scan)
{
	for (guint i = 0; i < scan->result.found->len && g_hash_table_size(scan->untold) > 0; i++) {
		const struct scan_found *found = scan->result.found->pdata[i];
		const struct chain_link *link = found->links->pdata[0];

		if (g_hash_table_contains(scan->untold, link->path))
			g_hash_table_add(scan->parents, &found->known->files[0]);
	}
}

static enum disk_mode mode_of(const struct scan *scan, const struct scan_found *found)
{
	gpointer mode;

	if (g_hash_table_size(scan->modes) > 0 && g_hash_table_lookup_extended(scan->modes, found->name, NULL, &mode))
		return GPOINTER_TO_INT(mode);
	return scan->options->mode;
}

static bool is_outside(const struct scan_found *found)
{
	return found->known->outside;
}

static bool is_parent(const struct scan *scan, const struct scan_found *found)
{
	return found->known->marked || is_in(scan->parents, found);
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
			     struct scan_known *known)
{
	struct scan *scan = g_new0(struct scan, 1);

	scan->result.broken = g_string_new(NULL);
	scan->result.foreign = g_string_new(NULL);
	scan->result.notes = g_string_new(NULL);
	scan->result.found = g_ptr_array_new_with_free_func(found_free);
	scan->options = options;
	scan->roots = roots;
	scan->known = known;
	scan->number = ++known->scans;
	scan->items = g_ptr_array_new_with_free_func(look_item_free);
	scan->parents = file_set_new();
	scan->untold = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
	scan->leaves = file_set_new();
	scan->modes = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
	scan->stacks = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
	scan->broken = g_ptr_array_new_with_free_func(g_free);
	scan->foreign = g_ptr_array_new();
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
	g_ptr_array_unref(scan->items);
	g_hash_table_destroy(scan->parents);
	g_hash_table_destroy(scan->untold);
	g_hash_table_destroy(scan->leaves);
	g_hash_table_destroy(scan->modes);
	g_hash_table_destroy(scan->stacks);
	g_ptr_array_unref(scan->broken);
	g_ptr_array_unref(scan->foreign);
	g_free(scan);
}

/* GOOD: the store has been asked about all items. SCAN is taken over. */
static struct scan_result *conclude(struct scan *scan, bool good, GError **error)
{
	if (!good || !all_are_answers(scan, error)) {
		scan_result_free(&scan->result);
		return NULL;
	}
	take_answers(scan);
	add_stacks(scan);
	add_files(scan);
	join_lines(scan->broken, scan->result.broken);
	join_lines(scan->foreign, scan->result.foreign);
	return &scan->result;
}

struct scan_result *scan_look(const struct scan_options *options, const struct chain_roots *roots,
			      struct scan_known *known, enum scan_extent extent, GError **error)
{
	struct scan *scan = scan_new(options, roots, known);
	bool good;

	scan->extent = extent;
	good = scan_config(scan, error) &&
	       listing_read(chain_roots_pool(roots), &scan->device, take_listed, scan, error);
	if (good)
		look_at(scan->items, roots, known->cache);
	if (good && extent == SCAN_NEW) {
		ask_about_kin(scan);
		look_at(scan->items, roots, known->cache);
	}
	return conclude(scan, good, error);
}

struct scan_result *scan_look_at(const struct scan_options *options, const struct chain_roots *roots,
				 struct scan_known *known, const char *const *changed, GError **error)
{
	struct scan *scan = scan_new(options, roots, known);
	bool good;

	ask_about_given(scan, changed);
	good = scan_config(scan, error);
	if (good)
		look_at(scan->items, roots, known->cache);
	return conclude(scan, good, error);
}

void scan_note_replaced(struct scan_known *known, const char *file, const char *new_file, GPtrArray *links)
{
	struct known *entry = known_new();

	entry->links = g_ptr_array_ref(links);
	entry->shown = true;
	known_list_files(entry);
	known->lost |= g_hash_table_remove(known->files, file) && strcmp(file, new_file) != 0;
	g_hash_table_insert(known->files, g_strdup(new_file), entry);
}

/* ---- In between ----------------------------------------------------------------- */

GPtrArray *scan_begin_check(const struct scan_known *known)
{
	GPtrArray *items = g_ptr_array_new_with_free_func(look_item_free);
	GHashTableIter iter;
	gpointer name, before;

	g_hash_table_iter_init(&iter, known->files);
	while (g_hash_table_iter_next(&iter, &name, &before))
		g_ptr_array_add(items, look_item_new(name, NULL, before));
	return items;
}

void scan_check(const GPtrArray *items, const struct chain_roots *roots, const struct scan_known *known)
{
	look_at(items, roots, known->cache);
}

/* What is no image is read each time. */
static bool tells_the_same(const struct known *before, const struct known *now)
{
	return before == now || (!before->links && !now->links && g_strcmp0(before->trouble, now->trouble) == 0 &&
				 g_strcmp0(before->foreign, now->foreign) == 0);
}

static bool is_news(const struct look_item *item, const struct scan_known *known)
{
	return g_hash_table_lookup(known->files, item->name) == item->before &&
	       (item->error || item->absent || !tells_the_same(item->before, item->known));
}

bool scan_end_check(const struct scan_options *options, const struct chain_roots *roots, struct scan_known *known,
		    GPtrArray *items, struct scan_result **result, GError **error)
{
	struct scan *scan;

	*result = NULL;
	for (guint i = items->len; i-- > 0;)
		if (!is_news(items->pdata[i], known))
			g_ptr_array_remove_index_fast(items, i);
	if (items->len == 0)
		return true;
	scan = scan_new(options, roots, known);
	scan->given = true;
	g_ptr_array_unref(scan->items);
	scan->items = g_ptr_array_ref(items);
	*result = conclude(scan, scan_config(scan, error), error);
	return *result;
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
	names_give(names, result->found, scan->lost ? scan->known->files : NULL, result->broken, result->notes);
	set_rights(scan);
	apply_glob(scan);
}
