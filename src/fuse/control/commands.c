/* The files of the control tree that can be written: what each does.
 *
 * A command that changed something is an event; one that failed is the
 * caller's, who gets the errno, and the sentence in `last_error`. */
#include "commands.h"

#include <errno.h>
#include <string.h>

#include "control/tree.h"
#include "core/config.h"
#include "core/counters.h"
#include "core/error.h"
#include "core/events.h"
#include "core/log.h"
#include "disk/pause.h"
#include "disk/stats.h"
#include "fuse/resize.h"
#include "pool/snapshot.h"

int control_write_drain(const struct control_subject *subject, const struct control_command *command, GError **error)
{
	if (disk_pool_drain(subject->session->pool, command->go_on, command->opaque, error))
		return 0;
	return error_to_errno(*error);
}

int control_write_disk_drain(const struct control_subject *subject, const struct control_command *command,
			     GError **error)
{
	return disk_drain(subject->disk, command->go_on, command->opaque, error);
}

int control_write_tunable(const struct control_subject *subject, const struct control_command *command, GError **error)
{
	const char *name = subject->tunable->name;

	if (!disk_pool_set_tunable(subject->session->pool, name, command->text, error))
		return error_to_errno(*error);
	log_event("%s is %s now", name, command->text);
	return 0;
}

static int refuse_mode(const char *text, GError **error)
{
	g_auto(GStrv) names = g_strsplit(disk_mode_names, "|", -1);
	g_autofree char *list = g_strjoinv(", ", names);

	error_set(error, EINVAL, "\"%s\" is no mode; expected one of: %s", text, list);
	return -EINVAL;
}

int control_write_disk_mode(const struct control_subject *subject, const struct control_command *command,
			    GError **error)
{
	struct disk_status status;
	enum disk_mode mode;
	int result;

	if (!disk_mode_from_name(command->text, &mode))
		return refuse_mode(command->text, error);
	if (mode != DISK_MODE_EPHEMERAL && !disk_pool_has_no_fork(subject->session->pool, subject->disk, error))
		return error_to_errno(*error);
	disk_get_status(subject->disk, &status);
	result = disk_set_mode(subject->disk, mode, command->go_on, command->opaque, error);
	if (result == 0 && g_strcmp0(status.mode, command->text) != 0)
		log_disk(EVENT_INFO, disk_name(subject->disk), "%s: mode %s now, was %s", disk_name(subject->disk),
			 command->text, status.mode);
	return result;
}

int control_write_disk_size(const struct control_subject *subject, const struct control_command *command,
			    GError **error)
{
	uint64_t bytes = 0;

	if (!config_parse_size(command->text, &bytes) || bytes > INT64_MAX) {
		error_set(error, EINVAL, "\"%s\" is no size of a disk; expected bytes, or a number like 10G",
			  command->text);
		return -EINVAL;
	}
	if (disk_is_paused(subject->disk, error))
		return error_to_errno(*error);
	return resize_closed(command->channel, subject->disk, bytes, error);
}

/* How often who waits is asked whether to go on. */
#define ASK_NS (200 * NS_PER_MS)

/* Until there is an event that the open file has not been read for. */
int control_write_events(const struct control_subject *subject, const struct control_command *command, GError **error)
{
	const char *wait = control_word_text(CONTROL_WORD_WAIT);

	(void)subject;
	if (strcmp(command->text, wait) != 0) {
		error_set(error, EINVAL, "\"%s\" is nothing that can be done with events; expected: %s", command->text,
			  wait);
		return -EINVAL;
	}
	for (;;) {
		uint64_t stirs = events_stirs();

		if (events_next() != command->next)
			return 0;
		if (!events_wait(stirs, loop_now_ns() + ASK_NS) && !command->go_on(command->opaque, 0))
			break;
	}
	error_set(error, EINTR, "given up: there is no new event yet");
	return -EINTR;
}

static bool is_reset(const char *text, const char *whose, GError **error)
{
	const char *reset = control_word_text(CONTROL_WORD_RESET);

	return strcmp(text, reset) == 0 ||
	       error_set(error, EINVAL, "\"%s\" is nothing that can be done with the stats of %s; expected: %s", text,
			 whose, reset);
}

/* Those of the mount and of all its disks. */
int control_write_stats(const struct control_subject *subject, const struct control_command *command, GError **error)
{
	g_autoptr(GPtrArray) disks = NULL;

	if (!is_reset(command->text, "the mount", error))
		return -EINVAL;
	disks = disk_pool_shown(subject->session->pool);
	counters_reset();
	for (guint i = 0; i < disks->len; i++)
		disk_reset_stats(disks->pdata[i]);
	return 0;
}

int control_write_disk_stats(const struct control_subject *subject, const struct control_command *command,
			     GError **error)
{
	if (!is_reset(command->text, disk_name(subject->disk), error))
		return -EINVAL;
	disk_reset_stats(subject->disk);
	return 0;
}

/* Takes one line's end off. NULL and ERROR: it is no command. g_free. */
static char *command_text(const char *data, size_t size, GError **error)
{
	char *text = NULL;

	if (size > CONTROL_COMMAND_BYTES_MAX)
		error_set(error, EMSGSIZE, "%zu bytes are too many for a command; expected up to %d", size,
			  CONTROL_COMMAND_BYTES_MAX);
	else if (memchr(data, '\0', size))
		error_set(error, EINVAL, "a command is one line of text; this has a zero byte in it");
	else
		text = g_strndup(data, size > 0 && data[size - 1] == '\n' ? size - 1 : size);
	return text;
}

bool control_goes_on(void *command)
{
	const struct control_command *running = command;

	return running->go_on(running->opaque, 0);
}

int control_run_command(const struct control_subject *subject, control_write_fn *write,
			const struct control_input *input, GError **error)
{
	g_autofree char *text = command_text(input->data, input->size, error);
	struct control_command command = {
		.text = text,
		.next = input->next,
		.channel = input->channel,
		.thread = input->thread,
		.go_on = input->go_on,
		.opaque = input->opaque,
		.pause = input->pause,
	};
	int result = text ? write(subject, &command, error) : error_to_errno(*error);

	if (result != 0 && !*error)
		error_set(error, -result, "given up; what is not written back yet stays in the cache");
	return result;
}
