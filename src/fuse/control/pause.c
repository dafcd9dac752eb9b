/* Pauses in the control tree: a line for each, and the commands that make and end them. */
#include "pause.h"

#include <errno.h>
#include <string.h>

#include "control/tree.h"
#include "core/error.h"
#include "core/log.h"
#include "core/text.h"
#include "lines.h"

/* ---- Who holds a disk --------------------------------------------------------- */

/* Words apart by one blank. */
void control_append_holder(GString *text, const struct disk_holder *holder)
{
	enum control_word word = holder->held ? CONTROL_WORD_HELD : CONTROL_WORD_CLOSING;
	g_autofree char *since = lines_time_text(&holder->since);

	g_string_append_printf(text, "%s %s %d ", control_word_text(word), since, holder->pid);
	text_append_escaped(text, holder->program[0] ? holder->program : "-", " ");
	g_string_append_c(text, '\n');
}

int control_make_disk_pause(const struct control_subject *subject, GString *text)
{
	g_autoptr(GArray) holders = disk_get_holders(subject->disk);

	for (guint i = 0; i < holders->len; i++)
		control_append_holder(text, &g_array_index(holders, struct disk_holder, i));
	return 0;
}

/* ---- Commands ----------------------------------------------------------------- */

/* The number of the process that THREAD, whose number the kernel tells, is one of. */
static pid_t process_of(pid_t thread)
{
	g_autofree char *path = g_strdup_printf("/proc/%d/status", thread), *status = NULL;
	const char *line = NULL;

	if (thread && g_file_get_contents(path, &status, NULL, NULL))
		line = strstr(status, "\nTgid:\t");
	return line ? (pid_t)g_ascii_strtoll(line + strlen("\nTgid:\t"), NULL, 10) : thread;
}

static struct disk_holder holder_of(const struct control_command *command)
{
	struct disk_holder holder = {.pid = process_of(command->thread)};
	g_autofree char *path = g_strdup_printf("/proc/%d/comm", holder.pid), *comm = NULL;

	if (holder.pid && g_file_get_contents(path, &comm, NULL, NULL))
		g_strlcpy(holder.program, g_strchomp(comm), sizeof(holder.program));
	return holder;
}

static int pause_disk(struct disk *disk, const struct control_command *command, GError **error)
{
	struct disk_holder holder = holder_of(command);
	g_autofree char *who = disk_holder_text(&holder);

	*command->pause = disk_pause_begin(disk, &holder, control_goes_on, (void *)command, error);
	if (!*command->pause)
		return error_to_errno(*error);
	disk_ref(disk);
	log_disk(EVENT_INFO, disk_name(disk), "%s: paused by %s", disk_name(disk), who);
	return 0;
}

static int resume_disk(struct disk *disk, const struct control_command *command)
{
	struct disk_holder holder = holder_of(command);
	g_autofree char *who = disk_holder_text(&holder);

	if (disk_resume(disk))
		log_disk(EVENT_INFO, disk_name(disk), "%s: resumed by %s", disk_name(disk), who);
	return 0;
}

int control_write_disk_pause(const struct control_subject *subject, const struct control_command *command,
			     GError **error)
{
	const char *pause = control_word_text(CONTROL_WORD_PAUSE), *resume = control_word_text(CONTROL_WORD_RESUME);

	if (strcmp(command->text, pause) == 0)
		return pause_disk(subject->disk, command, error);
	if (strcmp(command->text, resume) == 0)
		return resume_disk(subject->disk, command);
	error_set(error, EINVAL, "\"%s\" is not what a disk is told there; expected one of: %s, %s", command->text,
		  pause, resume);
	return -EINVAL;
}
