/* The configuration file.
 *
 * One file serves every mount of the host: [pool] and [disk NAME] are of all pools,
 * [pool PATH] and [disk PATH/NAME] of the one at PATH, and count before these. PATH is
 * compared as text, with the pool's path as it was given and as it is without links:
 * another pool's directory is not looked at, as its store may hang. For the same reason
 * what a group of another pool says is not judged here. */
#include "config_file.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/error.h"

#define POOL_GROUP "pool "
#define DISK_GROUP "disk "
#define MOUNTPOINT_KEY "mountpoint"

static bool is_known_group(const char *group)
{
	const char *disk = g_str_has_prefix(group, DISK_GROUP) ? group + strlen(DISK_GROUP) : NULL;

	if (disk)
		return *disk != '\0' && (*disk == '/' || !strchr(disk, '/'));
	return strcmp(group, "pool") == 0 || g_str_has_prefix(group, POOL_GROUP "/");
}

static bool check_groups(GKeyFile *file, const char *path, GError **error)
{
	g_auto(GStrv) groups = g_key_file_get_groups(file, NULL);

	for (char **group = groups; *group; group++) {
		if (!is_known_group(*group))
			return error_set(error, EINVAL,
					 "%s: unknown group [%s]; known are [pool], [disk NAME], and of one pool "
					 "[pool /PATH] and [disk /PATH/NAME]",
					 path, *group);
		if (g_str_has_prefix(*group, "pool") && g_key_file_has_key(file, *group, "conf", NULL))
			return error_set(error, EINVAL, "%s: [%s]: \"conf\" is a mount option only", path, *group);
	}
	if (g_key_file_has_key(file, "pool", MOUNTPOINT_KEY, NULL))
		return error_set(error, EINVAL, "%s: [pool]: \"" MOUNTPOINT_KEY "\" is of one pool: [pool /PATH]",
				 path);
	return true;
}

static bool is_pool(const char *path, const char *pool)
{
	g_autofree char *named = g_canonicalize_filename(path, "/");
	g_autofree char *given = g_canonicalize_filename(pool, NULL);
	char *resolved = realpath(pool, NULL);
	bool same = strcmp(named, given) == 0 || (resolved && strcmp(named, resolved) == 0);

	free(resolved);
	return same;
}

/* The operand counts before it. */
static void take_mountpoint(struct mount_options *options, const char *group)
{
	g_autofree char *mountpoint = g_key_file_get_string(options->config, group, MOUNTPOINT_KEY, NULL);

	if (mountpoint && !options->mountpoint)
		options->mountpoint = g_steal_pointer(&mountpoint);
	g_key_file_remove_key(options->config, group, MOUNTPOINT_KEY, NULL);
}

/* What a group may have: all options but the file itself, and of one pool the mountpoint, which is taken before. */
static struct config_key *group_keys(const char *group)
{
	static const struct config_key mountpoint = {
		.name = MOUNTPOINT_KEY, .type = CONFIG_STRING, .offset = offsetof(struct mount_options, mountpoint)};
	GArray *keys = g_array_new(TRUE, TRUE, sizeof(struct config_key));

	for (const struct config_key *key = mount_option_keys(); key->name; key++)
		if (strcmp(key->name, "conf") != 0)
			g_array_append_val(keys, *key);
	if (g_str_has_prefix(group, POOL_GROUP))
		g_array_append_val(keys, mountpoint);
	return (struct config_key *)(void *)g_array_free(keys, FALSE);
}

static bool take_pool(struct mount_options *options, const char *group, GError **error)
{
	g_autofree struct config_key *keys = group_keys(group);

	if (config_set_group(keys, options, options->config, group, error))
		return true;
	g_prefix_error(error, "%s: ", options->conf);
	return false;
}

static void copy_group(GKeyFile *file, const char *from, const char *to)
{
	g_auto(GStrv) keys = g_key_file_get_keys(file, from, NULL, NULL);

	for (char **key = keys; key && *key; key++) {
		g_autofree char *value = g_key_file_get_value(file, from, *key, NULL);

		g_key_file_set_value(file, to, *key, value);
	}
}

/* [disk PATH/NAME] becomes [disk NAME], or goes where PATH is another pool. */
static void take_disk(struct mount_options *options, const char *group)
{
	const char *path = group + strlen(DISK_GROUP);
	g_autofree char *directory = g_path_get_dirname(path);
	g_autofree char *name = g_path_get_basename(path);
	g_autofree char *own = g_strconcat(DISK_GROUP, name, NULL);

	if (*path != '/')
		return;
	if (is_pool(directory, options->pool_path))
		copy_group(options->config, group, own);
	g_key_file_remove_group(options->config, group, NULL);
}

static bool take_groups(struct mount_options *options, GError **error)
{
	g_auto(GStrv) groups = g_key_file_get_groups(options->config, NULL);

	if (!take_pool(options, "pool", error))
		return false;
	for (char **group = groups; *group; group++) {
		if (g_str_has_prefix(*group, DISK_GROUP))
			take_disk(options, *group);
		if (!g_str_has_prefix(*group, POOL_GROUP) || !is_pool(*group + strlen(POOL_GROUP), options->pool_path))
			continue;
		take_mountpoint(options, *group);
		if (!take_pool(options, *group, error))
			return false;
	}
	return true;
}

/* The default file need not exist; one that was named must. */
bool config_file_load(struct mount_options *options, GError **error)
{
	if (!options->conf && access(OPTION_DEFAULT_CONF, F_OK) != 0)
		return true;
	if (!options->conf)
		options->conf = g_strdup(OPTION_DEFAULT_CONF);
	options->config = config_load(options->conf, error);
	return options->config && check_groups(options->config, options->conf, error) && take_groups(options, error);
}
