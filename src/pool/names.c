/* Shown names.
 *
 * An image is shown under its stem and ".img", or, where another image has a
 * right to that name, under its whole file name and ".img". A name is given once:
 * the file that has it keeps it until it leaves the directory, whatever appears
 * beside it. So only newcomers are decided about, all that are new in one scan
 * together, and the order of the directory does not count:
 *
 *     1. Names of the configuration, those given before, and those of forks that are no images, are taken.
 *     2. A newcomer whose short name is taken, or is another newcomer's too,
 *        has its whole name; and so does one whose short name is the whole name
 *        of such a one.
 *     3. Whose name is taken even so, or is longer than a name may be, is not
 *        shown.
 *
 * Whole names differ as file names do, so after 2 no two newcomers have one name. */
#include "names.h"

#include <limits.h>
#include <string.h>

#define SUFFIX ".img"

struct names {
	GHashTable *given; /* file name -> shown name */
	GHashTable *shown; /* a set of those */
	GHashTable *reserved;
};

struct newcomer {
	struct scan_found *found;
	char *short_name;
	char *whole_name;
	bool whole;
};

struct names *names_new(void)
{
	struct names *names = g_new0(struct names, 1);

	names->given = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
	names->shown = g_hash_table_new(g_str_hash, g_str_equal);
	names->reserved = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
	return names;
}

void names_free(struct names *names)
{
	if (!names)
		return;
	g_hash_table_destroy(names->reserved);
	g_hash_table_destroy(names->shown);
	g_hash_table_destroy(names->given);
	g_free(names);
}

bool names_is_given(const struct names *names, const char *shown)
{
	return g_hash_table_contains(names->shown, shown) || g_hash_table_contains(names->reserved, shown);
}

void names_reserve(struct names *names, const char *shown)
{
	g_hash_table_add(names->reserved, g_strdup(shown));
}

void names_release(struct names *names, const char *shown)
{
	g_hash_table_remove(names->reserved, shown);
}

void names_pass(struct names *names, const char *shown, const char *old_file, const char *file)
{
	char *name = g_strdup(shown);
	const char *before = old_file ? g_hash_table_lookup(names->given, old_file) : NULL;

	names_release(names, shown);
	if (g_strcmp0(before, shown) == 0) {
		g_hash_table_remove(names->shown, shown);
		g_hash_table_remove(names->given, old_file);
	}
	g_hash_table_insert(names->given, g_strdup(file), name);
	g_hash_table_add(names->shown, name);
}

static void newcomer_free(void *data)
{
	struct newcomer *newcomer = data;

	g_free(newcomer->short_name);
	g_free(newcomer->whole_name);
	g_free(newcomer);
}

static struct newcomer *newcomer_of(struct scan_found *found)
{
	struct newcomer *newcomer = g_new0(struct newcomer, 1);
	const char *dot = strrchr(found->file, '.');
	int stem = dot && dot != found->file ? (int)(dot - found->file) : (int)strlen(found->file);

	newcomer->found = found;
	newcomer->short_name = g_strdup_printf("%.*s" SUFFIX, stem, found->file);
	newcomer->whole_name = g_strconcat(found->file, SUFFIX, NULL);
	return newcomer;
}

/* Who has left the directory has no name any more. */
static void forget_absent(struct names *names, GHashTable *files)
{
	GHashTableIter iter;
	gpointer file, shown;

	g_hash_table_iter_init(&iter, names->given);
	while (g_hash_table_iter_next(&iter, &file, &shown))
		if (!g_hash_table_contains(files, file)) {
			g_hash_table_remove(names->shown, shown);
			g_hash_table_iter_remove(&iter);
		}
}

/* What no newcomer can have. */
struct taken {
	const struct names *names; /* those given */
	GHashTable *configured;
};

static bool is_taken(const struct taken *taken, const char *name)
{
	return names_is_given(taken->names, name) || g_hash_table_contains(taken->configured, name);
}

static GHashTable *configured_names(const GPtrArray *found)
{
	GHashTable *configured = g_hash_table_new(g_str_hash, g_str_equal);

	for (guint i = 0; i < found->len; i++) {
		const struct scan_found *disk = found->pdata[i];

		if (disk->spelled)
			g_hash_table_add(configured, (char *)disk->name);
	}
	return configured;
}

/* Short names of newcomers that have no whole one yet, with how many have each. */
static GHashTable *count_short(const GPtrArray *newcomers)
{
	GHashTable *counts = g_hash_table_new(g_str_hash, g_str_equal);

	for (guint i = 0; i < newcomers->len; i++) {
		const struct newcomer *newcomer = newcomers->pdata[i];
		guint count = GPOINTER_TO_UINT(g_hash_table_lookup(counts, newcomer->short_name));

		g_hash_table_insert(counts, newcomer->short_name, GUINT_TO_POINTER(count + 1));
	}
	return counts;
}

static void choose(const GPtrArray *newcomers, const struct taken *taken)
{
	g_autoptr(GHashTable) counts = count_short(newcomers);
	g_autoptr(GHashTable) whole = g_hash_table_new(g_str_hash, g_str_equal);
	bool more = true;

	while (more) {
		more = false;
		for (guint i = 0; i < newcomers->len; i++) {
			struct newcomer *newcomer = newcomers->pdata[i];
			const char *name = newcomer->short_name;

			if (newcomer->whole || (GPOINTER_TO_UINT(g_hash_table_lookup(counts, name)) == 1 &&
						!is_taken(taken, name) && !g_hash_table_contains(whole, name)))
				continue;
			newcomer->whole = more = true;
			g_hash_table_add(whole, newcomer->whole_name);
		}
	}
}

/* Why it cannot have its name; NULL: it can. g_free. */
static char *refusal_of(const struct newcomer *newcomer, const struct taken *taken)
{
	const char *name = newcomer->whole ? newcomer->whole_name : newcomer->short_name;

	if (strlen(name) > NAME_MAX)
		return g_strdup_printf(
			"%s: would be shown under a name of %zu bytes, and a name has at most %d; rename "
			"the file",
			newcomer->found->file, strlen(name), NAME_MAX);
	if (is_taken(taken, name))
		return g_strdup_printf("%s: other images have the names %s and %s; rename the file",
				       newcomer->found->file, newcomer->short_name, newcomer->whole_name);
	return NULL;
}

static void settle(struct names *names, const struct newcomer *newcomer, const struct taken *taken, GString *broken,
		   GString *notes)
{
	struct scan_found *found = newcomer->found;
	g_autofree char *refusal = refusal_of(newcomer, taken);
	char *name;

	if (refusal) {
		g_strdelimit(refusal, "\n", ' ');
		g_string_append_printf(broken, "%s\n", refusal);
		return;
	}
	name = g_strdup(newcomer->whole ? newcomer->whole_name : newcomer->short_name);
	found->name = name;
	g_hash_table_insert(names->given, g_strdup(found->file), name);
	g_hash_table_add(names->shown, name);
	if (newcomer->whole)
		g_string_append_printf(notes, "%s: another image has the name %s too, shown as %s\n", found->file,
				       newcomer->short_name, name);
}

static gint compare_newcomers(gconstpointer a, gconstpointer b)
{
	const struct newcomer *const *first = a, *const *second = b;

	return strcmp((*first)->found->file, (*second)->found->file);
}

static GPtrArray *find_newcomers(const struct names *names, const GPtrArray *found)
{
	GPtrArray *newcomers = g_ptr_array_new_with_free_func(newcomer_free);

	for (guint i = 0; i < found->len; i++) {
		struct scan_found *disk = found->pdata[i];

		if (!disk->name)
			disk->name = g_hash_table_lookup(names->given, disk->file);
		if (!disk->name)
			g_ptr_array_add(newcomers, newcomer_of(disk));
	}
	g_ptr_array_sort(newcomers, compare_newcomers);
	return newcomers;
}

static void drop_nameless(GPtrArray *found)
{
	for (guint i = found->len; i-- > 0;)
		if (!((const struct scan_found *)found->pdata[i])->name)
			g_ptr_array_remove_index_fast(found, i);
}

void names_give(struct names *names, GPtrArray *found, GHashTable *files, GString *broken, GString *notes)
{
	g_autoptr(GPtrArray) newcomers = NULL;
	g_autoptr(GHashTable) configured = configured_names(found);
	struct taken taken = {names, configured};

	if (files)
		forget_absent(names, files);
	newcomers = find_newcomers(names, found);
	choose(newcomers, &taken);
	for (guint i = 0; i < newcomers->len; i++)
		settle(names, newcomers->pdata[i], &taken, broken, notes);
	if (newcomers->len > 0)
		drop_nameless(found);
}
