/* Who keeps a mount from being taken down, and from its end.
 *
 * What a process uses is told by its device number, not by its path: in a mount namespace of
 * the process's own the mount may have another path, and something else that path. Of files
 * no server is asked (AT_STATX_DONT_SYNC), as one that hangs does not answer. */
#include "users.h"

#include <fcntl.h>
#include <glib.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

/* A file system, or one file of it. */
struct used {
	dev_t device;
	/* 0: any. */
	uint64_t inode;
};

static bool is_used(const char *link, const struct used *used)
{
	struct statx stx;

	return statx(AT_FDCWD, link, AT_STATX_DONT_SYNC, STATX_INO, &stx) == 0 &&
	       makedev(stx.stx_dev_major, stx.stx_dev_minor) == used->device &&
	       (used->inode == 0 || stx.stx_ino == used->inode);
}

static void add_part(GString *text, const char *part)
{
	g_string_append_printf(text, "%s%s", text->len ? "; " : "", part);
}

/* "bash (pid 12)". */
static char *process_text(const char *pid)
{
	g_autofree char *path = g_strdup_printf("/proc/%s/comm", pid), *comm = NULL;

	(void)g_file_get_contents(path, &comm, NULL, NULL);
	return g_strdup_printf("%s (pid %s)", comm ? g_strchomp(comm) : "a program", pid);
}

/* ---- Files -------------------------------------------------------------------- */

static bool note_link(GString *users, const char *pid, const char *link, const struct used *used)
{
	g_autofree char *target = NULL, *who = NULL, *part = NULL;

	if (!is_used(link, used))
		return false;
	target = g_file_read_link(link, NULL);
	who = process_text(pid);
	part = g_strdup_printf("%s uses %s", who, target ? target : "it");
	add_part(users, part);
	return true;
}

/* One line for each process is enough. */
static void note_process(GString *users, const char *pid, const struct used *used)
{
	static const char *const places[] = {"cwd", "root"};
	g_autofree char *files = g_strdup_printf("/proc/%s/fd", pid);
	g_autoptr(GDir) directory = g_dir_open(files, 0, NULL);
	bool noted = false;
	const char *fd;

	for (unsigned i = 0; i < G_N_ELEMENTS(places) && !noted; i++) {
		g_autofree char *link = g_strdup_printf("/proc/%s/%s", pid, places[i]);

		noted = note_link(users, pid, link, used);
	}
	while (!noted && directory && (fd = g_dir_read_name(directory))) {
		g_autofree char *link = g_build_filename(files, fd, NULL);

		noted = note_link(users, pid, link, used);
	}
}

static bool is_own_pid(const char *name)
{
	return g_ascii_strtoll(name, NULL, 10) == getpid();
}

static void note_processes(GString *users, const struct used *used)
{
	g_autoptr(GDir) processes = g_dir_open("/proc", 0, NULL);
	const char *name;

	while (processes && (name = g_dir_read_name(processes)))
		if (g_ascii_isdigit(*name) && !is_own_pid(name))
			note_process(users, name, used);
}

/* ---- Loop devices ------------------------------------------------------------- */

static bool is_below(const char *path, const char *top)
{
	size_t length = strlen(top);

	return strncmp(path, top, length) == 0 && (path[length] == '/' || path[length] == '\0');
}

/* DEVICE, or a partition of it. */
static bool is_of_device(const char *source, const char *device)
{
	size_t length = strlen(device);

	return strncmp(source, device, length) == 0 &&
	       (source[length] == '\0' || (source[length] == 'p' && g_ascii_isdigit(source[length + 1])));
}

/* The commands that free DEVICE of those that TABLE, of lines whose first word is a device, says have it: COMMAND with
 * the word number WORD of the line. */
static void note_table(GString *text, const char *device, const char *table, unsigned word, const char *command)
{
	g_autofree char *content = NULL;
	g_auto(GStrv) lines = NULL;

	if (g_file_get_contents(table, &content, NULL, NULL))
		lines = g_strsplit(content, "\n", -1);
	for (char **line = lines; line && *line; line++) {
		g_auto(GStrv) fields = g_strsplit_set(*line, " \t", 3);
		g_autofree char *what = g_strv_length(fields) > word ? g_strcompress(fields[word]) : NULL;

		if (what && is_of_device(fields[0], device))
			g_string_append_printf(text, "%s %s, ", command, what);
	}
}

/* What frees DEVICE: "umount /mnt/web1, losetup -d /dev/loop3". One that is in use losetup frees later,
 * and says nothing. */
static char *freeing_text(const char *device)
{
	GString *text = g_string_new(NULL);

	note_table(text, device, "/proc/self/mounts", 1, "umount");
	note_table(text, device, "/proc/swaps", 0, "swapoff");
	g_string_append_printf(text, "losetup -d %s", device);
	return g_string_free(text, FALSE);
}

static void note_loops(GString *users, const char *top)
{
	g_autoptr(GDir) devices = g_dir_open("/sys/block", 0, NULL);
	const char *name;

	while (devices && (name = g_dir_read_name(devices))) {
		g_autofree char *file = g_build_filename("/sys/block", name, "loop", "backing_file", NULL);
		g_autofree char *device = g_build_filename("/dev", name, NULL);
		g_autofree char *backing = NULL, *freeing = NULL, *part = NULL;

		if (!g_file_get_contents(file, &backing, NULL, NULL) || !is_below(g_strchomp(backing), top))
			continue;
		freeing = freeing_text(device);
		part = g_strdup_printf("%s (%s) uses %s", device, freeing, backing);
		add_part(users, part);
	}
}

char *users_text(const struct mounted *mount)
{
	const struct used used = {.device = mount->device};
	GString *users = g_string_new(NULL);

	note_processes(users, &used);
	note_loops(users, mount->top);
	return g_string_free(users, FALSE);
}

char *users_of_disk(const struct mounted *mount)
{
	g_autofree char *path = g_build_filename(mount->top, mount->name, NULL);
	struct used used = {.device = mount->device};
	GString *users = g_string_new(NULL);
	struct statx stx;

	if (statx(AT_FDCWD, path, AT_STATX_DONT_SYNC, STATX_INO, &stx) == 0) {
		used.inode = stx.stx_ino;
		note_processes(users, &used);
		note_loops(users, path);
	}
	return g_string_free(users, FALSE);
}

/* ---- Places ------------------------------------------------------------------- */

/* The first process of each mount namespace tells for it. */
static void note_namespace(GString *places, const char *pid, GHashTable *seen, dev_t device)
{
	g_autofree char *link = g_strdup_printf("/proc/%s/ns/mnt", pid);
	g_autofree char *path = g_strdup_printf("/proc/%s/mountinfo", pid);
	g_autofree char *table = NULL, *place = NULL, *who = NULL, *part = NULL;
	char *namespace = g_file_read_link(link, NULL);
	bool own = strcmp(pid, "self") == 0;

	if (!namespace || !g_hash_table_add(seen, namespace))
		return;
	if (g_file_get_contents(path, &table, NULL, NULL))
		place = mounted_place(table, device);
	if (!place)
		return;
	who = own ? NULL : process_text(pid);
	part = own ? g_strdup_printf("it is at %s too", place)
		   : g_strdup_printf("%s has it at %s, in a mount namespace of its own", who, place);
	add_part(places, part);
}

char *users_places(const struct mounted *mount)
{
	g_autoptr(GHashTable) seen = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
	g_autoptr(GDir) processes = g_dir_open("/proc", 0, NULL);
	GString *places = g_string_new(NULL);
	const char *name;

	note_namespace(places, "self", seen, mount->device);
	while (processes && (name = g_dir_read_name(processes)))
		if (g_ascii_isdigit(*name))
			note_namespace(places, name, seen, mount->device);
	return g_string_free(places, FALSE);
}
