/* Snapshots in the control tree: a line for each, and commands that make them. */
#include "snapshots.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "core/error.h"
#include "core/log.h"
#include "core/text.h"
#include "fuse/handle.h"
#include "fuse/refusal.h"
#include "fuse/shown.h"
#include "pool/snapshot.h"

/* ---- Which there are -------------------------------------------------------------- */

/* Words apart by one blank: the disk, the snapshot, its size, what it takes of the pool, what of it only the cache has,
 * when it was taken in seconds since the epoch, whether the disk stands on it, and its image. */
static void append_snapshot(GString *text, const struct disk *disk, const struct disk_snapshot *snapshot)
{
	text_append_escaped(text, disk_name(disk), " ");
	g_string_append_c(text, ' ');
	text_append_escaped(text, snapshot->tag, " ");
	g_string_append_printf(text, " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRId64 " %s ", snapshot->size_bytes,
			       snapshot->allocated_bytes, snapshot->dirty_bytes, snapshot->taken_s,
			       snapshot->below ? "yes" : "no");
	text_append_escaped(text, snapshot->path, " ");
	g_string_append_c(text, '\n');
}

static int append_snapshots(GString *text, struct disk_pool *pool, struct disk *disk)
{
	g_autoptr(GError) error = NULL;
	g_autoptr(GPtrArray) snapshots = disk_pool_snapshots(pool, disk, &error);

	if (!snapshots)
		return refusal_log(error);
	for (guint i = 0; i < snapshots->len; i++)
		append_snapshot(text, disk, snapshots->pdata[i]);
	return 0;
}

int control_make_disk_snapshots(const struct control_subject *subject, GString *text)
{
	return append_snapshots(text, subject->session->pool, subject->disk);
}

int control_make_snapshots(const struct control_subject *subject, GString *text)
{
	g_autoptr(GPtrArray) disks = disk_pool_shown(subject->session->pool);
	int result = 0;

	for (guint i = 0; i < disks->len && result == 0; i++)
		result = append_snapshots(text, subject->session->pool, disks->pdata[i]);
	return result;
}

/* ---- Commands --------------------------------------------------------------------- */

static int take(const struct control_subject *subject, const struct control_command *command, const char *tag,
		const char *const *names, GError **error)
{
	if (!disk_pool_snapshot(subject->session->pool, names, tag, control_goes_on, (void *)command, error))
		return error_to_errno(*error);
	for (; *names; names++)
		log_event("%s: snapshot %s", *names, tag);
	return 0;
}

static int fork_disk(const struct control_subject *subject, const struct control_command *command,
		     const char *const *names, GError **error)
{
	const char *from = disk_name(subject->disk);

	if (!disk_pool_fork(subject->session->pool, from, names, control_goes_on, (void *)command, error))
		return error_to_errno(*error);
	for (; *names; names++)
		log_event("%s: a fork of %s", *names, from);
	return 0;
}

static int delete_snapshot(const struct control_subject *subject, const struct control_command *command,
			   const char *tag, GError **error)
{
	if (!disk_pool_delete(subject->session->pool, subject->disk, tag, control_goes_on, (void *)command, error))
		return error_to_errno(*error);
	log_event("%s: snapshot %s is deleted", disk_name(subject->disk), tag);
	return 0;
}

static int delete_fork(const struct control_subject *subject, const struct control_command *command, GError **error)
{
	handle_await_closes(subject->session, subject->disk, handle_closes_begun(subject->session));
	if (!shown_drop_fork(subject->session, subject->disk, control_goes_on, (void *)command, error))
		return error_to_errno(*error);
	log_event("%s: is deleted", disk_name(subject->disk));
	return 0;
}

/* What the kernel has of it is of what it was. It waits for the reads that are in work, which a store that hangs does
 * not answer: a disk that is as it was is not touched. */
static int revert(const struct control_subject *subject, const struct control_command *command, const char *tag,
		  bool live, GError **error)
{
	struct session *session = subject->session;
	const char *name = disk_name(subject->disk);
	bool reverted, good;

	handle_await_closes(session, subject->disk, handle_closes_begun(session));
	good = disk_pool_revert(session->pool, name, tag, live, &reverted, control_goes_on, (void *)command, error);
	if (reverted)
		(void)fuse_lowlevel_notify_inval_inode(session->fuse, node_ino(subject->node), 0, 0);
	if (!good)
		return error_to_errno(*error);
	if (tag)
		log_event("%s: is what it was as snapshot %s", name, tag);
	else
		log_event("%s: is what it was before its last changes", name);
	return 0;
}

static int keep(const struct control_subject *subject, const struct control_command *command, const char *image,
		GError **error)
{
	const char *name = disk_name(subject->disk);

	if (!disk_pool_keep(subject->session->pool, name, image, control_goes_on, (void *)command, error))
		return error_to_errno(*error);
	log_event("%s: is kept, in %s", name, disk_image_path(subject->disk));
	return 0;
}

static int refuse(const struct control_command *command, const char *expected, GError **error)
{
	error_set(error, EINVAL, "\"%s\" is no command for snapshots; expected: %s, as a shell quotes them",
		  command->text, expected);
	return -EINVAL;
}

/* NULL: no words. */
static char **words_of(const struct control_command *command, int *count)
{
	char **words = NULL;

	*count = 0;
	(void)g_shell_parse_argv(command->text, count, &words, NULL);
	return words;
}

int control_write_disk_snapshot(const struct control_subject *subject, const struct control_command *command,
				GError **error)
{
	const char *const names[] = {disk_name(subject->disk), NULL};
	int count;
	g_auto(GStrv) words = words_of(command, &count);

	if (count == 2 && strcmp(words[0], "create") == 0)
		return take(subject, command, words[1], names, error);
	if (count >= 2 && strcmp(words[0], "fork") == 0)
		return fork_disk(subject, command, (const char *const *)words + 1, error);
	if ((count == 1 || count == 2) && strcmp(words[0], "keep") == 0)
		return keep(subject, command, words[1], error);
	if (count == 1 && strcmp(words[0], "delete") == 0)
		return delete_fork(subject, command, error);
	if (count == 2 && strcmp(words[0], "delete") == 0)
		return delete_snapshot(subject, command, words[1], error);
	if ((count == 1 || count == 2) && strcmp(words[0], "revert") == 0)
		return revert(subject, command, words[1], false, error);
	if ((count == 1 || count == 2) && strcmp(words[0], "revert-live") == 0)
		return revert(subject, command, words[1], true, error);
	return refuse(command,
		      "create NAME, delete [NAME], revert [NAME], revert-live [NAME], fork DISK..., or keep [IMAGE]",
		      error);
}

int control_write_snapshot(const struct control_subject *subject, const struct control_command *command, GError **error)
{
	int count;
	g_auto(GStrv) words = words_of(command, &count);

	if (count >= 3 && strcmp(words[0], "create") == 0)
		return take(subject, command, words[1], (const char *const *)words + 2, error);
	return refuse(command, "create NAME DISK...", error);
}
