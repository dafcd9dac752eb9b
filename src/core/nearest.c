/* The word that was meant.
 *
 * Letters that are changed, missing, too many, or in each other's place count one each (the
 * restricted distance of Damerau and Levenshtein). */
#include "core/nearest.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "core/error.h"

#define LENGTH_MAX 31

void nearest_begin(struct nearest *nearest, const char *word)
{
	*nearest = (struct nearest){.word = word, .distance = MAX(1, (unsigned)strlen(word) / 3) + 1};
}

static unsigned least(unsigned a, unsigned b, unsigned c)
{
	return MIN(MIN(a, b), c);
}

/* Of the first I letters of A and J of B: table[I][J]. */
static unsigned distance(const char *a, const char *b)
{
	unsigned table[LENGTH_MAX + 1][LENGTH_MAX + 1];
	unsigned rows = (unsigned)strlen(a), columns = (unsigned)strlen(b);

	for (unsigned i = 0; i <= rows; i++)
		for (unsigned j = 0; j <= columns; j++) {
			if (i == 0 || j == 0) {
				table[i][j] = i + j;
				continue;
			}
			table[i][j] = least(table[i - 1][j] + 1, table[i][j - 1] + 1,
					    table[i - 1][j - 1] + (a[i - 1] != b[j - 1]));
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
				table[i][j] = MIN(table[i][j], table[i - 2][j - 2] + 1);
		}
	return table[rows][columns];
}

void nearest_offer(struct nearest *nearest, const char *candidate)
{
	unsigned found;

	if (strlen(nearest->word) > LENGTH_MAX || strlen(candidate) > LENGTH_MAX)
		return;
	found = distance(nearest->word, candidate);
	if (found >= nearest->distance)
		return;
	nearest->distance = found;
	nearest->found = candidate;
}

char *nearest_text(const struct nearest *nearest, const char *else_text)
{
	return nearest->found ? g_strdup_printf("; did you mean \"%s\"?", nearest->found) : g_strdup(else_text);
}

/* ---- Files --------------------------------------------------------------------- */

/* As long as NAME has one, CANDIDATE has its ending. g_free. */
static char *comparable(const char *candidate, const char *name)
{
	const char *dot = strchr(name, '.') ? NULL : strrchr(candidate, '.');

	return dot ? g_strndup(candidate, (gsize)(dot - candidate)) : g_strdup(candidate);
}

char *nearest_name_in(const char *directory, const char *name)
{
	g_autoptr(GDir) names = g_dir_open(directory, 0, NULL);
	g_autofree char *found = NULL;
	struct nearest nearest;
	const char *candidate;

	nearest_begin(&nearest, name);
	while (names && (candidate = g_dir_read_name(names))) {
		g_autofree char *text = comparable(candidate, name);

		nearest.found = NULL;
		nearest_offer(&nearest, text);
		if (!nearest.found || candidate[0] == '.')
			continue;
		g_free(found);
		found = g_strdup(candidate);
	}
	return g_steal_pointer(&found);
}

void nearest_add_file(const char *path, GError **error)
{
	g_autofree char *directory = g_path_get_dirname(path), *name = g_path_get_basename(path), *found = NULL;
	struct stat st;

	if (!error || !*error || lstat(path, &st) == 0 || errno != ENOENT)
		return;
	found = nearest_name_in(directory, name);
	if (found) {
		size_t length = strlen(path) - strlen(name);
		char *sentence = g_strdup_printf("%s; did you mean \"%.*s%s\"?", (*error)->message,
						 (int)(g_str_has_suffix(path, name) ? length : 0), path, found);

		g_free((*error)->message);
		(*error)->message = sentence;
	}
}
