/* What a running mount tells in its control tree, and is told. All of it blocks. */
#ifndef LEAFDISK_CTL_CLIENT_H
#define LEAFDISK_CTL_CLIENT_H

#include <glib.h>
#include <json-glib/json-glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "control/tree.h"
#include "mounted.h"

/* How a disk fares. Texts that are not told are NULL. */
typedef struct control_status {
	char *mode;
	char *state;
	char *reason;
	char *since;
	uint64_t dirty_bytes;
	uint64_t dirty_age_ms; /* of the oldest of them */
	uint64_t size_bytes;
	uint64_t allocated_bytes;
	uint64_t opens;
	uint64_t layers; /* of its chain */
	char *owner;
} control_status;
void control_status_clear(struct control_status *status);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(control_status, control_status_clear)

/* The mount that PATH is, or lies in. NULL and ERROR when there is none, or
 * when the caller may not ask it. */
struct mounted *control_find_mount(const char *path, GError **error);
/* The same; PATH is the mount itself. */
struct mounted *control_find_whole(const char *path, GError **error);

/* The path of ENTRY of MOUNT's control tree; OBJECT names the disk or the tunable that
 * it is about, if it is about one. g_free. */
char *control_path(const struct mounted *mount, enum control_entry entry, const char *object);
/* The text of that file. NULL and ERROR; g_free. */
char *control_read(const struct mounted *mount, enum control_entry entry, const char *object, GError **error);
/* The value of KEY in "key: value" lines, its escapes undone; NULL when there
 * is none. g_free. */
char *control_value(const char *text, enum control_key key);

/* The names of the disks, sorted. NULL and ERROR. */
GPtrArray *control_disks(const struct mounted *mount, GError **error);
/* The same of the tunables. */
GPtrArray *control_tunables(const struct mounted *mount, GError **error);
/* MOUNT is about one disk. */
bool control_is_disk(const struct mounted *mount);
/* As control_find_mount(), of a disk: of PATH that is none NULL and ERROR. */
struct mounted *control_find_disk(const char *path, GError **error);
/* The same, of the mount itself or a disk in it. */
struct mounted *control_find_whole_or_disk(const char *path, GError **error);

/* Writes COMMAND, which is not empty, to ENTRY of MOUNT's control tree. Work
 * that takes long shows the dirty bytes that are left on a terminal, and is given
 * up when SIGINT, SIGTERM or SIGHUP come; these stay blocked after it. False and
 * ERROR: the daemon's sentence. */
bool control_command(const struct mounted *mount, enum control_entry entry, const char *object, const char *command,
		     GError **error);
/* The same, and the file stays open, for what the command did lasts as long as that. Its
 * descriptor, to be read too, which no program that is run inherits; -1 and ERROR. */
int control_command_kept(const struct mounted *mount, enum control_entry entry, const char *object, const char *command,
			 GError **error);
bool control_read_status(const struct mounted *mount, const char *disk, struct control_status *status, GError **error);
/* The counters, by name. NULL and ERROR. */
JsonObject *control_counters(const struct mounted *mount, GError **error);

#endif
