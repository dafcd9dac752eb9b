/* The control tree, MOUNTPOINT/.leafdisk.
 *
 * What is in it is listed in control/tree.h; the table here has a row for each entry of
 * that list, and says what it does. The disks share one, and so do the tunables. An
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
#include "pause.h"
#include "snapshots.h"
#include "core/events.h"
#include "fuse/shown.h"
#include "fuse/refusal.h"

#define ROW_BITS 8
#define DIRECTORY_MODE (S_IFDIR | 0500)
#define FILE_MODE (S_IFREG | 0400)
#define WRITABLE_MODE (S_IFREG | 0600)

struct handlers {
	control_make_fn *make; /* this, or the next; NULL both: a directory */
	control_read_on_fn *read_on;
	control_write_fn *write;		   /* NULL: it cannot be written */
	bool (*is_there)(struct session *session); /* NULL: always */
};

static const struct handlers table[CONTROL_ENTRY_COUNT] = {
	[CONTROL_CACHE] = {.is_there = control_has_cache},
	[CONTROL_CACHE_INFO] = {.make = control_make_cache_info},
	[CONTROL_DISK_CHAIN] = {.make = control_make_disk_chain},
	[CONTROL_DISK_DRAIN] = {.make = control_make_dirty, .write = control_write_disk_drain},
	[CONTROL_DISK_INFO] = {.make = control_make_disk_info},
	[CONTROL_DISK_LAST_ERROR] = {.make = control_make_last_error},
	[CONTROL_DISK_LATENCY] = {.make = control_make_disk_latency},
	[CONTROL_DISK_MODE] = {.make = control_make_disk_mode, .write = control_write_disk_mode},
	[CONTROL_DISK_PAUSE] = {.make = control_make_disk_pause, .write = control_write_disk_pause},
	[CONTROL_DISK_REQUESTS] = {.make = control_make_disk_requests},
	[CONTROL_DISK_SIZE] = {.make = control_make_disk_size, .write = control_write_disk_size},
	[CONTROL_DISK_SNAPSHOTS] = {.make = control_make_disk_snapshots, .write = control_write_disk_snapshot},
	[CONTROL_DISK_STATE] = {.make = control_make_disk_state},
	[CONTROL_DISK_STATS] = {.make = control_make_disk_stats, .write = control_write_disk_stats},
	[CONTROL_TUNABLE] = {.make = control_make_tunable, .write = control_write_tunable},
	[CONTROL_CONFIG] = {.make = control_make_config},
	[CONTROL_DRAIN] = {.make = control_make_dirty, .write = control_write_drain},
	[CONTROL_EVENTS] = {.read_on = events_read, .write = control_write_events},
	[CONTROL_LAST_ERROR] = {.make = control_make_last_error},
	[CONTROL_METRICS] = {.make = control_make_metrics},
	[CONTROL_PID] = {.make = control_make_pid},
	[CONTROL_SNAPSHOTS] = {.make = control_make_snapshots, .write = control_write_snapshot},
	[CONTROL_STATS] = {.make = control_make_stats, .write = control_write_stats},
	[CONTROL_VERSION] = {.make = control_make_version},
};
_Static_assert(CONTROL_ENTRY_COUNT <= 1 << ROW_BITS, "an entry's number has its place in an inode number");

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
	unsigned directory;

	if (row == CONTROL_TOP)
		return FUSE_ROOT_ID;
	directory = control_entry_directory(row);
	return ino_of(directory == CONTROL_DISK ? object_of(ino) : 0, directory);
}

static bool is_in(struct session *session, unsigned row, unsigned directory)
{
	return row != CONTROL_TOP && control_entry_name(row) && control_entry_directory(row) == directory &&
	       (!table[row].is_there || table[row].is_there(session));
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
	if (row >= CONTROL_ENTRY_COUNT)
		return -ESTALE;
	if (row == CONTROL_DISK || control_entry_directory(row) == CONTROL_DISK)
		return get_disk(subject, object_of(ino));
	if (row == CONTROL_TUNABLE)
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

static bool is_directory(unsigned row)
{
	return !table[row].make && !table[row].read_on;
}

bool control_is_directory(uint64_t ino)
{
	return row_of(ino) < CONTROL_ENTRY_COUNT && is_directory(row_of(ino));
}

bool control_is_writable(uint64_t ino)
{
	return row_of(ino) < CONTROL_ENTRY_COUNT && table[row_of(ino)].write;
}

/* How a disk is can be read while its store does not answer. */
static int find_disk(struct session *session, const char *name, uint64_t *ino)
{
	struct node *node;
	int result = shown_find_known(session, name, &node);

	if (result == 0)
		*ino = ino_of(node_ino(node), CONTROL_DISK);
	node_put(session->nodes, node);
	return result;
}

static int find_tunable(const char *name, uint64_t *ino)
{
	for (unsigned i = 0; disk_tunable_keys[i].name; i++) {
		if (strcmp(disk_tunable_keys[i].name, name) != 0)
			continue;
		*ino = ino_of(i + 1, CONTROL_TUNABLE);
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
	if (directory == CONTROL_DISKS)
		return find_disk(session, name, ino);
	if (directory == CONTROL_TUNABLES)
		return find_tunable(name, ino);
	for (unsigned row = 0; row < CONTROL_ENTRY_COUNT; row++) {
		if (!is_in(session, row, directory) || strcmp(control_entry_name(row), name) != 0)
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
	directory_add(directory, disk_name(disk), ino_of(ino, CONTROL_DISK), S_IFDIR);
}

static void list_tunables(struct directory *directory)
{
	for (unsigned i = 0; disk_tunable_keys[i].name; i++)
		directory_add(directory, disk_tunable_keys[i].name, ino_of(i + 1, CONTROL_TUNABLE), S_IFREG);
}

int control_list(struct session *session, uint64_t ino, struct directory **directory)
{
	int result = check(session, ino);

	if (result != 0)
		return result;
	*directory = directory_new(ino, parent_of(ino));
	if (row_of(ino) == CONTROL_DISKS) {
		disk_pool_look_for_a_while(session->pool);
		shown_list(session, add_disk, *directory);
	}
	if (row_of(ino) == CONTROL_TUNABLES)
		list_tunables(*directory);
	for (unsigned row = 0; row < CONTROL_ENTRY_COUNT; row++)
		if (is_in(session, row, row_of(ino)))
			directory_add(*directory, control_entry_name(row), ino_of(object_of(ino), row),
				      is_directory(row) ? S_IFDIR : S_IFREG);
	return 0;
}

bool control_is_read_on(uint64_t ino)
{
	return row_of(ino) < CONTROL_ENTRY_COUNT && table[row_of(ino)].read_on;
}

void control_read_on(uint64_t ino, uint64_t *next, GString *text)
{
	table[row_of(ino)].read_on(next, text);
}

int control_make(struct session *session, uint64_t ino, GString *text)
{
	struct control_subject subject;
	int result = get_subject(session, ino, &subject);

	if (result == 0)
		result = table[row_of(ino)].make(&subject, text);
	clear_subject(&subject);
	return result;
}

int control_write(struct session *session, uint64_t ino, const struct control_input *input)
{
	g_autoptr(GError) error = NULL;
	struct control_subject subject;
	int result = get_subject(session, ino, &subject);

	if (result == 0)
		result = control_run_command(&subject, table[row_of(ino)].write, input, &error);
	if (error)
		refusal_keep(session, subject.node, error->message);
	clear_subject(&subject);
	return result;
}
