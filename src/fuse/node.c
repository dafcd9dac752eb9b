/* Nodes: the disks as the kernel knows them.
 *
 * A node is in two tables, by number and by disk, and holds a reference to the
 * disk. It stays until all of this is true: the disk has left the pool, the
 * kernel has forgotten it (`lookups` is 0), and nobody has it pinned. So a disk
 * that the kernel forgets and looks up again has the same number as before.
 *
 * Pages. The kernel keeps a file's cached pages until it is told that they are not good
 * any more (FUSE_CAP_EXPLICIT_INVAL_DATA). While a disk is open for writing here it is
 * ours alone, and every change goes through the kernel, so they are; its time moves all
 * the same. From the last close on, size, time and what stands below the disk's leaf tell
 * whether somebody has changed it: at an open, and of an open one whenever they are asked. */
#include "node.h"

#include "core/lock.h"

struct node {
	uint64_t ino;
	struct disk *disk;
	uint64_t lookups;
	unsigned pins;
	unsigned opens;
	unsigned writers;
	bool gone;
	struct timespec frozen; /* valid while there are writers */
	bool seen;		/* opened before: what follows is valid */
	uint64_t seen_bytes;
	uint64_t seen_below;
	struct timespec seen_modified;
	char *refusal; /* sentence of the last command that failed; NULL: none */
};

struct node_table {
	struct lock lock;
	GHashTable *by_ino;  /* key: &node->ino; owns nothing */
	GHashTable *by_disk; /* key: struct disk * */
	uint64_t next_ino;
};

#define FIRST_INO 2 /* 1 is the root */

struct node_table *node_table_new(void)
{
	struct node_table *table = g_new0(struct node_table, 1);

	lock_init(&table->lock, LOCK_RANK_NODES);
	table->by_ino = g_hash_table_new(g_int64_hash, g_int64_equal);
	table->by_disk = g_hash_table_new(NULL, NULL);
	table->next_ino = FIRST_INO;
	return table;
}

static void node_free(struct node *node)
{
	disk_unref(node->disk);
	g_free(node->refusal);
	g_free(node);
}

void node_table_free(struct node_table *table)
{
	GHashTableIter iter;
	void *node;

	if (!table)
		return;
	g_hash_table_iter_init(&iter, table->by_ino);
	while (g_hash_table_iter_next(&iter, NULL, &node))
		node_free(node);
	g_hash_table_unref(table->by_ino);
	g_hash_table_unref(table->by_disk);
	lock_destroy(&table->lock);
	g_free(table);
}

static bool is_unused(const struct node *node)
{
	return node->gone && node->lookups == 0 && node->pins == 0;
}

/* Takes NODE out of the tables when nothing holds it; the caller frees what is
 * returned after unlocking, as a disk's last reference may take a while. */
static struct node *detach_unused_locked(struct node_table *table, struct node *node)
{
	lock_assert_mine(&table->lock);
	if (!is_unused(node))
		return NULL;
	g_hash_table_remove(table->by_ino, &node->ino);
	if (g_hash_table_lookup(table->by_disk, node->disk) == node)
		g_hash_table_remove(table->by_disk, node->disk);
	return node;
}

static struct node *add_locked(struct node_table *table, struct disk *disk)
{
	struct node *node = g_new0(struct node, 1);

	lock_assert_mine(&table->lock);
	node->ino = table->next_ino++;
	node->disk = disk_ref(disk);
	g_hash_table_insert(table->by_ino, &node->ino, node);
	g_hash_table_insert(table->by_disk, disk, node);
	return node;
}

struct node *node_for_disk(struct node_table *table, struct disk *disk)
{
	struct node *node;

	LOCK_GUARD(&table->lock);
	node = g_hash_table_lookup(table->by_disk, disk);
	if (!node)
		node = add_locked(table, disk);
	node->gone = false;
	node->pins++;
	return node;
}

struct node *node_get(struct node_table *table, uint64_t ino)
{
	struct node *node;

	LOCK_GUARD(&table->lock);
	node = g_hash_table_lookup(table->by_ino, &ino);
	if (node)
		node->pins++;
	return node;
}

void node_put(struct node_table *table, struct node *node)
{
	struct node *unused;

	if (!node)
		return;
	lock_take(&table->lock);
	node->pins--;
	unused = detach_unused_locked(table, node);
	lock_let_go(&table->lock);
	if (unused)
		node_free(unused);
}

uint64_t node_ino(const struct node *node)
{
	return node->ino;
}

struct disk *node_disk(struct node_table *table, struct node *node)
{
	struct disk *disk;

	LOCK_GUARD(&table->lock);
	disk = disk_ref(node->disk);
	return disk;
}

void node_add_lookup(struct node_table *table, struct node *node)
{
	LOCK_GUARD(&table->lock);
	node->lookups++;
}

void node_forget(struct node_table *table, uint64_t ino, uint64_t count)
{
	struct node *unused = NULL;
	struct node *node;

	lock_take(&table->lock);
	node = g_hash_table_lookup(table->by_ino, &ino);
	if (node) {
		node->lookups -= MIN(count, node->lookups);
		unused = detach_unused_locked(table, node);
	}
	lock_let_go(&table->lock);
	if (unused)
		node_free(unused);
}

static void mark_gone_locked(struct node_table *table, struct node *node, GPtrArray *unused)
{
	lock_assert_mine(&table->lock);
	node->gone = true;
	if (detach_unused_locked(table, node))
		g_ptr_array_add(unused, node);
}

void node_mark_gone(struct node_table *table, struct disk *disk)
{
	g_autoptr(GPtrArray) unused = g_ptr_array_new_with_free_func((GDestroyNotify)node_free);
	struct node *node;

	LOCK_GUARD(&table->lock);
	node = g_hash_table_lookup(table->by_disk, disk);
	if (node)
		mark_gone_locked(table, node, unused);
}

void node_sweep(struct node_table *table, GPtrArray *disks)
{
	g_autoptr(GPtrArray) unused = g_ptr_array_new_with_free_func((GDestroyNotify)node_free);
	g_autoptr(GHashTable) present = g_hash_table_new(NULL, NULL);
	g_autoptr(GList) nodes = NULL;

	for (unsigned i = 0; i < disks->len; i++)
		g_hash_table_add(present, disks->pdata[i]);
	LOCK_GUARD(&table->lock);
	nodes = g_hash_table_get_values(table->by_ino);
	for (GList *item = nodes; item; item = item->next) {
		struct node *node = item->data;

		if (!g_hash_table_contains(present, node->disk))
			mark_gone_locked(table, node, unused);
	}
}

void node_move(struct node_table *table, struct disk *from, struct disk *to)
{
	struct disk *old = NULL;
	struct node *node;

	lock_take(&table->lock);
	node = g_hash_table_lookup(table->by_disk, from);
	if (node && from != to && !g_hash_table_contains(table->by_disk, to)) {
		g_hash_table_remove(table->by_disk, from);
		old = node->disk;
		node->disk = disk_ref(to);
		node->seen = false;
		g_hash_table_insert(table->by_disk, to, node);
	}
	lock_let_go(&table->lock);
	disk_unref(old);
}

static bool is_same_time(struct timespec a, struct timespec b)
{
	return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

static bool is_as_seen_locked(struct node_table *table, const struct node *node, const struct disk_attributes *shown)
{
	lock_assert_mine(&table->lock);
	return node->seen && node->seen_bytes == shown->size_bytes && node->seen_below == shown->below &&
	       is_same_time(node->seen_modified, shown->modified);
}

static void see_locked(struct node_table *table, struct node *node, const struct disk_attributes *shown)
{
	lock_assert_mine(&table->lock);
	node->seen = true;
	node->seen_bytes = shown->size_bytes;
	node->seen_below = shown->below;
	node->seen_modified = shown->modified;
}

bool node_opened(struct node_table *table, struct node *node, bool write, const struct disk_attributes *attributes)
{
	struct disk_attributes shown = *attributes;
	bool keep;

	LOCK_GUARD(&table->lock);
	if (write && node->writers == 0)
		node->frozen = attributes->modified;
	node->opens++;
	node->writers += write;
	if (node->writers > 0)
		shown.modified = node->frozen;
	keep = is_as_seen_locked(table, node, &shown);
	see_locked(table, node, &shown);
	return keep;
}

bool node_has_changed(struct node_table *table, struct node *node, const struct disk_attributes *attributes)
{
	LOCK_GUARD(&table->lock);
	if (node->opens == 0 || node->writers > 0 || is_as_seen_locked(table, node, attributes))
		return false;
	see_locked(table, node, attributes);
	return true;
}

void node_closing(struct node_table *table, struct node *node, bool write)
{
	LOCK_GUARD(&table->lock);
	node->opens--;
	node->writers -= write;
}

bool node_is_open(struct node_table *table, struct node *node)
{
	LOCK_GUARD(&table->lock);
	return node->opens > 0;
}

bool node_is_written(struct node_table *table, struct node *node)
{
	LOCK_GUARD(&table->lock);
	return node->writers > 0;
}

void node_keep_refusal(struct node_table *table, struct node *node, const char *sentence)
{
	LOCK_GUARD(&table->lock);
	g_free(node->refusal);
	node->refusal = g_strdup(sentence);
}

char *node_last_refusal(struct node_table *table, struct node *node)
{
	LOCK_GUARD(&table->lock);
	return g_strdup(node->refusal);
}
