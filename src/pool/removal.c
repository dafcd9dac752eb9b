/* Sealed images that nobody stands on are removed.
 *
 * A mark (succession_mark.h) says so before anything of one is gone: first what the cache has of it, then the file, its
 * owner record, and what its parent remembers of it. Whoever mounts the pool next finishes it. */
#include "removal.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "children.h"
#include "core/error.h"
#include "core/fault.h"
#include "core/log.h"
#include "core/time.h"
#include "disk/keeper.h"
#include "image/children.h"
#include "layer/key.h"
#include "layer/seal.h"

/* Nor a batch of it is waited for longer. */
#define PATIENCE_NS (10 * NS_PER_S)

/* ---- The end of it ------------------------------------------------------------------ */

static const char *name_of(const struct succession *removal)
{
	return removal->sealed + strlen(SEALED_DIRECTORY "/");
}

static int at_step(const char *step, const struct succession *removal)
{
	return fault_hit(step, name_of(removal));
}

static bool forget_cached(struct disk_pool *pool, const struct succession *removal, GError **error)
{
	struct cache *cache = pool->pool_cache ? pool->pool_cache->cache : NULL;
	int result = at_step("delete.cache", removal);

	if (result == 0 && cache)
		result = cache_layer_forget(cache, removal->identity);
	if (result == 0 && cache)
		result = cache_settle(cache);
	return result == 0 || error_set_errno(error, -result, "%s: the cache cannot forget it now", removal->sealed);
}

static bool has_identity(const struct chain_link *link, const uint8_t identity[CACHE_ID_BYTES])
{
	uint8_t own[CACHE_ID_BYTES];

	layer_identity_of(link, NULL, own);
	return memcmp(own, identity, CACHE_ID_BYTES) == 0;
}

/* What the file with its name is. */
enum found { GONE, THERE, HAS_CHILDREN, UNTOLD };

static enum found found_as(const struct chain_link *link, const struct succession *removal)
{
	if (!has_identity(link, removal->identity))
		return GONE;
	return link->info.children ? HAS_CHILDREN : THERE;
}

static enum found look_at_file(struct disk_pool *pool, const char *path, int fd, const struct succession *removal,
			       GError **error)
{
	g_autoptr(GError) inner = NULL;
	enum image_format format = image_probe_fd(fd, path, &inner);
	struct chain_link *link = inner ? NULL : chain_link_of_file(path, fd, format, pool->roots, &inner);
	enum found found = link ? found_as(link, removal) : UNTOLD;

	chain_link_unref(link);
	if (inner)
		g_propagate_error(error, g_steal_pointer(&inner));
	return found;
}

static enum found look_in(struct disk_pool *pool, int directory, const struct succession *removal, GError **error)
{
	g_autofree char *path = g_build_filename(pool_place(pool)->path, removal->sealed, NULL);
	enum found found = GONE;
	struct stat st;
	int fd = place_find_at(directory, name_of(removal), &st);

	if (fd >= 0 && S_ISREG(st.st_mode))
		found = look_at_file(pool, path, fd, removal, error);
	if (fd >= 0)
		close(fd);
	if (fd >= 0 || fd == -ENOENT || fd == -ELOOP)
		return found;
	error_set_errno(error, -fd, "%s: cannot be looked at", path);
	return UNTOLD;
}

static enum found look(struct disk_pool *pool, const struct succession *removal, GError **error)
{
	int fd = succession_open_sealed(pool, false);
	enum found found = GONE;

	if (fd >= 0) {
		found = look_in(pool, fd, removal, error);
		close(fd);
	} else if (fd != -ENOENT) {
		error_set_errno(error, -fd, "%s: cannot be looked at", removal->sealed);
		found = UNTOLD;
	}
	return found;
}

static bool remove_file(struct disk_pool *pool, const struct succession *removal, GError **error)
{
	int fd = succession_open_sealed(pool, false), result = MIN(fd, 0);

	if (result == 0)
		result = at_step("delete.unlink", removal);
	if (result == 0)
		result = place_remove(fd, name_of(removal));
	if (result == 0 && fsync(fd) < 0)
		result = -errno;
	if (fd >= 0)
		close(fd);
	return result == 0 || error_set_errno(error, -result, "%s: cannot be removed", removal->sealed);
}

/* ---- Whether it may be ---------------------------------------------------------------- */

struct removal {
	struct disk_pool *pool;
	char *path;
	GPtrArray *links;    /* the image, and what it stands on as far as that is found */
	struct disk *keeper; /* NULL: nothing of it is dirty */
	struct image *image; /* locked, where it has no keeper */
	struct succession *mark;
	uint64_t until_ns;
	bool (*go_on)(void *opaque);
	void *opaque;
};

static const struct chain_link *link_of(const struct removal *removal)
{
	return removal->links->pdata[0];
}

static bool find(struct removal *removal, GError **error)
{
	g_autoptr(GError) inner = NULL;
	enum image_format format = image_probe(removal->path, &inner);

	removal->links = chain_links_new();
	if (format != IMAGE_FORMAT_NONE)
		(void)chain_resolve(removal->path, format, removal->pool->roots, NULL, removal->links, &inner);
	if (removal->links->len > 0)
		return true;
	if (!inner)
		error_set(&inner, EINVAL, "%s: is no image", removal->path);
	g_propagate_error(error, g_steal_pointer(&inner));
	return false;
}

/* Those that its image, or its layer, remembers; whether each is there still is not asked: it may be in another pool.
 */
static bool has_no_children(const struct removal *removal, GError **error)
{
	g_autoptr(GError) inner = NULL;
	const char *children = link_of(removal)->info.children;

	if (removal->keeper && seal_has_children(removal->keeper->leaf))
		return error_set(error, EBUSY, "%s: another image stands on it", removal->path);
	if (!children || removal->keeper)
		return true;
	image_children_refuse(removal->path, children, &inner);
	return error_set(error, EBUSY, "%s", inner->message);
}

static bool hold(struct removal *removal, GError **error)
{
	removal->keeper = keeper_find(removal->pool->pool_cache, link_of(removal));
	if (!removal->keeper)
		removal->image =
			image_open(removal->path, IMAGE_FORMAT_RAW, IMAGE_WRITABLE | IMAGE_LOCK_ONLY, 0, error);
	return removal->keeper || removal->image;
}

static bool is_patient(void *opaque)
{
	const struct removal *removal = opaque;

	return loop_now_ns() < removal->until_ns && (!removal->go_on || removal->go_on(removal->opaque));
}

static bool discard(struct removal *removal, GError **error)
{
	if (!removal->keeper || disk_discard(removal->keeper, is_patient, removal))
		return true;
	succession_remove_mark(removal->mark);
	return error_set(
		error, EBUSY,
		"%s: changes are on their way to it, and the store has no answer yet; it is as it was, try again",
		removal->path);
}

/* ---- It goes ---------------------------------------------------------------------------- */

/* What it stands on may be deleted after it, and is told so while its mark stands, as only the image says who that is.
 */
static void leave_parent(const struct removal *removal)
{
	const struct chain_link *parent = removal->links->len > 1 ? removal->links->pdata[1] : NULL;

	if (parent && !parent->outside)
		pool_forget_child(removal->pool, parent, link_of(removal)->info.uuid);
}

/* What of it is not done yet. *FOUND HAS_CHILDREN: it stays. */
static bool finish(const struct removal *removal, enum found *found, GError **error)
{
	struct disk_pool *pool = removal->pool;
	const struct succession *mark = removal->mark;
	g_autofree char *directory = g_build_filename(pool_place(pool)->path, SEALED_DIRECTORY, NULL);

	if (!owner_allows(directory, name_of(mark), &pool->owner, false, error))
		return false;
	*found = look(pool, mark, error);
	if (*found == UNTOLD || *found == HAS_CHILDREN)
		return *found == HAS_CHILDREN;
	if (!forget_cached(pool, mark, error))
		return false;
	if (*found == GONE)
		return true;
	leave_parent(removal);
	return remove_file(pool, mark, error) && owner_remove(directory, name_of(mark), error);
}

/* Between a crash and this somebody may have made an image on it. */
bool removal_finish(struct disk_pool *pool, struct succession *mark, GError **error)
{
	struct removal removal = {
		.pool = pool, .path = g_build_filename(pool_place(pool)->path, mark->sealed, NULL), .mark = mark};
	enum found found = UNTOLD;
	bool good;

	(void)find(&removal, NULL);
	good = finish(&removal, &found, error);
	if (good && found == HAS_CHILDREN)
		log_warning("%s: was to be removed, and stays: an image was made on it meanwhile", mark->sealed);
	g_ptr_array_unref(removal.links);
	g_free(removal.path);
	return good;
}

/* It is to go all the same, with a look at the pool, or with the next mount: nobody is to stand on it any more. */
static void leave(const struct removal *removal)
{
	GPtrArray *group = g_ptr_array_new_with_free_func(succession_free);

	g_ptr_array_add(group, g_memdup2(removal->mark, sizeof(*removal->mark)));
	*removal->mark = (struct succession){0};
	g_ptr_array_add(removal->pool->left, group);
}

bool removal_awaits(const struct disk_pool *pool, const char *name)
{
	for (guint i = 0; i < pool->left->len; i++) {
		const GPtrArray *group = pool->left->pdata[i];
		const struct succession *first = group->pdata[0];

		if (first->removes && strcmp(name_of(first), name) == 0)
			return true;
	}
	return false;
}

bool removal_begin(struct disk_pool *pool, const char *of, const char *name, const uint8_t identity[CACHE_ID_BYTES],
		   struct succession *removal, GError **error)
{
	removal->removes = true;
	removal->from = g_strdup(of);
	removal->to = g_strdup(of);
	removal->sealed = g_build_filename(SEALED_DIRECTORY, name, NULL);
	removal->staged = names_staged();
	removal->group = g_strdup(removal->staged);
	removal->parts = 1;
	memcpy(removal->identity, identity, CACHE_ID_BYTES);
	if (succession_write_mark(pool, removal, error))
		return true;
	succession_clear(removal);
	return false;
}

static bool begin(struct removal *removal, const char *of, const char *name, GError **error)
{
	uint8_t identity[CACHE_ID_BYTES];

	if (removal->mark->mark)
		return true;
	layer_identity_of(link_of(removal), NULL, identity);
	return removal_begin(removal->pool, of, name, identity, removal->mark, error);
}

static bool go(struct removal *removal, GError **error)
{
	g_autoptr(GError) inner = NULL;
	enum found found = UNTOLD;

	if (!discard(removal, error))
		return false;
	if (!finish(removal, &found, &inner)) {
		leave(removal);
		return error_set_errno(error, -error_to_errno(inner), "%s; it is removed when that can be",
				       inner->message);
	}
	succession_remove_mark(removal->mark);
	return found != HAS_CHILDREN ||
	       error_set(error, EBUSY, "%s: another image was made on it meanwhile", removal->path);
}

bool removal_run_locked(struct disk_pool *pool, const char *of, const char *name, struct succession *mark,
			bool (*go_on)(void *opaque), void *opaque, GError **error)
{
	g_autofree char *directory = g_build_filename(pool_place(pool)->path, SEALED_DIRECTORY, NULL);
	struct removal removal = {.pool = pool,
				  .path = g_build_filename(directory, name, NULL),
				  .mark = mark,
				  .until_ns = loop_now_ns() + PATIENCE_NS,
				  .go_on = go_on,
				  .opaque = opaque};
	bool may, good;

	lock_assert_mine(&pool->scanning);
	may = find(&removal, error) && owner_allows(directory, name, &pool->owner, false, error) &&
	      hold(&removal, error) && has_no_children(&removal, error) && begin(&removal, of, name, error);
	good = may && go(&removal, error);
	if (!may)
		succession_remove_mark(mark);
	(void)image_close(removal.image);
	disk_unref(removal.keeper);
	g_ptr_array_unref(removal.links);
	g_free(removal.path);
	return good;
}
