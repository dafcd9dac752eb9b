/* Tables for a terminal. */
#include "table.h"

#include <stdio.h>

#include "report.h"

#define GAP 2

struct row {
	char **cells;
	char *note; /* lines, or NULL */
};

struct table {
	const char *const *columns;
	guint count;
	guint *widths;
	GPtrArray *rows; /* struct row */
};

/* On a terminal: of letters that take two places, or none, too. */
static guint width_of(const char *text)
{
	guint width = 0;

	for (const char *p = text; *p; p = g_utf8_next_char(p)) {
		gunichar c = g_utf8_get_char(p);

		width += g_unichar_iszerowidth(c) ? 0 : g_unichar_iswide(c) ? 2 : 1;
	}
	return width;
}

static char *cell_of(const char *text)
{
	g_autofree char *printable = ctl_printable(text ? text : "-");

	return g_utf8_make_valid(printable, -1);
}

static void row_free(void *data)
{
	struct row *row = data;

	g_strfreev(row->cells);
	g_free(row->note);
	g_free(row);
}

struct table *table_new(const char *const *columns)
{
	struct table *table = g_new0(struct table, 1);

	table->columns = columns;
	while (columns[table->count])
		table->count++;
	table->widths = g_new0(guint, table->count);
	for (guint i = 0; i < table->count; i++)
		table->widths[i] = width_of(columns[i] + 1);
	table->rows = g_ptr_array_new_with_free_func(row_free);
	return table;
}

void table_free(struct table *table)
{
	if (!table)
		return;
	g_free(table->widths);
	g_ptr_array_unref(table->rows);
	g_free(table);
}

void table_add(struct table *table, const char *const *cells)
{
	struct row *row = g_new0(struct row, 1);

	row->cells = g_new0(char *, table->count + 1);
	for (guint i = 0; i < table->count; i++) {
		row->cells[i] = cell_of(cells[i]);
		table->widths[i] = MAX(table->widths[i], width_of(row->cells[i]));
	}
	g_ptr_array_add(table->rows, row);
}

void table_note(struct table *table, const char *text)
{
	struct row *row = table->rows->pdata[table->rows->len - 1];
	g_autofree char *before = row->note, *line = cell_of(text);

	row->note = g_strdup_printf("%s    %s\n", before ? before : "", line);
}

/* Nothing follows the last column. */
static void print_cells(const struct table *table, const char *const *cells, guint skip)
{
	for (guint i = 0; i < table->count; i++) {
		const char *text = cells[i] + skip;
		guint space = table->widths[i] - width_of(text);
		bool right = table->columns[i][0] == '>', last = i + 1 == table->count;

		printf("%*s%s%*s", right ? (int)space : 0, "", text, last ? 0 : (int)((right ? 0 : space) + GAP), "");
	}
	putchar('\n');
}

void table_print(const struct table *table)
{
	if (table->rows->len == 0)
		return;
	print_cells(table, table->columns, 1);
	for (guint i = 0; i < table->rows->len; i++) {
		const struct row *row = table->rows->pdata[i];

		print_cells(table, (const char *const *)row->cells, 0);
		if (row->note)
			fputs(row->note, stdout);
	}
}
