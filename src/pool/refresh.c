/* The disks of a pool, made anew by a look at its directory.
 *
 * What is kept: the disks by shown name, and what was read of the directory so far
 * (struct scan_known). A look at the directory builds the set of disks anew and
 * keeps those objects that are still the same file under the same name; the others
 * live on while somebody holds them. A look is due when the directory's time stamp
 * has moved since one at as much, or was too fresh to tell, or an image that could not
 * be told can be: for that these alone are looked at. */
#include "refresh.h"

#include <errno.h>
#include <string.h>

#include "core/error.h"
#include "core/log.h"
#include "succession_failed.h"
#include "succession_left.h"

static bool is_same_file(const GPtrArray *links, const GPtrArray *others)
{
	const struct chain_link *one = links->pdata[0], *other = others->pdata[0];

	return one->device == other->device && one->inode == other->inode;
}

static struct disk *find_same(struct disk_pool *pool, const struct scan_found *found)
{
	struct disk *disk = g_hash_table_lookup(pool->disks, found->name);
	g_autoptr(GPtrArray) links = NULL;

	if (disk && (disk->unsettled || disk->forked))
		return disk;
	if (!disk || disk->writable != found->writable || (disk->configured_mode != found->mode && !disk->kept) ||
	    g_strcmp0(disk->spelled, found->spelled) != 0)
		return NULL;
	links = disk_get_links(disk);
	return is_same_file(links, found->links) ? disk : NULL;
}

/* Those that a command has given another mode than they were found with. */
static GPtrArray *find_switched(struct disk_pool *pool)
{
	GPtrArray *switched = g_ptr_array_new();
	GHashTableIter iter;
	gpointer value;

	g_hash_table_iter_init(&iter, pool->disks);
	while (g_hash_table_iter_next(&iter, NULL, &value)) {
		const struct disk *disk = value;

		if (disk->mode != disk->configured_mode && !disk->forked)
			g_ptr_array_add(switched, value);
	}
	return switched;
}

/* One that was renamed keeps the mode that it was given. */
static enum disk_mode mode_of(const struct scan_found *found, const GPtrArray *switched)
{
	for (guint i = 0; i < switched->len; i++) {
		struct disk *disk = switched->pdata[i];
		g_autoptr(GPtrArray) links = disk_get_links(disk);

		if (disk->configured_mode == found->mode && is_same_file(links, found->links))
			return disk->mode;
	}
	return found->mode;
}

static struct disk *new_disk(struct disk_pool *pool, const struct scan_found *found, const GPtrArray *switched)
{
	struct disk *disk = disk_new(found->name, found->writable, ++pool->next_id, g_ptr_array_ref(found->links),
				     pool->roots, found->spelled, found->mode, pool->pool_cache);

	disk->leaf->owner = &pool->owner;
	disk->stale_reads = pool->stale_reads;
	disk->mode = mode_of(found, switched);
	return disk;
}

static void take_found(struct disk_pool *pool, GHashTable *disks, struct scan_found *found, const GPtrArray *switched)
{
	struct disk *disk = find_same(pool, found);

	disk = disk ? disk_ref(disk) : new_disk(pool, found, switched);
	if (disk->kept) {
		disk->configured_mode = found->mode;
		disk->kept = false;
	}
	disk->parent = found->parent;
	/* The key is the disk's own, so it goes with the disk. */
	g_hash_table_replace(disks, disk->name, disk);
}

/* Each line once; *KNOWN is what the last scan said. */
static void log_new_lines(struct disk_pool *pool, const char *text, const char *suffix, char **known)
{
	g_auto(GStrv) lines = g_strsplit(text, "\n", -1);

	for (char **line = lines; *line && !pool->quiet; line++)
		if (**line && (!*known || !strstr(*known, *line)))
			log_warning("%s%s", *line, suffix);
	g_free(*known);
	*known = g_strdup(text);
}

static bool stamp(struct disk_pool *pool, struct timespec *mtime, GError **error)
{
	struct stat st;
	int result = place_stat(pool_place(pool), &st);

	if (result < 0)
		return error_set_errno(error, -result, "%s: cannot be looked at", pool_place(pool)->path);
	*mtime = st.st_mtim;
	return true;
}

/* Those of which the directory says nothing: one that waits for its image to have its name again, and what is in
 * the log alone. */
static void keep_others(struct disk_pool *pool, GHashTable *disks)
{
	GHashTableIter iter;
	gpointer name, value;

	g_hash_table_iter_init(&iter, pool->disks);
	while (g_hash_table_iter_next(&iter, &name, &value)) {
		struct disk *disk = value;

		if (disk->forked || (disk->unsettled && !g_hash_table_contains(disks, name)))
			g_hash_table_replace(disks, name, disk_ref(disk));
	}
}

/* What was shown before. */
static GHashTable *exchange(struct disk_pool *pool, struct scan_result *result)
{
	GHashTable *disks = g_hash_table_new_full(g_str_hash, g_str_equal, NULL, (GDestroyNotify)disk_unref), *old;
	g_autoptr(GPtrArray) switched = NULL;

	LOCK_GUARD(&pool->lock);
	scan_settle(result, pool->names);
	switched = find_switched(pool);
	for (guint i = 0; i < result->found->len; i++)
		take_found(pool, disks, result->found->pdata[i], switched);
	keep_others(pool, disks);
	old = pool->disks;
	pool->disks = disks;
	g_free(pool->broken);
	pool->broken = g_strdup(result->broken->str);
	g_free(pool->foreign);
	pool->foreign = g_strdup(result->foreign->str);
	return old;
}

void pool_show_locked(struct disk_pool *pool, struct scan_result *result)
{
	lock_assert_mine(&pool->scanning);
	g_hash_table_destroy(exchange(pool, result));
	log_new_lines(pool, result->broken->str, " (not shown)", &pool->broken_then);
	log_new_lines(pool, result->notes->str, "", &pool->notes);
	scan_result_free(result);
}

static void count_look(struct disk_pool *pool, enum scan_extent extent)
{
	for (unsigned i = 0; i <= extent; i++)
		pool->looks[i]++;
}

static void note_looked(struct disk_pool *pool, enum scan_extent extent, const struct look_time *time)
{
	for (unsigned i = 0; i <= extent; i++)
		pool->looked[i] = *time;
	pool->unchecked = extent == SCAN_NEW ? ++pool->new_looks : 0;
}

bool pool_look_locked(struct disk_pool *pool, enum scan_extent extent, GError **error)
{
	struct scan_result *result = NULL;
	struct look_time time = {.again = true};

	lock_assert_mine(&pool->scanning);
	count_look(pool, extent);
	pool_settle_left_locked(pool);
	pool_take_back_failed_locked(pool);
	if (stamp(pool, &time.mtime, error)) {
		time.again = !chain_time_is_settled(&time.mtime);
		result = scan_look(&pool->options, pool->roots, pool->known, extent, error);
	}
	time.again |= !result;
	note_looked(pool, extent, &time);
	if (result)
		pool_show_locked(pool, result);
	return result;
}

struct scan_result *pool_look_at_locked(struct disk_pool *pool, const char *const *changed)
{
	g_autoptr(GError) error = NULL;
	struct scan_result *result = scan_look_at(&pool->options, pool->roots, pool->known, changed, &error);

	lock_assert_mine(&pool->scanning);
	if (result)
		return result;
	log_warning("%s", error->message);
	for (unsigned i = 0; i < SCAN_EXTENTS; i++)
		pool->looked[i].again = true;
	return NULL;
}

bool pool_look_is_due_locked(struct disk_pool *pool, enum scan_extent extent, GError **error)
{
	const struct look_time *last = &pool->looked[extent];
	struct timespec mtime;

	lock_assert_mine(&pool->scanning);
	count_look(pool, extent);
	if (!stamp(pool, &mtime, error))
		return false;
	return last->again || pool->left->len + pool->failed->len > 0 || mtime.tv_sec != last->mtime.tv_sec ||
	       mtime.tv_nsec != last->mtime.tv_nsec || scan_may_differ(pool->known, pool->roots);
}
