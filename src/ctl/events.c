/* leafctl events: what has happened in a mount, and what happens.
 *
 * The daemon's file is read on: behind its end stands what is new. To wait for that is a command to it, in
 * which a thread stands; of a mount that takes no commands it is looked for every second. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "client.h"
#include "core/error.h"
#include "core/text.h"
#include "interrupt.h"
#include "report.h"
#include "verbs.h"

struct follower {
	const char *disk; /* escaped as in the file; NULL: all events */
	GString *rest;	  /* the beginning of a line whose end is not read yet */
	int fd;
	bool waits; /* takes the command */
};

/* As the daemon writes it. */
static char *escaped(const char *name)
{
	GString *text = g_string_new(NULL);

	text_append_escaped(text, name, " ");
	return g_string_free(text, FALSE);
}

/* The third word of LINE is the disk. */
static bool is_wanted(const struct follower *follower, const char *line)
{
	g_auto(GStrv) words = g_strsplit(line, " ", 4);

	return !follower->disk || (g_strv_length(words) == 4 && strcmp(words[2], follower->disk) == 0);
}

static void print_lines(struct follower *follower)
{
	char *end;

	while ((end = strchr(follower->rest->str, '\n'))) {
		*end = '\0';
		if (is_wanted(follower, follower->rest->str))
			puts(follower->rest->str);
		g_string_erase(follower->rest, 0, end + 1 - follower->rest->str);
	}
	fflush(stdout);
}

/* What there is. */
static bool read_events(struct follower *follower, GError **error)
{
	char buffer[65536];
	ssize_t n;

	while ((n = read(follower->fd, buffer, sizeof(buffer))) > 0 || (n < 0 && errno == EINTR))
		if (n > 0)
			g_string_append_len(follower->rest, buffer, n);
	if (n < 0)
		return error_set_errno(error, errno, "the events cannot be read");
	print_lines(follower);
	return true;
}

/* For more. A signal ends it. */
static bool wait_for_more(struct follower *follower, GError **error)
{
	const char *wait = control_word_text(CONTROL_WORD_WAIT);

	if (!follower->waits) {
		sleep(1);
		return true;
	}
	if (write(follower->fd, wait, strlen(wait)) >= 0 || errno == EINTR)
		return true;
	return error_set_errno(error, errno, "the events cannot be waited for");
}

static bool follow(struct follower *follower, bool on, GError **error)
{
	if (!read_events(follower, error))
		return false;
	while (on && !interrupt_signal() && !ferror(stdout))
		if (!wait_for_more(follower, error) || !read_events(follower, error))
			return false;
	return true;
}

/* A mount with ro takes no commands. */
static bool open_events(struct follower *follower, const struct mounted *mount, GError **error)
{
	g_autofree char *path = control_path(mount, CONTROL_EVENTS, NULL);

	follower->fd = open(path, O_RDWR | O_CLOEXEC);
	follower->waits = follower->fd >= 0;
	if (follower->fd < 0 && errno == EROFS)
		follower->fd = open(path, O_RDONLY | O_CLOEXEC);
	return follower->fd >= 0 || error_set_errno(error, errno, "%s cannot be opened", path);
}

int ctl_events(const struct ctl_arguments *arguments)
{
	g_autoptr(GError) error = NULL;
	g_autoptr(mounted) mount = control_find_whole_or_disk(arguments->names[0], &error);
	g_autofree char *disk = mount && *mount->name ? escaped(mount->name) : NULL;
	struct follower follower = {.disk = disk, .fd = -1};
	bool good;

	interrupt_catch();
	follower.rest = g_string_new(NULL);
	good = mount && open_events(&follower, mount, &error) && follow(&follower, arguments->follow, &error);
	if (follower.fd >= 0)
		close(follower.fd);
	g_string_free(follower.rest, TRUE);
	return good ? CTL_DONE : ctl_fail_error(NULL, error);
}
