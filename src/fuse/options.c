/* Options: the command line, the -o list and the configuration file.
 *
 * One table holds the keys of leafdisk itself; a second one what mount(8) and
 * fstab may add. Of those some mean something to libfuse or mount(2) and are
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

#define DEFAULT_CONF "/etc/leafdisk.conf"
#define CACHE_SIZE_MIN (8 << 20)
#define ID_MAX (UINT64_C(0xffffffff) - 1)

#define KEY(name, type, field) name, type, offsetof(struct mount_options, field)

const struct config_key mount_option_keys[] = {
	{KEY("mode", CONFIG_STRING, mode), 0, 0, disk_mode_names,
	 "where writes go (default: persistent with cache=, direct without)"},
	{KEY("cache", CONFIG_STRING, cache), 0, 0, NULL, "file or block device on fast local storage"},
	{KEY("cache_size", CONFIG_SIZE, cache_size), CACHE_SIZE_MIN, 0, NULL,
	 "of a new cache file, or what an old one grows to (default 10G for a new one)"},
	{KEY("copy_on_read", CONFIG_BOOL, copy_on_read), 0, 0, NULL, "reads fill the cache (default)"},
	{KEY("read_run_bypass", CONFIG_SIZE, read_run_bypass), 0, 0, NULL,
	 "sequential reads longer than this do not fill the cache (default 4M)"},
	{KEY("conf", CONFIG_STRING, conf), 0, 0, NULL, "configuration file (default " DEFAULT_CONF ", if it exists)"},
	{KEY("layers", CONFIG_STRING, layers), 0, 0, NULL, "DIR[:DIR]: where parents may be, besides the pool"},
	{KEY("disks", CONFIG_STRING, disks), 0, 0, NULL, "glob on the shown names (default: all)"},
	{KEY("ro", CONFIG_BOOL, read_only), 0, 0, NULL, "every disk is read-only"},
	{KEY("create", CONFIG_BOOL, create), 0, 0, NULL, "new disks: truncate -s SIZE NAME.img"},
	{KEY("allow_other", CONFIG_BOOL, allow_other), 0, 0, NULL, "other users too, as far as the modes allow"},
	{KEY("uid", CONFIG_UINT, uid), 0, ID_MAX, NULL, "owner of the files (default: the pool's)"},
	{KEY("gid", CONFIG_UINT, gid), 0, ID_MAX, NULL, "group of the files (default: the pool's)"},
	{KEY("umask", CONFIG_OCTAL, umask), 0, 0777, NULL,
	 "modes are 666 (disks) and 777 (top) without these bits (default: 600 and the pool's)"},
	{KEY("threads", CONFIG_UINT, threads), 1, 16, NULL, "loops that serve the mount (default 1)"},
	{KEY("queue_depth", CONFIG_UINT, queue_depth), 1, 1024, NULL, "requests in work, for each loop (default 128)"},
	{KEY("io_timeout", CONFIG_UINT, io_timeout), 1, 86400, NULL,
	 "seconds that a transient error is retried (default 120)"},
	{KEY("grow_command", CONFIG_STRING, grow_command), 0, 0, NULL,
	 "program and arguments, run when a leaf's block device is full"},
	{KEY("max_read", CONFIG_UINT, max_read), 4096, 1 << 20, NULL, "longest read that the kernel asks for, bytes"},
	{KEY("debug", CONFIG_STRING, debug), 0, 0, NULL,
	 "debug messages of these modules: core:aio:image:cache:disk:fuse, all"},
	{0},
};

static void set_defaults(struct mount_options *options)
{
	*options = (struct mount_options){
		.uid = OPTION_UNSET,
		.gid = OPTION_UNSET,
		.umask = OPTION_UNSET,
		.threads = 1,
		.queue_depth = 128,
		.io_timeout = 120,
		.copy_on_read = true,
		.read_run_bypass = 4 << 20,
	};
}

static bool apply_list(struct mount_options *options, const char *list, GError **error)
{
	g_autofree char *rest = NULL;

	if (!config_set_options(mount_option_keys, options, list, &rest, error))
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
	if (!options->conf && access(DEFAULT_CONF, F_OK) != 0)
		return true;
	if (!options->conf)
		options->conf = g_strdup(DEFAULT_CONF);
	options->config = config_load(options->conf, error);
	if (!options->config || !check_groups(options->config, options->conf, error))
		return false;
	if (config_set_group(mount_option_keys, options, options->config, "pool", error))
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
	config_clear(mount_option_keys, options);
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
				     "    -d         the same, with all debug messages\n"
				     "    --help     this text\n"
				     "    --version  the versions of leafdisk and libfuse\n"
				     "\n"
				     "Options (-o, or [pool] in the configuration file):\n");

	config_help(mount_option_keys, text);
	g_string_append(text, "\nand of mount(8) and libfuse (-o only):\n    ");
	foreign_help(text);
	g_string_append_c(text, '\n');
	return g_string_free(text, FALSE);
}

char *options_version(void)
{
	return g_strdup_printf("leafdisk %s\nlibfuse %s\n", LEAFDISK_VERSION, fuse_pkgversion());
}
