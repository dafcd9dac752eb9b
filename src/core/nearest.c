/* The word that was meant.
 *
 * Letters that are changed, missing, too many, or in each other's place count one each (the
 * restricted distance of Damerau and Levenshtein). */
#include "core/nearest.h"

#include <glib.h>
#include <string.h>

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
