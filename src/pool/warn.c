/* What whoever mounts a pool is told at once: all is as the options say, and perhaps not as
 * it was meant. */
#include <sys/stat.h>

#include "cache/cache.h"
#include "core/config.h"
#include "core/log.h"
#include "core/loop.h"
#include "core/time.h"
#include "internal.h"

#define DISK_GROUP "disk "
/* For the records of all disks, one call each. */
#define LOOK_NS NS_PER_S

static void warn_of_no_disk(struct disk_pool *pool, const struct disk_pool_options *options)
{
	g_autofree char *broken = disk_pool_broken(pool);

	if (options->disks)
		log_warning("disks=%s: no disk of the pool %s has such a name; leafctl list %s tells their names",
			    options->disks, disk_pool_path(pool), disk_pool_path(pool));
	else if (*broken)
		log_warning("%s: no disk is shown, as none of its images can be used", disk_pool_path(pool));
	else
		log_warning("%s: no disk is shown, as the pool has no image (NAME.leaf, NAME.raw or NAME.img)",
			    disk_pool_path(pool));
}

static bool is_shown(struct disk_pool *pool, const char *name)
{
	struct disk *disk = disk_pool_find(pool, name);

	disk_unref(disk);
	return disk;
}

static void warn_of_groups(struct disk_pool *pool, const struct disk_pool_options *options)
{
	g_auto(GStrv) groups = options->config ? g_key_file_get_groups(options->config, NULL) : NULL;

	for (char **group = groups; group && *group; group++)
		if (g_str_has_prefix(*group, DISK_GROUP) && !is_shown(pool, *group + strlen(DISK_GROUP)))
			log_warning("[%s]: no disk of that name is shown from %s", *group, disk_pool_path(pool));
}

/* A file grows to its size by and by. */
static void warn_of_room(const struct disk_pool *pool, const char *path, const struct stat *st)
{
	g_autofree char *growth = NULL, *room = NULL;
	uint64_t allocated = (uint64_t)st->st_blocks * 512, free_bytes;
	struct cache_status status;
	struct statvfs fs;

	cache_get_status(pool->pool_cache->cache, &status);
	if (!S_ISREG(st->st_mode) || statvfs(path, &fs) < 0 || status.size_bytes <= allocated)
		return;
	free_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
	if (status.size_bytes - allocated <= free_bytes)
		return;
	growth = config_format_size(status.size_bytes - allocated);
	room = config_format_size(free_bytes);
	log_warning("cache %s: may grow by %s, and its file system has %s free; make room there, or begin a smaller "
		    "one (cache_size=)",
		    path, growth, room);
}

static void warn_of_cache(const struct disk_pool *pool, const char *path)
{
	struct stat st;

	if (place_relative(pool_place(pool), path))
		log_warning("cache %s: is in the pool; it saves nothing there, its place is on fast storage of this "
			    "host",
			    path);
	if (stat(path, &st) == 0)
		warn_of_room(pool, path, &st);
}

/* Each disk is looked at again when it is opened: a slow store does not hold up the mount. */
static void warn_of_changes_elsewhere(GPtrArray *disks)
{
	uint64_t until_ns = loop_now_ns() + LOOK_NS;

	for (guint i = 0; i < disks->len && loop_now_ns() < until_ns; i++) {
		g_autofree char *why = NULL;

		if (disk_look_elsewhere(disks->pdata[i], &why) != ANSWER_NO)
			log_disk(EVENT_WARNING, disk_name(disks->pdata[i]), "%s: %s", disk_name(disks->pdata[i]), why);
	}
}

/* Files of the pool in formats that it does not have. */
static void warn_of_others(struct disk_pool *pool)
{
	g_autofree char *text = disk_pool_foreign(pool);
	g_auto(GStrv) lines = g_strsplit(text, "\n", -1);

	for (char **line = lines; *line; line++)
		if (**line)
			log_warning("%s", *line);
}

void disk_pool_warn(struct disk_pool *pool, const struct disk_pool_options *options)
{
	g_autoptr(GPtrArray) disks = disk_pool_shown(pool);

	if (disks->len == 0)
		warn_of_no_disk(pool, options);
	warn_of_others(pool);
	warn_of_groups(pool, options);
	if (options->cache)
		warn_of_cache(pool, options->cache);
	warn_of_changes_elsewhere(disks);
}
