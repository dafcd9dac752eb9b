/* Drains of all disks of a pool.
 *
 * What is dirty belongs to disks that are open, or to images that nobody has
 * opened since the mount began: those are opened for it. What a store may delay is asked on
 * threads of its own (resume.c): one that hangs keeps no other disk from being written back, nor
 * whoever waits from giving up. */
#include <errno.h>
#include <sys/stat.h>

#include "cache/layer.h"
#include "core/error.h"
#include "core/log.h"
#include "core/time.h"
#include "image/image.h"
#include "dirty.h"
#include "internal.h"
#include "layer/layer.h"
#include "migrate/migrator.h"

/* How often who waits is asked whether to go on. */
#define ASK_NS (100 * NS_PER_MS)

/* Whether an image is no file any more. */
struct finding {
	_Atomic enum answer lost;
};

/* A disk. */
struct part {
	struct disk *disk; /* the list's */
	enum {
		PART_OPEN,   /* or clean */
		PART_LEFT,   /* an earlier mount's changes: it is to be opened */
		PART_UNSEEN, /* the pool shows it no more: whether its image is there is to be found */
	} kind;
	bool begun;		 /* that */
	struct layer *urged;	 /* its leaf then; NULL: it is not */
	struct finding *finding; /* NULL: it is not UNSEEN */
};

struct drain_all {
	struct disk_pool *pool;
	bool (*go_on)(void *opaque, uint64_t dirty_bytes);
	void *opaque;
	GPtrArray *disks;
	struct part *parts; /* of each of these */
	GPtrArray *refused; /* struct refusal */
	GString *left;	    /* sentences */
	uint64_t left_bytes;
	bool given_up;
};

static uint64_t dirty_bytes_of(struct disk *disk)
{
	struct disk_status status;

	disk_get_status(disk, &status);
	return status.dirty_bytes;
}

static bool is_lost(const struct part *part)
{
	return part->finding && part->finding->lost == ANSWER_YES;
}

static uint64_t dirty_bytes_of_all(const struct drain_all *all)
{
	uint64_t bytes = 0;

	for (guint i = 0; i < all->disks->len; i++)
		bytes += is_lost(&all->parts[i]) ? 0 : dirty_bytes_of(all->disks->pdata[i]);
	return bytes;
}

/* All at once; those that are opened or closed meanwhile too. What is written to a file without a
 * name is gone with it: it is not hurried there. */
static void urge_found(struct drain_all *all)
{
	for (guint i = 0; i < all->disks->len; i++) {
		struct part *part = &all->parts[i];

		if (part->urged || (part->finding && part->finding->lost != ANSWER_NO))
			continue;
		part->urged = disk_hold_leaf(part->disk);
		backlog_urge(part->urged, 1);
	}
}

static void end_urging(struct drain_all *all)
{
	for (guint i = 0; i < all->disks->len; i++) {
		struct layer *leaf = all->parts[i].urged;

		if (!leaf)
			continue;
		backlog_urge(leaf, -1);
		layer_unref(leaf);
	}
}

static bool go_on_with_all(void *opaque, uint64_t dirty_bytes)
{
	struct drain_all *all = opaque;

	(void)dirty_bytes;
	urge_found(all);
	all->given_up = all->go_on && !all->go_on(all->opaque, dirty_bytes_of_all(all));
	return !all->given_up;
}

static void note_left(struct drain_all *all, uint64_t bytes, const char *sentence)
{
	g_string_append_printf(all->left, "%s%s", all->left->len ? "; " : "", sentence);
	all->left_bytes += bytes;
}

static void note_nameless(void *opaque, const struct cache_layer_dirty *dirty)
{
	struct drain_all *all = opaque;
	g_autofree char *sentence = pool_nameless_text(all->pool, dirty);

	if (!pool_find_dirty(all->disks, dirty))
		note_left(all, dirty->dirty_blocks << BLOCK_SHIFT, sentence);
}

/* A copy of an image is refused until what is dirty of that one is in the pool. */
struct refusal {
	struct disk *disk;
	GError *error;
};

static void refusal_free(void *opaque)
{
	struct refusal *refusal = opaque;

	g_error_free(refusal->error);
	g_free(refusal);
}

static void note_refused(struct drain_all *all, struct disk *disk, GError *error)
{
	struct refusal *refusal = g_new(struct refusal, 1);

	*refusal = (struct refusal){disk, error};
	g_ptr_array_add(all->refused, refusal);
}

static void note_those_left(struct drain_all *all)
{
	for (guint i = 0; i < all->refused->len; i++) {
		const struct refusal *refusal = all->refused->pdata[i];
		g_autoptr(layer_held) leaf = disk_hold_leaf(refusal->disk);
		uint64_t bytes = dirty_bytes_of(refusal->disk);

		if (bytes > 0 || layer_state_is_final(backlog_get_state(leaf)))
			note_left(all, bytes, refusal->error->message);
	}
}

static bool is_needed(struct disk *disk)
{
	g_autoptr(layer_held) leaf = disk_hold_leaf(disk);

	return backlog_is_needed(leaf);
}

/* ---- What a store tells ------------------------------------------------------ */

static enum answer has_lost_its_image(struct disk *disk)
{
	struct stat st;

	LOCK_GUARD(&disk->open_lock);
	if (!disk->leaf->image)
		return ANSWER_NO;
	if (image_stat(disk->leaf->image, &st) < 0)
		return ANSWER_UNKNOWN;
	return st.st_nlink == 0 ? ANSWER_YES : ANSWER_NO;
}

static void find_image(struct disk *disk, void *opaque)
{
	struct finding *finding = opaque;

	finding->lost = has_lost_its_image(disk);
	g_atomic_rc_box_release(finding);
}

static bool begin_finding(struct disk_pool *pool, struct part *part)
{
	bool begun = pool_try(pool, part->disk, true, find_image, g_atomic_rc_box_acquire(part->finding));

	if (!begun)
		g_atomic_rc_box_release(part->finding);
	return begun;
}

/* Another try to open it that is under way tells as well. */
static bool begin_opening(struct disk_pool *pool, struct part *part)
{
	return pool_try_left(pool, part->disk, true) || !pool_await_try(pool, part->disk, 0);
}

static void begin(struct disk_pool *pool, struct part *part)
{
	part->begun = part->kind == PART_LEFT ? begin_opening(pool, part) : begin_finding(pool, part);
}

/* Waits for a moment. */
static bool is_told(struct disk_pool *pool, struct part *part)
{
	if (part->kind == PART_OPEN)
		return true;
	if (!part->begun || !pool_await_try(pool, part->disk, loop_now_ns() + ASK_NS))
		return false;
	part->begun = part->kind == PART_LEFT || part->finding->lost != ANSWER_UNKNOWN;
	return part->begun;
}

/* False: given up. */
static bool await_part(struct drain_all *all, struct part *part)
{
	while (!is_told(all->pool, part)) {
		if (!part->begun)
			begin(all->pool, part);
		if (!part->begun)
			g_usleep(ASK_NS / NS_PER_US);
		if (!go_on_with_all(all, 0))
			return false;
	}
	return true;
}

static void find_left(void *opaque, const struct cache_layer_dirty *dirty)
{
	struct drain_all *all = opaque;
	struct disk *disk = pool_find_dirty(all->disks, dirty);
	guint number;

	if (disk && !disk->open && g_ptr_array_find(all->disks, disk, &number))
		all->parts[number].kind = PART_LEFT;
}

static void find_unseen(struct drain_all *all)
{
	for (guint i = 0; i < all->disks->len; i++) {
		struct part *part = &all->parts[i];

		if (part->kind == PART_LEFT || disk_pool_shows(all->pool, part->disk) || !is_needed(part->disk))
			continue;
		part->kind = PART_UNSEEN;
		part->finding = g_atomic_rc_box_new0(struct finding);
		part->finding->lost = ANSWER_UNKNOWN;
	}
}

static void begin_each(struct drain_all *all)
{
	for (guint i = 0; i < all->disks->len; i++)
		all->parts[i].disk = all->disks->pdata[i];
	cache_layer_foreach_dirty(all->pool->pool_cache->cache, false, find_left, all);
	find_unseen(all);
	urge_found(all);
	for (guint i = 0; i < all->disks->len; i++)
		if (all->parts[i].kind != PART_OPEN)
			begin(all->pool, &all->parts[i]);
}

/* ---- Each of them -------------------------------------------------------------- */

static int drain_part(struct drain_all *all, struct part *part, GError **error)
{
	g_autofree char *left = part->kind == PART_LEFT ? disk_get_left(part->disk) : NULL;

	if (left && !part->disk->open)
		return error_set(error, EIO, "%s", left), -EIO;
	return disk_drain_open(part->disk, go_on_with_all, all, error);
}

static void note_given_up(struct drain_all *all, const struct part *part)
{
	uint64_t bytes = dirty_bytes_of(part->disk);

	if (bytes > 0 || is_needed(part->disk))
		note_left(all, bytes, part->disk->name);
}

static void note_lost(struct drain_all *all, const struct part *part)
{
	g_autofree char *sentence = g_strdup_printf(
		"%s: was removed, or another file put in its place, while it was open", disk_image_path(part->disk));

	note_left(all, dirty_bytes_of(part->disk), sentence);
}

/* The pool has all of a disk that was renamed or removed meanwhile through the mount. */
static void drain_or_refuse(struct drain_all *all, struct part *part)
{
	g_autoptr(GError) error = NULL;

	if (drain_part(all, part, &error) == 0)
		return;
	if (all->given_up)
		note_given_up(all, part);
	else if (disk_pool_shows(all->pool, part->disk) || is_needed(part->disk))
		note_refused(all, part->disk, g_steal_pointer(&error));
}

static void drain_or_note(struct drain_all *all, struct part *part)
{
	if (all->given_up || !await_part(all, part))
		note_given_up(all, part);
	else if (is_lost(part))
		note_lost(all, part);
	else
		drain_or_refuse(all, part);
}

static void drain_each(struct drain_all *all)
{
	begin_each(all);
	for (guint i = 0; i < all->disks->len; i++)
		drain_or_note(all, &all->parts[i]);
	end_urging(all);
	for (guint i = 0; i < all->disks->len; i++)
		g_clear_pointer(&all->parts[i].finding, g_atomic_rc_box_release);
}

static GPtrArray *dirty_disks(struct disk_pool *pool)
{
	if (pool->pool_cache)
		pool_keep_sealed(pool);
	return disk_pool_dirty(pool);
}

bool disk_pool_drain(struct disk_pool *pool, bool (*go_on)(void *opaque, uint64_t dirty_bytes), void *opaque,
		     GError **error)
{
	g_autoptr(GPtrArray) disks = dirty_disks(pool);
	struct pool_cache *pool_cache = pool->pool_cache;
	g_autoptr(GString) left = g_string_new(NULL);
	g_autofree char *size = NULL;
	g_autoptr(GPtrArray) refused = g_ptr_array_new_with_free_func(refusal_free);
	g_autofree struct part *parts = g_new0(struct part, disks->len);
	struct drain_all all = {
		.pool = pool,
		.go_on = go_on,
		.opaque = opaque,
		.disks = disks,
		.parts = parts,
		.refused = refused,
		.left = left,
	};

	if (!pool_cache)
		return true;
	drain_each(&all);
	note_those_left(&all);
	cache_layer_foreach_dirty(pool_cache->cache, false, note_nameless, &all);
	if (left->len == 0)
		return true;
	size = config_format_size(all.left_bytes);
	return error_set(error, all.given_up ? EINTR : EIO, "%s of changes stay in the cache%s: %s", size,
			 disk_pool_cache_is_removed(pool) ? ", whose file was removed, and end with this mount" : "",
			 left->str);
}

/* ---- The end of a mount ------------------------------------------------------------ */

void disk_pool_end(struct disk_pool *pool)
{
	struct pool_cache *pool_cache = pool->pool_cache;

	if (!pool_cache)
		return;
	pool_cache->ending = true;
	migrator_look_again(pool_cache);
}
