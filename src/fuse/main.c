/* leafdisk: mounts a pool of disk images. Also run by mount(8), through
 * mount.fuse3, for -t fuse.leafdisk and for lines of fstab. */
#include <errno.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "checks.h"
#include "core/error.h"
#include "core/log.h"
#include "core/process.h"
#include "core/starter.h"
#include "daemon.h"
#include "mountpoint.h"
#include "notify.h"
#include "options.h"
#include "privileges.h"
#include "session.h"
#include "syscalls.h"

enum { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

static bool set_debug(const struct mount_options *options, GError **error)
{
	if (log_set_debug(options->debug ? options->debug : "", error))
		return true;
	g_prefix_error(error, "option \"debug\": ");
	return false;
}

/* What mount(8) has mounted before it ran this program does not go away by itself. */
static void say_what_stays(const struct mount_options *options)
{
	g_autofree char *point = NULL;
	int fd = options->mounted_fd;

	if (fd < 0 && !(options->mountpoint && mountpoint_is_descriptor(options->mountpoint, &fd)))
		return;
	point = mountpoint_of_descriptor(fd);
	log_error("%s stays mounted, with nothing behind it: umount %s", point ? point : "the mountpoint",
		  point ? point : "MOUNTPOINT");
}

static int report(const struct mount_options *options, const GError *error)
{
	log_error("%s", error->message);
	say_what_stays(options);
	return EXIT_FAILED;
}

/* Those that a mount may come to need, which it may not start itself. */
static bool begin_starter(const struct mount_options *options, GError **error)
{
	static const char *const unmount[] = {"fusermount3", "-u", "-q", "-z", "--", NULL};
	g_auto(GStrv) grow = NULL;
	g_autoptr(GError) inner = NULL;
	const char *const *programs[STARTER_PROGRAMS] = {0};

	if (options->grow_command && !g_shell_parse_argv(options->grow_command, NULL, &grow, &inner))
		return error_set(error, EINVAL, "grow_command \"%s\": %s", options->grow_command, inner->message);
	programs[STARTER_GROW] = (const char *const *)grow;
	if (geteuid() != 0 && options->mounted_fd < 0)
		programs[STARTER_UNMOUNT] = unmount;
	return starter_begin(programs, !options->foreground, error);
}

/* In the process that stays. */
static int serve(const struct mount_options *options)
{
	g_autoptr(GError) error = NULL;
	struct session *session = NULL;
	int signals = daemon_signal_fd(&error);
	bool ok = false;

	umask(0077);
	if (options->foreground)
		notify_begin();
	if (signals >= 0 && begin_starter(options, &error)) {
		daemon_protect();
		privileges_give_up();
		session = session_new(options, signals, &error);
	}
	if (!session)
		return report(options, error);
	syscalls_limit();
	ok = session_run(session, options->foreground ? notify_ready : daemon_ready);
	session_free(session);
	starter_end();
	return ok ? EXIT_DONE : EXIT_FAILED;
}

static int mount_pool(struct mount_options *options)
{
	g_autoptr(GError) error = NULL;

	if (!process_has_room(&error) || !set_debug(options, &error) || !checks_run(options, &error))
		return report(options, error);
	if (options->trial)
		return EXIT_DONE;
	if (!options->foreground && !daemon_start(options->mounted_fd, &error))
		return report(options, error);
	return serve(options);
}

static int show_help(void)
{
	g_autofree char *text = options_help();

	fputs(text, stdout);
	return EXIT_DONE;
}

static int show_version(void)
{
	g_autofree char *text = options_version();

	fputs(text, stdout);
	return EXIT_DONE;
}

static int show_usage(const GError *error)
{
	log_error("%s", error->message);
	fputs("usage: leafdisk POOL [MOUNTPOINT] [-o OPTIONS] [-f] [-d]; see leafdisk --help\n", stderr);
	return EXIT_USAGE;
}

static int act(enum options_result result, struct mount_options *options, const GError *error)
{
	switch (result) {
	case OPTIONS_OK:
		return mount_pool(options);
	case OPTIONS_HELP:
		return show_help();
	case OPTIONS_VERSION:
		return show_version();
	case OPTIONS_USAGE:
		return show_usage(error);
	default:
		return report(options, error);
	}
}

int main(int argc, char **argv)
{
	g_autoptr(GError) error = NULL;
	struct mount_options options;
	enum options_result result;
	int status;

	process_begin();
	/* Also as mount.leafdisk: a successor looks for it by that (predecessor.c). */
	prctl(PR_SET_NAME, "leafdisk");
	log_set_program("leafdisk");
	result = options_parse(&options, argc, argv, &error);
	status = act(result, &options, error);
	options_clear(&options);
	return status;
}
