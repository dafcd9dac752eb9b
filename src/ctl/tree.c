/* Who stands on whom: the images of a pool as trees, bases first. */
#include "tree.h"

#include <stdio.h>
#include <string.h>

#include "core/config.h"
#include "disk/disk.h"
#include "report.h"
#include "table.h"

/* An image. */
struct node {
	char *path;
	const char *disk; /* that it is the leaf of; NULL: it is only below others */
	uint64_t allocated_bytes;
	GPtrArray *children; /* struct node, borrowed */
	bool is_child;
};

struct forest {
	const char *pool;
	GHashTable *nodes; /* path -> struct node */
	struct table *table;
};

static void node_free(void *data)
{
	struct node *node = data;

	g_free(node->path);
	g_ptr_array_unref(node->children);
	g_free(node);
}

static struct node *node_of(struct forest *forest, const struct offline_layer *layer)
{
	struct node *node = g_hash_table_lookup(forest->nodes, layer->path);

	if (node)
		return node;
	node = g_new0(struct node, 1);
	node->path = g_strdup(layer->path);
	node->allocated_bytes = layer->allocated_bytes;
	node->children = g_ptr_array_new();
	g_hash_table_insert(forest->nodes, node->path, node);
	return node;
}

/* Leaf first. */
static void add_chain(struct forest *forest, const GPtrArray *chain, const char *disk)
{
	for (guint i = 0; i < chain->len; i++) {
		struct node *node = node_of(forest, chain->pdata[i]), *parent;

		if (i == 0)
			node->disk = disk;
		if (i + 1 == chain->len || node->is_child)
			continue;
		parent = node_of(forest, chain->pdata[i + 1]);
		node->is_child = true;
		g_ptr_array_add(parent->children, node);
	}
}

static gint compare(gconstpointer a, gconstpointer b)
{
	const struct node *const *left = a, *const *right = b;

	return strcmp((*left)->path, (*right)->path);
}

static const char *name_in(const struct forest *forest, const char *path)
{
	size_t length = strlen(forest->pool);

	return strncmp(path, forest->pool, length) == 0 && path[length] == '/' ? path + length + 1 : path;
}

/* BEFORE: the branches to the left of it; NULL: it is a root. */
static void print_node(struct forest *forest, struct node *node, const char *before, bool last)
{
	const char *branch = !before ? "" : last ? "\u2514\u2500 " : "\u251c\u2500 ";
	g_autofree char *name = g_strconcat(before ? before : "", branch, name_in(forest, node->path), NULL);
	g_autofree char *below = before ? g_strconcat(before, last ? "   " : "\u2502  ", NULL) : g_strdup("");
	g_autofree char *used = config_format_size(node->allocated_bytes);
	const char *cells[] = {name, used, node->disk};

	table_add(forest->table, cells);
	g_ptr_array_sort(node->children, compare);
	for (guint i = 0; i < node->children->len; i++)
		print_node(forest, node->children->pdata[i], below, i + 1 == node->children->len);
}

static void print_roots(struct forest *forest)
{
	g_autoptr(GPtrArray) roots = g_ptr_array_new();
	GHashTableIter iter;
	gpointer node;

	g_hash_table_iter_init(&iter, forest->nodes);
	while (g_hash_table_iter_next(&iter, NULL, &node))
		if (!((struct node *)node)->is_child)
			g_ptr_array_add(roots, node);
	g_ptr_array_sort(roots, compare);
	for (guint i = 0; i < roots->len; i++)
		print_node(forest, roots->pdata[i], NULL, false);
	table_print(forest->table);
}

int print_tree(const char *pool, const GPtrArray *disks, const char *layers)
{
	static const char *const columns[] = {"<image", ">used", "<disk", NULL};
	struct forest forest = {.pool = pool, .table = table_new(columns)};
	int status = CTL_DONE;

	forest.nodes = g_hash_table_new_full(g_str_hash, g_str_equal, NULL, node_free);
	for (guint i = 0; i < disks->len; i++) {
		g_autoptr(GError) error = NULL;
		g_autoptr(GPtrArray) chain =
			offline_info(disk_image_path(disks->pdata[i]), IMAGE_FORMAT_NONE, layers, &error);

		if (chain)
			add_chain(&forest, chain, disk_name(disks->pdata[i]));
		if (error)
			status = ctl_fail_error(NULL, error);
	}
	print_roots(&forest);
	g_hash_table_destroy(forest.nodes);
	table_free(forest.table);
	return status;
}
