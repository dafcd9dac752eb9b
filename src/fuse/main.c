/* leafdisk: mounts a pool of disk images. Also run by mount(8), through
 * mount.fuse3, for -t fuse.leafdisk and for lines of fstab. */
#include <stdio.h>
#include <sys/stat.h>

#include "checks.h"
#include "core/error.h"
#include "core/log.h"
#include "core/process.h"
#include "daemon.h"
#include "mountpoint.h"
#include "notify.h"
#include "options.h"
#include "privileges.h"
#include "session.h"

enum { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

static bool set_debug(const struct mount_options *options, GError **error)
{
	if (log_set_debug(options->debug ? options->debug : "", error))
		return true;
	g_prefix_error(error, "option \"debug\": ");
	return false;
}

static int report(const GError *error)
{
	log_error("%s", error->message);
	return EXIT_FAILED;
}

/* In the process that stays. */
static int serve(const struct mount_options *options)
{
	g_autoptr(GError) error = NULL;
	struct session *session = NULL;
	int signals = daemon_signal_fd(&error);
	bool ok = false;

	umask(0077);
	daemon_protect();
	privileges_give_up(options->grow_command);
	if (signals >= 0)
		session = session_new(options, signals, &error);
	if (!session)
		return report(error);
	ok = session_run(session, options->foreground ? notify_ready : daemon_ready);
	session_free(session);
	return ok ? EXIT_DONE : EXIT_FAILED;
}

static int mount_pool(struct mount_options *options)
{
	g_autoptr(GError) error = NULL;
	int mounted_fd = -1;

	if (!process_has_room(&error) || !set_debug(options, &error) || !checks_run(options, &error))
		return report(error);
	if (options->trial)
		return EXIT_DONE;
	(void)mountpoint_is_descriptor(options->mountpoint, &mounted_fd);
	if (!options->foreground && !daemon_start(mounted_fd, &error))
		return report(error);
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
		return report(error);
	}
}

int main(int argc, char **argv)
{
	g_autoptr(GError) error = NULL;
	struct mount_options options;
	enum options_result result;
	int status;

	process_begin();
	log_set_program("leafdisk");
	result = options_parse(&options, argc, argv, &error);
	status = act(result, &options, error);
	options_clear(&options);
	return status;
}
