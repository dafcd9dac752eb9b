/* The keys of leafdisk's own options.
 *
 * What can be changed while a pool is in use is the pool's to name and to
 * limit: its table is taken over, with offsets into struct mount_options. */
#include "options.h"

#include <stddef.h>
#include <string.h>

#include "core/log.h"
#include "pool/pool.h"

#define CACHE_SIZE_MIN (8 << 20)
#define ID_MAX (UINT64_C(0xffffffff) - 1)

#define KEY(name, type, field) name, type, offsetof(struct mount_options, field)

/* Before and after the tunables. */
static const struct config_key first_keys[] = {
	{KEY("mode", CONFIG_STRING, mode), 0, 0, disk_mode_names,
	 "where writes go (default: persistent with cache=, direct without)"},
	{KEY("cache", CONFIG_STRING, cache), 0, 0, NULL, "file or block device on fast local storage"},
	{KEY("cache_size", CONFIG_SIZE, cache_size), CACHE_SIZE_MIN, 0, NULL,
	 "of a new cache file, or what an old one grows to (default 10G for a new one)"},
	{0},
};

static const struct config_key last_keys[] = {
	{KEY("drain", CONFIG_BOOL, drain), 0, 0, NULL, "at the unmount what is dirty is written back (default)"},
	{KEY("conf", CONFIG_STRING, conf), 0, 0, NULL,
	 "configuration file (default " OPTION_DEFAULT_CONF ", if it exists)"},
	{KEY("layers", CONFIG_STRING, layers), 0, 0, NULL, "DIR[:DIR]: where parents may be, besides the pool"},
	{KEY("disks", CONFIG_STRING, disks), 0, 0, NULL, "glob on the shown names (default: all)"},
	{KEY("ro", CONFIG_BOOL, read_only), 0, 0, NULL, "every disk is read-only"},
	{KEY("stale_reads", CONFIG_BOOL, stale_reads), 0, 0, NULL,
	 "disks whose newest changes are elsewhere can be read, as they were before"},
	{KEY("manage", CONFIG_BOOL, manage), 0, 0, NULL, "disks can be made, renamed and removed"},
	{KEY("allow_other", CONFIG_BOOL, allow_other), 0, 0, NULL, "other users too, as far as the modes allow"},
	{KEY("uid", CONFIG_USER, uid), 0, ID_MAX, NULL, "owner of the files (default: the pool's)"},
	{KEY("gid", CONFIG_GROUP, gid), 0, ID_MAX, NULL, "group of the files (default: the pool's)"},
	{KEY("umask", CONFIG_OCTAL, umask), 0, 0777, NULL,
	 "modes are 666 (disks) and 777 (top) without these bits (default: 600 and the pool's)"},
	{KEY("threads", CONFIG_UINT, threads), 1, 16, NULL, "loops that serve the mount (default 1)"},
	{KEY("queue_depth", CONFIG_UINT, queue_depth), 1, 1024, NULL, "requests in work, for each loop (default 128)"},
	{KEY("io_timeout", CONFIG_SECONDS, io_timeout), 1, 86400, NULL,
	 "how long a transient error is retried (default 2m)"},
	{KEY("grow_command", CONFIG_STRING, grow_command), 0, 0, NULL,
	 "program and arguments, run when a leaf's block device is full"},
	{KEY("max_read", CONFIG_UINT, max_read), 4096, 1 << 20, NULL, "longest read that the kernel asks for, bytes"},
	{KEY("debug", CONFIG_STRING, debug), 0, 0, NULL,
	 "MODULE[=2][:...]: debug messages, 2: of each request too; modules: " LOG_MODULE_WORDS "all"},
	{0},
};

static bool is_among(const struct config_key *key, const struct config_key *keys)
{
	while (keys->name && strcmp(keys->name, key->name) != 0)
		keys++;
	return keys->name;
}

bool mount_option_is_of_cache(const struct config_key *key)
{
	return strcmp(key->name, "cache_size") == 0 || is_among(key, disk_tunable_keys);
}

static void add_keys(GArray *all, const struct config_key *keys, size_t base)
{
	for (; keys->name; keys++) {
		struct config_key key = *keys;

		key.offset += base;
		g_array_append_val(all, key);
	}
}

const struct config_key *mount_option_keys(void)
{
	static const struct config_key *keys;

	if (g_once_init_enter(&keys)) {
		GArray *all = g_array_new(TRUE, FALSE, sizeof(*keys));

		add_keys(all, first_keys, 0);
		add_keys(all, disk_tunable_keys, offsetof(struct mount_options, tunables));
		add_keys(all, last_keys, 0);
		g_once_init_leave(&keys, (const struct config_key *)(void *)g_array_free(all, FALSE));
	}
	return keys;
}
