/* The control tree, MOUNTPOINT/.leafdisk.
 *
 * One table has a row for each entry, but for the tunables, which share one. An
 * inode number is the number of the row and of an object: below a disk's
 * directory the disk's node, for a tunable its place in the pool's table,
 * counted from 1, otherwise 0:
 *
 *     CONTROL_INO | object << ROW_BITS | row
 *
 * So nothing is kept for what the kernel knows of the tree: a number whose
 * disk is gone finds no node and is stale. Numbers of nodes are not used
 * again. */
#include "tree.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "commands.h"
#include "fuse/shown.h"
#include "fuse/refusal.h"

#define ROW_BITS 8
#define DIRECTORY_MODE (S_IFDIR | 0500)
#define FILE_MODE (S_IFREG | 0400)
#define WRITABLE_MODE (S_IFREG | 0600)

/* The directories, and the row of all tunables. */
enum { ROW_TOP, ROW_CACHE, ROW_DISKS, ROW_DISK, ROW_TUNABLES, ROW_TUNABLE, ROW_FIRST_FILE = ROW_TUNABLE };

struct control_entry {
	const char *name;
	unsigned directory;			   /* the row of what it is in */
	control_make_fn *make;			   /* NULL: a directory */
	control_write_fn *write;		   /* NULL: it cannot be written */
	bool (*is_there)(struct session *session); /* NULL: always */
};

static const struct control_entry entries[] = {
	[ROW_TOP] = {CONTROL_NAME, ROW_TOP, NULL, NULL, NULL},
	[ROW_CACHE] = {"cache", ROW_TOP, NULL, NULL, control_has_cache},
	[ROW_DISKS] = {"disks", ROW_TOP, NULL, NULL, NULL},
	[ROW_DISK] = {"", ROW_DISKS, NULL, NULL, NULL}, /* one for each disk, with its name */
	[ROW_TUNABLES] = {"tunables", ROW_TOP, NULL, NULL, NULL},
	/* One for each, with its name. */
	[ROW_TUNABLE] = {"", ROW_TUNABLES, control_make_tunable, control_write_tunable, NULL},
	{"config", ROW_TOP, control_make_config, NULL, NULL},
	{"drain", ROW_TOP, control_make_dirty, control_write_drain, NULL},
	{"events", ROW_TOP, control_make_events, NULL, NULL},
	{"last_error", ROW_TOP, control_make_last_error, NULL, NULL},
	{"metrics", ROW_TOP, control_make_metrics, NULL, NULL},
	{"stats", ROW_TOP, control_make_stats, NULL, NULL},
	{"version", ROW_TOP, control_make_version, NULL, NULL},
	{"info", ROW_CACHE, control_make_cache_info, NULL, NULL},
	{"chain", ROW_DISK, control_make_disk_chain, NULL, NULL},
	{"drain", ROW_DISK, control_make_dirty, control_write_disk_drain, NULL},
	{"info", ROW_DISK, control_make_disk_info, NULL, NULL},
	{"last_error", ROW_DISK, control_make_last_error, NULL, NULL},
	{"mode", ROW_DISK, control_make_disk_mode, control_write_disk_mode, NULL},
	{"state", ROW_DISK, control_make_disk_state, NULL, NULL},
};
_Static_assert(G_N_ELEMENTS(entries) <= 1 << ROW_BITS, "a row's number has its place in an inode number");

static unsigned row_of(uint64_t ino)
{
	return (unsigned)(ino & ((1 << ROW_BITS) - 1));
}

static uint64_t object_of(uint64_t ino)
{
	return (ino & ~CONTROL_INO) >> ROW_BITS;
}

static uint64_t ino_of(uint64_t object, unsigned row)
{
	return CONTROL_INO | object << ROW_BITS | row;
}

/* The number of the directory that INO is in. */
static uint64_t parent_of(uint64_t ino)
{
	unsigned row = row_of(ino);

	if (row == ROW_TOP)
		return FUSE_ROOT_ID;
	return ino_of(entries[row].directory == ROW_DISK ? object_of(ino) : 0, entries[row].directory);
}

static bool is_in(struct session *session, unsigned row, unsigned directory)
{
	const struct control_entry *entry = &entries[row];

	return row != ROW_TOP && *entry->name && entry->directory == directory &&
	       (!entry->is_there || entry->is_there(session));
}

static void clear_subject(struct control_subject *subject)
{
	disk_unref(subject->disk);
	node_put(subject->session->nodes, subject->node);
}

static int get_disk(struct control_subject *subject, uint64_t object)
{
	struct node_table *nodes = subject->session->nodes;

	subject->node = node_get(nodes, object);
	if (!subject->node)
		return -ESTALE;
	subject->disk = node_disk(nodes, subject->node);
	return 0;
}

static int get_tunable(struct control_subject *subject, uint64_t object)
{
	const struct config_key *key = disk_tunable_keys;

	for (uint64_t place = 1; key->name && place != object; place++)
		key++;
	subject->tunable = key;
	return key->name ? 0 : -ESTALE;
}

/* What INO is about; to be cleared in any case. */
static int get_subject(struct session *session, uint64_t ino, struct control_subject *subject)
{
	unsigned row = row_of(ino);

	*subject = (struct control_subject){.session = session};
	if (row >= G_N_ELEMENTS(entries))
		return -ESTALE;
	if (row == ROW_DISK || entries[row].directory == ROW_DISK)
		return get_disk(subject, object_of(ino));
	if (row == ROW_TUNABLE)
		return get_tunable(subject, object_of(ino));
	return object_of(ino) == 0 ? 0 : -ESTALE;
}

static int check(struct session *session, uint64_t ino)
{
	struct control_subject subject;
	int result = get_subject(session, ino, &subject);

	clear_subject(&subject);
	return result;
}

bool control_is_directory(uint64_t ino)
{
	return row_of(ino) < ROW_FIRST_FILE;
}

bool control_is_writable(uint64_t ino)
{
	return row_of(ino) < G_N_ELEMENTS(entries) && entries[row_of(ino)].write;
}

static int find_disk(struct session *session, const char *name, uint64_t *ino)
{
	struct node *node;
	int result = shown_find(session, name, &node);

	if (result == 0)
		*ino = ino_of(node_ino(node), ROW_DISK);
	node_put(session->nodes, node);
	return result;
}

static int find_tunable(const char *name, uint64_t *ino)
{
	for (unsigned i = 0; disk_tunable_keys[i].name; i++) {
		if (strcmp(disk_tunable_keys[i].name, name) != 0)
			continue;
		*ino = ino_of(i + 1, ROW_TUNABLE);
		return 0;
	}
	return -ENOENT;
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
	if (directory == ROW_TUNABLES)
		return find_tunable(name, ino);
	for (unsigned row = 0; row < G_N_ELEMENTS(entries); row++) {
		if (!is_in(session, row, directory) || strcmp(entries[row].name, name) != 0)
			continue;
		*ino = ino_of(object_of(parent), row);
		return 0;
	}
	return -ENOENT;
}

static mode_t mode_of(uint64_t ino)
{
	if (control_is_directory(ino))
		return DIRECTORY_MODE;
	return control_is_writable(ino) ? WRITABLE_MODE : FILE_MODE;
}

/* A size, though nobody knows it, for what can be written, as in sysfs: writes
 * past the end the kernel lets through one at a time, and whoever waits for a
 * drain that another has begun could not be interrupted. */
int control_get_attributes(struct session *session, uint64_t ino, struct stat *st)
{
	int result = check(session, ino);

	/* One link: the number of sub-directories is not told. */
	*st = (struct stat){
		.st_ino = ino,
		.st_mode = mode_of(ino),
		.st_size = control_is_writable(ino) ? CONTROL_COMMAND_BYTES_MAX : 0,
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

static void add_disk(void *directory, const struct disk *disk, uint64_t ino)
{
	directory_add(directory, disk_name(disk), ino_of(ino, ROW_DISK), S_IFDIR);
}

static void list_tunables(struct directory *directory)
{
	for (unsigned i = 0; disk_tunable_keys[i].name; i++)
		directory_add(directory, disk_tunable_keys[i].name, ino_of(i + 1, ROW_TUNABLE), S_IFREG);
}

int control_list(struct session *session, uint64_t ino, struct directory **directory)
{
	int result = check(session, ino);

	if (result != 0)
		return result;
	*directory = directory_new(ino, parent_of(ino));
	if (row_of(ino) == ROW_DISKS)
		shown_list(session, add_disk, *directory);
	if (row_of(ino) == ROW_TUNABLES)
		list_tunables(*directory);
	for (unsigned row = 0; row < G_N_ELEMENTS(entries); row++)
		if (is_in(session, row, row_of(ino)))
			directory_add(*directory, entries[row].name, ino_of(object_of(ino), row),
				      entries[row].make ? S_IFREG : S_IFDIR);
	return 0;
}

int control_make(struct session *session, uint64_t ino, GString *text)
{
	struct control_subject subject;
	int result = get_subject(session, ino, &subject);

	if (result == 0)
		result = entries[row_of(ino)].make(&subject, text);
	clear_subject(&subject);
	return result;
}

int control_write(struct session *session, uint64_t ino, const struct control_input *input)
{
	g_autoptr(GError) error = NULL;
	struct control_subject subject;
	int result = get_subject(session, ino, &subject);

	if (result == 0)
		result = control_run_command(&subject, entries[row_of(ino)].write, input, &error);
	if (error)
		refusal_keep(session, subject.node, error->message);
	clear_subject(&subject);
	return result;
}
