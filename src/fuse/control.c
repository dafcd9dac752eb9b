/* The control tree, MOUNTPOINT/.leafdisk.
 *
 * One table has a row for each entry. An inode number is the number of the row
 * and, below a disk's directory, that of the disk's node:
 *
 *     CONTROL_INO | node << ROW_BITS | row
 *
 * So nothing is kept for what the kernel knows of the tree: a number whose
 * disk is gone finds no node and is stale. Numbers of nodes are not used
 * again. */
#include "control.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "control_files.h"

#define ROW_BITS 8
#define DIRECTORY_MODE (S_IFDIR | 0500)
#define FILE_MODE (S_IFREG | 0400)

/* The directories. */
enum { ROW_TOP, ROW_CACHE, ROW_DISKS, ROW_DISK, ROW_FIRST_FILE };

struct control_entry {
	const char *name;
	unsigned directory;			   /* the row of what it is in */
	control_make_fn *make;			   /* NULL: a directory */
	bool (*is_there)(struct session *session); /* NULL: always */
};

static const struct control_entry entries[] = {
	[ROW_TOP] = {CONTROL_NAME, ROW_TOP, NULL, NULL},
	[ROW_CACHE] = {"cache", ROW_TOP, NULL, control_has_cache},
	[ROW_DISKS] = {"disks", ROW_TOP, NULL, NULL},
	[ROW_DISK] = {"", ROW_DISKS, NULL, NULL}, /* one for each disk, with its name */
	[ROW_FIRST_FILE] = {"config", ROW_TOP, control_make_config, NULL},
	{"metrics", ROW_TOP, control_make_metrics, NULL},
	{"stats", ROW_TOP, control_make_stats, NULL},
	{"version", ROW_TOP, control_make_version, NULL},
	{"info", ROW_CACHE, control_make_cache_info, NULL},
	{"chain", ROW_DISK, control_make_disk_chain, NULL},
	{"info", ROW_DISK, control_make_disk_info, NULL},
	{"mode", ROW_DISK, control_make_disk_mode, NULL},
	{"state", ROW_DISK, control_make_disk_state, NULL},
};
_Static_assert(G_N_ELEMENTS(entries) <= 1 << ROW_BITS, "a row's number has its place in an inode number");

static unsigned row_of(uint64_t ino)
{
	return (unsigned)(ino & ((1 << ROW_BITS) - 1));
}

static uint64_t node_of(uint64_t ino)
{
	return (ino & ~CONTROL_INO) >> ROW_BITS;
}

static uint64_t ino_of(uint64_t node, unsigned row)
{
	return CONTROL_INO | node << ROW_BITS | row;
}

/* The number of the directory that INO is in. */
static uint64_t parent_of(uint64_t ino)
{
	unsigned row = row_of(ino);

	if (row == ROW_TOP)
		return FUSE_ROOT_ID;
	return ino_of(entries[row].directory == ROW_DISK ? node_of(ino) : 0, entries[row].directory);
}

static bool is_in(struct session *session, unsigned row, unsigned directory)
{
	const struct control_entry *entry = &entries[row];

	return row != ROW_TOP && row != ROW_DISK && entry->directory == directory &&
	       (!entry->is_there || entry->is_there(session));
}

/* *DISK: the disk that INO is about, with a reference; NULL for none. */
static int get_disk(struct session *session, uint64_t ino, struct disk **disk)
{
	struct node *node;

	*disk = NULL;
	if (row_of(ino) >= G_N_ELEMENTS(entries))
		return -ESTALE;
	if (node_of(ino) == 0)
		return 0;
	node = node_get(session->nodes, node_of(ino));
	if (!node)
		return -ESTALE;
	*disk = node_disk(session->nodes, node);
	node_put(session->nodes, node);
	return 0;
}

static int check(struct session *session, uint64_t ino)
{
	struct disk *disk;
	int result = get_disk(session, ino, &disk);

	disk_unref(disk);
	return result;
}

bool control_is_directory(uint64_t ino)
{
	return row_of(ino) < ROW_FIRST_FILE;
}

static uint64_t ino_of_disk(struct session *session, struct disk *disk)
{
	struct node *node = node_for_disk(session->nodes, disk);
	uint64_t ino = ino_of(node_ino(node), ROW_DISK);

	node_put(session->nodes, node);
	return ino;
}

static int find_disk(struct session *session, const char *name, uint64_t *ino)
{
	struct disk *disk = disk_pool_lookup(session->pool, name);

	if (!disk)
		return -ENOENT;
	*ino = ino_of_disk(session, disk);
	disk_unref(disk);
	return 0;
}

int control_find(struct session *session, uint64_t parent, const char *name, uint64_t *ino)
{
	unsigned directory = row_of(parent);
	int result;

	*ino = CONTROL_INO;
	if (parent == FUSE_ROOT_ID)
		return strcmp(name, CONTROL_NAME) == 0 ? 0 : -ENOENT;
	result = check(session, parent);
	if (result != 0)
		return result;
	if (directory == ROW_DISKS)
		return find_disk(session, name, ino);
	for (unsigned row = 0; row < G_N_ELEMENTS(entries); row++) {
		if (!is_in(session, row, directory) || strcmp(entries[row].name, name) != 0)
			continue;
		*ino = ino_of(node_of(parent), row);
		return 0;
	}
	return -ENOENT;
}

int control_get_attributes(struct session *session, uint64_t ino, struct stat *st)
{
	int result = check(session, ino);

	/* One link: the number of sub-directories is not told. */
	*st = (struct stat){
		.st_ino = ino,
		.st_mode = control_is_directory(ino) ? DIRECTORY_MODE : FILE_MODE,
		.st_nlink = 1,
		.st_uid = geteuid(),
		.st_gid = getegid(),
		.st_blksize = BLOCK_SIZE,
		.st_atim = session->started,
		.st_mtim = session->started,
		.st_ctim = session->started,
	};
	return result;
}

static void list_disks(struct session *session, struct directory *directory)
{
	g_autoptr(GPtrArray) disks = disk_pool_list(session->pool);

	for (unsigned i = 0; i < disks->len; i++)
		directory_add(directory, disk_name(disks->pdata[i]), ino_of_disk(session, disks->pdata[i]), S_IFDIR);
	node_sweep(session->nodes, disks);
}

int control_list(struct session *session, uint64_t ino, struct directory **directory)
{
	int result = check(session, ino);

	if (result != 0)
		return result;
	*directory = directory_new(ino, parent_of(ino));
	if (row_of(ino) == ROW_DISKS)
		list_disks(session, *directory);
	for (unsigned row = 0; row < G_N_ELEMENTS(entries); row++)
		if (is_in(session, row, row_of(ino)))
			directory_add(*directory, entries[row].name, ino_of(node_of(ino), row),
				      entries[row].make ? S_IFREG : S_IFDIR);
	return 0;
}

int control_make(struct session *session, uint64_t ino, GString *text)
{
	struct disk *disk;
	int result = get_disk(session, ino, &disk);

	if (result == 0)
		result = entries[row_of(ino)].make(session, disk, text);
	disk_unref(disk);
	return result;
}
