/* Tables for a terminal, each column as wide as what stands in it. */
#ifndef LEAFDISK_CTL_TABLE_H
#define LEAFDISK_CTL_TABLE_H

#include <glib.h>
#include <stdbool.h>

typedef struct table table;

/* COLUMNS are the heads, with "<" (to the left) or ">" before each: "<name", ">size"; NULL at the end. */
struct table *table_new(const char *const *columns);
void table_free(struct table *table);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(table, table_free)

/* A row of as many CELLS as there are columns; what steers a terminal is shown as "?". NULL is "-". */
void table_add(struct table *table, const char *const *cells);
/* A line below the last row. */
void table_note(struct table *table, const char *text);
/* With its heads; nothing where no row was added. */
void table_print(const struct table *table);

#endif
