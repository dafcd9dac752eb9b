/* leafctl snapshot, snapshots, fork, revert, keep and delete: disks of a running mount that are sealed as they are. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "client.h"
#include "core/config.h"
#include "core/error.h"
#include "report.h"
#include "table.h"
#include "users.h"
#include "verbs.h"

/* ---- snapshot -------------------------------------------------------------------- */

/* PATH's disk, as a word of COMMAND; all are of *FIRST's mount. */
static bool add_disk(GString *command, const char *path, struct mounted **first, GError **error)
{
	g_autoptr(mounted) mount = control_find_disk(path, error);
	g_autofree char *word = NULL;

	if (!mount)
		return false;
	if (*first && strcmp((*first)->top, mount->top) != 0)
		return error_set(error, EINVAL,
				 "%s is in another mount than %s: what is taken at one instant is of one", path,
				 (*first)->name);
	word = g_shell_quote(mount->name);
	g_string_append_printf(command, " %s", word);
	if (!*first)
		*first = g_steal_pointer(&mount);
	return true;
}

int ctl_snapshot(const struct ctl_arguments *arguments)
{
	const char *tag = arguments->names[arguments->name_count - 1];
	g_autofree char *word = g_shell_quote(tag);
	g_autoptr(GString) command = g_string_new("create ");
	g_autoptr(mounted) mount = NULL;
	g_autoptr(GError) error = NULL;

	g_string_append(command, word);
	for (int i = 0; i < arguments->name_count - 1; i++)
		if (!add_disk(command, arguments->names[i], &mount, &error))
			return ctl_fail_error(NULL, error);
	g_string_append_c(command, '\n');
	if (!control_command(mount, CONTROL_SNAPSHOTS, "", command->str, &error))
		return ctl_fail_error(NULL, error);
	return CTL_DONE;
}

/* ---- fork ------------------------------------------------------------------------- */

/* The name that a disk has, or is to have, in MOUNT: PATH may be that, with or without its ending, or a file there. */
static char *disk_name_of(const struct mounted *mount, const char *path, GError **error)
{
	g_autofree char *base = g_path_get_basename(path), *directory = g_path_get_dirname(path);
	g_autoptr(mounted) other = strchr(path, '/') ? control_find_whole(directory, error) : NULL;

	if (strchr(path, '/') && !other)
		return NULL;
	if (other && strcmp(other->top, mount->top) != 0) {
		error_set(error, EINVAL, "%s is in another mount; a fork is in that of the disk", path);
		return NULL;
	}
	return g_str_has_suffix(base, ".img") ? g_steal_pointer(&base) : g_strconcat(base, ".img", NULL);
}

int ctl_fork(const struct ctl_arguments *arguments)
{
	g_autoptr(GError) error = NULL;
	g_autoptr(mounted) mount = control_find_disk(arguments->names[0], &error);
	g_autoptr(GString) command = g_string_new("fork");

	if (!mount)
		return ctl_fail_error(NULL, error);
	for (int i = 1; i < arguments->name_count; i++) {
		g_autofree char *name = disk_name_of(mount, arguments->names[i], &error);
		g_autofree char *word = name ? g_shell_quote(name) : NULL;

		if (!name)
			return ctl_fail_error(NULL, error);
		g_string_append_printf(command, " %s", word);
	}
	g_string_append_c(command, '\n');
	if (!control_command(mount, CONTROL_DISK_SNAPSHOTS, mount->name, command->str, &error))
		return ctl_fail_error(NULL, error);
	return CTL_DONE;
}

/* ---- revert and delete ------------------------------------------------------------- */

/* VERB of the snapshot that is named second, if one is. */
static int command_disk(const struct ctl_arguments *arguments, const char *verb)
{
	g_autoptr(GError) error = NULL;
	g_autoptr(mounted) mount = control_find_disk(arguments->names[0], &error);
	g_autofree char *word = arguments->name_count > 1 ? g_shell_quote(arguments->names[1]) : g_strdup("");
	g_autofree char *command = g_strdup_printf("%s %s\n", verb, word);
	g_autofree char *users = NULL;

	if (mount && control_command(mount, CONTROL_DISK_SNAPSHOTS, mount->name, command, &error))
		return CTL_DONE;
	if (mount && error_to_errno(error) == -EBUSY)
		users = users_of_disk(mount);
	ctl_fail_error(NULL, error);
	if (users && *users)
		ctl_fail("%s", users);
	return CTL_FAILED;
}

int ctl_revert(const struct ctl_arguments *arguments)
{
	return command_disk(arguments, arguments->live ? "revert-live" : "revert");
}

int ctl_keep(const struct ctl_arguments *arguments)
{
	return command_disk(arguments, "keep");
}

int ctl_delete(const struct ctl_arguments *arguments)
{
	return command_disk(arguments, "delete");
}

/* ---- snapshots -------------------------------------------------------------------- */

#define WORDS 8

static char *time_text(const char *seconds)
{
	g_autoptr(GDateTime) time = g_date_time_new_from_unix_local(g_ascii_strtoll(seconds, NULL, 10));

	return time ? g_date_time_format(time, "%Y-%m-%d %H:%M") : g_strdup("-");
}

/* LINE: see fuse/control/snapshots.c. */
static void add_row(struct table *table, const char *line)
{
	g_auto(GStrv) words = g_strsplit(line, " ", WORDS);
	g_autofree char *disk = NULL, *tag = NULL, *size = NULL, *takes = NULL, *dirty = NULL, *time = NULL;

	if (g_strv_length(words) < WORDS)
		return;
	disk = g_strcompress(words[0]);
	tag = g_strcompress(words[1]);
	size = config_format_size(g_ascii_strtoull(words[2], NULL, 10));
	takes = config_format_size(g_ascii_strtoull(words[3], NULL, 10));
	dirty = config_format_size(g_ascii_strtoull(words[4], NULL, 10));
	time = time_text(words[5]);
	table_add(table, (const char *const[]){disk, tag, size, takes, dirty, time, words[6]});
}

int ctl_snapshots(const struct ctl_arguments *arguments)
{
	static const char *const columns[] = {"<disk",	"<snapshot", ">size",	       ">takes",
					      ">dirty", "<taken",    "<disk is on it", NULL};
	g_autoptr(GError) error = NULL;
	g_autoptr(mounted) mount = control_find_whole_or_disk(arguments->names[0], &error);
	g_autoptr(table) table = table_new(columns);
	g_autofree char *text = NULL;
	g_auto(GStrv) lines = NULL;

	if (mount)
		text = control_read(mount, *mount->name ? CONTROL_DISK_SNAPSHOTS : CONTROL_SNAPSHOTS, mount->name,
				    &error);
	if (!text)
		return ctl_fail_error(NULL, error);
	lines = g_strsplit(text, "\n", -1);
	for (char **line = lines; *line; line++)
		add_row(table, *line);
	table_print(table);
	return CTL_DONE;
}
