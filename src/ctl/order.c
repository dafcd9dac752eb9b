/* Names of a command line that are in another order than the verb wants.
 *
 * Said only where the order that was given cannot be right: the disk, file or directory that the verb begins with is
 * none, and another name is one. */
#include "order.h"

#include <string.h>
#include <sys/stat.h>

#include "core/shell.h"
#include "mounted.h"

typedef bool is_first_fn(const char *name);

static bool is_file(const char *name)
{
	struct stat st;

	return stat(name, &st) == 0 && S_ISREG(st.st_mode);
}

static bool is_directory(const char *name)
{
	struct stat st;

	return stat(name, &st) == 0 && S_ISDIR(st.st_mode);
}

/* What verbs begin with, and how the others end. */
static const struct {
	const char *verb;
	is_first_fn *is_first;
	bool but_last; /* all are like the first one, but for the last */
} orders[] = {
	{"snapshot", mounted_is_disk, true}, {"revert", mounted_is_disk, false}, {"delete", mounted_is_disk, false},
	{"fork", mounted_is_disk, false},    {"mode", mounted_is_disk, false},	 {"clone", is_file, false},
	{"convert", is_file, false},	     {"unlock", is_directory, false},	 {"cache adopt", is_file, false},
	{"cache purge", is_file, false},     {"keep", mounted_is_disk, false},
};

static void add_word(GString *command, const char *word)
{
	g_autofree char *quoted = shell_quote(word);

	g_string_append_printf(command, " %s", quoted);
}

/* The name with the number MOVED is before all others, or behind them. */
static char *moved_text(const struct ctl_arguments *arguments, int moved, bool to_end)
{
	GString *command = g_string_new("leafctl ");

	g_string_append(command, arguments->verb->name);
	if (!to_end)
		add_word(command, arguments->names[moved]);
	for (int i = 0; i < arguments->name_count; i++)
		if (i != moved)
			add_word(command, arguments->names[i]);
	if (to_end)
		add_word(command, moved < arguments->name_count ? arguments->names[moved] : "NAME");
	return g_string_free(command, FALSE);
}

/* The only name that is another thing than IS_FIRST tells, which is not the last one; their number: there is none that
 * is. -1: all is well, or cannot be told. */
static int find_other(const struct ctl_arguments *arguments, is_first_fn *is_first)
{
	int found = -1;

	for (int i = 0; i < arguments->name_count; i++) {
		if (is_first(arguments->names[i]))
			continue;
		if (found >= 0)
			return -1;
		found = i;
	}
	if (found < 0)
		return arguments->name_count;
	return found == arguments->name_count - 1 ? -1 : found;
}

/* The first of the others that IS_FIRST tells of; -1: the first does, or none. */
static int find_first(const struct ctl_arguments *arguments, is_first_fn *is_first)
{
	int i = 0;

	while (i < arguments->name_count && !is_first(arguments->names[i]))
		i++;
	return i == 0 || i == arguments->name_count ? -1 : i;
}

char *order_meant(const struct ctl_arguments *arguments)
{
	for (unsigned i = 0; i < G_N_ELEMENTS(orders); i++) {
		int moved;

		if (strcmp(orders[i].verb, arguments->verb->name) != 0)
			continue;
		moved = orders[i].but_last ? find_other(arguments, orders[i].is_first)
					   : find_first(arguments, orders[i].is_first);
		return moved < 0 ? NULL : moved_text(arguments, moved, orders[i].but_last);
	}
	return NULL;
}
