/* Options: the command line, the -o list and the configuration file.
 *
 * One table holds the keys of leafdisk itself (option_keys.c); a second one
 * what mount(8) and fstab may add (foreign.c). Of those some mean something to libfuse or mount(2) and are
 * handed on, others only to mount(8) and are dropped. What is in neither table
 * is refused, so that a misspelt option never reaches a mount.
 *
 * The -o list is applied twice: once to find conf=, and once more after the
 * file's groups (config_file.c), so that mount options win.
 *
 * Run as mount.leafdisk, by mount(8) for -t leafdisk, it takes that one's flags. */
#include "options.h"

#include <errno.h>
#include <getopt.h>
#include <stddef.h>
#include <string.h>

#include "config_file.h"
#include "core/error.h"
#include "foreign.h"
#include "session.h"

#ifndef LEAFDISK_VERSION
#define LEAFDISK_VERSION "unknown"
#endif

static void set_defaults(struct mount_options *options)
{
	*options = (struct mount_options){
		.mounted_fd = -1,
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

/* A disk of a mode of its own may have one that needs none to be named. */
static bool has_cache(const struct mount_options *options)
{
	g_auto(GStrv) groups = options->config ? g_key_file_get_groups(options->config, NULL) : NULL;
	bool has = options->cache || options_mode(options) != DISK_MODE_DIRECT;

	for (char **group = groups; group && *group && !has; group++)
		has = g_str_has_prefix(*group, "disk ") && g_key_file_has_key(options->config, *group, "mode", NULL);
	return has;
}

/* What stands in -o is meant for this very mount; the file may serve others too. */
static bool refuse_useless(const struct mount_options *options, const char *list, GError **error)
{
	bool caches = has_cache(options);

	for (const struct config_key *key = mount_option_keys(); key->name && !caches; key++)
		if (mount_option_is_of_cache(key) && config_is_given(key, list))
			return error_set(error, EINVAL,
					 "option \"%s\" is about a cache, and this mount has none; name one (-o "
					 "cache=FILE, on fast local storage), or leave the option out",
					 key->name);
	return true;
}

static enum options_result apply_all(struct mount_options *options, const char *list, GError **error)
{
	bool ok = apply_list(options, list, error) && config_file_load(options, error) &&
		  apply_list(options, list, error);

	if (!options->mode)
		options->mode = g_strdup(disk_mode_name(options->cache ? DISK_MODE_PERSISTENT : DISK_MODE_DIRECT));
	if (!ok || !refuse_useless(options, list, error))
		return OPTIONS_BAD;
	if (options->mountpoint)
		return OPTIONS_OK;
	error_set(error, EINVAL,
		  "where to? %s has no \"mountpoint\" in a group [pool %s]; give one, or type: leafdisk %s MOUNTPOINT",
		  options->conf ? options->conf : OPTION_DEFAULT_CONF, options->pool_path, options->pool_path);
	return OPTIONS_USAGE;
}

static enum options_result take_operands(struct mount_options *options, int count, char **operands, GError **error)
{
	if (count < 1) {
		error_set(error, EINVAL, "a pool and a mountpoint are needed");
		return OPTIONS_USAGE;
	}
	if (count > 2) {
		error_set(error, EINVAL,
			  "\"%s\": a pool and a mountpoint are needed, and nothing else; mount options are written -o "
			  "KEY=VALUE,KEY=VALUE, without blanks",
			  operands[2]);
		return OPTIONS_USAGE;
	}
	options->pool_path = g_strdup(operands[0]);
	options->mountpoint = g_strdup(count == 2 ? operands[1] : NULL);
	return OPTIONS_OK;
}

/* "--cache=/ssd/x" is meant as a mount option. */
static enum options_result refuse_flag(const char *flag, GError **error)
{
	const char *option = flag + strspn(flag, "-");
	size_t length = strcspn(option, "=");

	for (const struct config_key *key = mount_option_keys(); key->name; key++)
		if (length == strlen(key->name) && strncmp(key->name, option, length) == 0) {
			error_set(error, EINVAL, "\"%s\" is a mount option: write -o %s%s", flag, option,
				  option[length] || key->type == CONFIG_BOOL ? "" : "=VALUE");
			return OPTIONS_USAGE;
		}
	error_set(error, EINVAL, "unknown flag \"%s\"; known are -o, -f, -d, --help and --version", flag);
	return OPTIONS_USAGE;
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
		return refuse_flag(argv[optind - 1], error);
	}
}

/* What mount(8) gives a helper besides -o; of these only "-f", a trial, means something here. */
static enum options_result take_helper_flag(struct mount_options *options, int flag, GString *list, char **argv,
					    GError **error)
{
	if (flag == 'f')
		options->trial = true;
	return strchr("fnstv", flag) ? OPTIONS_OK : take_flag(options, flag, list, argv, error);
}

static bool is_mount_helper(const char *program)
{
	g_autofree char *name = g_path_get_basename(program);

	return strcmp(name, "mount.leafdisk") == 0;
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
	bool is_helper = argc > 0 && is_mount_helper(argv[0]);
	const char *letters = is_helper ? ":o:fnst:v" : ":o:fdhV";
	enum options_result result = OPTIONS_OK;
	int flag;

	set_defaults(options);
	opterr = 0;
	while (result == OPTIONS_OK && (flag = getopt_long(argc, argv, letters, flags, NULL)) != -1)
		result = is_helper ? take_helper_flag(options, flag, list, argv, error)
				   : take_flag(options, flag, list, argv, error);
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
	GString *text = g_string_new("usage: leafdisk POOL [MOUNTPOINT] [-o OPTIONS] [-f] [-d]\n"
				     "\n"
				     "Shows the disk images in the directory POOL as raw disks in MOUNTPOINT, or\n"
				     "where [pool POOL] of the configuration file says.\n"
				     "Unmount with: leafctl umount MOUNTPOINT\n"
				     "\n"
				     "    -f         stay in the foreground, messages to standard error\n"
				     "    -d         the same, with the debug messages of all modules\n"
				     "    --help     this text\n"
				     "    --version  the versions of leafdisk and libfuse\n"
				     "\n"
				     "Options (-o, or [pool] or [pool POOL] in the configuration file):\n");

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
