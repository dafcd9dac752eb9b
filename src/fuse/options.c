/* Options: the command line, the -o list and the configuration file.
 *
 * One table holds the keys of leafdisk itself (option_keys.c); a second one
 * what mount(8) and fstab may add (foreign.c). Of those some mean something to libfuse or mount(2) and are
 * handed on, others only to mount(8) and are dropped. What is in neither table
 * is refused, so that a misspelt option never reaches a mount.
 *
 * The -o list is applied twice: once to find conf=, and once more after the
 * file's [pool] group, so that mount options win. */
#include "options.h"

#include <errno.h>
#include <getopt.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#include "core/error.h"
#include "foreign.h"
#include "session.h"

#ifndef LEAFDISK_VERSION
#define LEAFDISK_VERSION "unknown"
#endif

static void set_defaults(struct mount_options *options)
{
	*options = (struct mount_options){
		.uid = OPTION_UNSET,
		.gid = OPTION_UNSET,
		.umask = OPTION_UNSET,
		.threads = 1,
		.queue_depth = 128,
		.io_timeout = 120,
		.drain = true,
		.tunables = DISK_TUNABLES_DEFAULT,
	};
}

static bool apply_list(struct mount_options *options, const char *list, GError **error)
{
	g_autofree char *rest = NULL;

	if (!config_set_options(mount_option_keys(), options, list, &rest, error))
		return false;
	g_clear_pointer(&options->library_options, g_free);
	return !rest || foreign_options(rest, &options->library_options, error);
}

static bool is_known_group(const char *group)
{
	return strcmp(group, "pool") == 0 || (g_str_has_prefix(group, "disk ") && group[5] != '\0');
}

static bool check_groups(GKeyFile *file, const char *path, GError **error)
{
	g_auto(GStrv) groups = g_key_file_get_groups(file, NULL);

	for (char **group = groups; *group; group++)
		if (!is_known_group(*group))
			return error_set(error, EINVAL, "%s: unknown group [%s]; known are [pool] and [disk NAME]",
					 path, *group);
	if (g_key_file_has_key(file, "pool", "conf", NULL))
		return error_set(error, EINVAL, "%s: [pool]: \"conf\" is a mount option only", path);
	return true;
}

/* The default file need not exist; one that was named must. */
static bool load_config(struct mount_options *options, GError **error)
{
	if (!options->conf && access(OPTION_DEFAULT_CONF, F_OK) != 0)
		return true;
	if (!options->conf)
		options->conf = g_strdup(OPTION_DEFAULT_CONF);
	options->config = config_load(options->conf, error);
	if (!options->config || !check_groups(options->config, options->conf, error))
		return false;
	if (config_set_group(mount_option_keys(), options, options->config, "pool", error))
		return true;
	g_prefix_error(error, "%s: ", options->conf);
	return false;
}

static enum options_result apply_all(struct mount_options *options, const char *list, GError **error)
{
	bool ok = apply_list(options, list, error) && load_config(options, error) && apply_list(options, list, error);

	if (!options->mode)
		options->mode = g_strdup(disk_mode_name(options->cache ? DISK_MODE_PERSISTENT : DISK_MODE_DIRECT));
	return ok ? OPTIONS_OK : OPTIONS_BAD;
}

static enum options_result take_operands(struct mount_options *options, int count, char **operands, GError **error)
{
	if (count != 2) {
		error_set(error, EINVAL, "a pool and a mountpoint are needed, and nothing else; got %d operand%s",
			  count, count == 1 ? "" : "s");
		return OPTIONS_USAGE;
	}
	options->pool_path = g_strdup(operands[0]);
	options->mountpoint = g_strdup(operands[1]);
	return OPTIONS_OK;
}

static enum options_result take_flag(struct mount_options *options, int flag, GString *list, char **argv,
				     GError **error)
{
	switch (flag) {
	case 'o':
		g_string_append_printf(list, "%s%s", list->len ? "," : "", optarg);
		return OPTIONS_OK;
	case 'd':
		options->debug_all = true;
		options->foreground = true;
		return OPTIONS_OK;
	case 'f':
		options->foreground = true;
		return OPTIONS_OK;
	case 'h':
		return OPTIONS_HELP;
	case 'V':
		return OPTIONS_VERSION;
	case ':':
		error_set(error, EINVAL, "\"%s\" needs an argument", argv[optind - 1]);
		return OPTIONS_USAGE;
	default:
		error_set(error, EINVAL, "unknown flag \"%s\"; known are -o, -f, -d, --help and --version",
			  argv[optind - 1]);
		return OPTIONS_USAGE;
	}
}

/* What debug= says of a module counts beside -d. */
static void add_debug_all(struct mount_options *options)
{
	char *given = options->debug;

	if (!options->debug_all)
		return;
	options->debug = given ? g_strconcat("all:", given, NULL) : g_strdup("all");
	g_free(given);
}

enum options_result options_parse(struct mount_options *options, int argc, char **argv, GError **error)
{
	static const struct option flags[] = {
		{"help", no_argument, NULL, 'h'},
		{"version", no_argument, NULL, 'V'},
		{0},
	};
	g_autoptr(GString) list = g_string_new(NULL);
	enum options_result result = OPTIONS_OK;
	int flag;

	set_defaults(options);
	opterr = 0;
	while (result == OPTIONS_OK && (flag = getopt_long(argc, argv, ":o:fdhV", flags, NULL)) != -1)
		result = take_flag(options, flag, list, argv, error);
	if (result == OPTIONS_OK)
		result = take_operands(options, argc - optind, argv + optind, error);
	if (result == OPTIONS_OK)
		result = apply_all(options, list->str, error);
	add_debug_all(options);
	return result;
}

enum disk_mode options_mode(const struct mount_options *options)
{
	enum disk_mode mode = DISK_MODE_DIRECT;

	(void)disk_mode_from_name(options->mode, &mode);
	return mode;
}

void options_clear(struct mount_options *options)
{
	config_clear(mount_option_keys(), options);
	g_clear_pointer(&options->pool_path, g_free);
	g_clear_pointer(&options->mountpoint, g_free);
	g_clear_pointer(&options->library_options, g_free);
	g_clear_pointer(&options->config, g_key_file_unref);
}

char *options_help(void)
{
	GString *text = g_string_new("usage: leafdisk POOL MOUNTPOINT [-o OPTIONS] [-f] [-d]\n"
				     "\n"
				     "Shows the disk images in the directory POOL as raw disks in MOUNTPOINT.\n"
				     "Unmount with: fusermount3 -u MOUNTPOINT\n"
				     "\n"
				     "    -f         stay in the foreground, messages to standard error\n"
				     "    -d         the same, with the debug messages of all modules\n"
				     "    --help     this text\n"
				     "    --version  the versions of leafdisk and libfuse\n"
				     "\n"
				     "Options (-o, or [pool] in the configuration file):\n");

	config_help(mount_option_keys(), text);
	g_string_append(text, "\nand of mount(8) and libfuse (-o only):\n    ");
	foreign_help(text);
	g_string_append_c(text, '\n');
	return g_string_free(text, FALSE);
}

char *options_version(void)
{
	return g_strdup_printf("leafdisk %s\nlibfuse %s\n", LEAFDISK_VERSION, fuse_pkgversion());
}
