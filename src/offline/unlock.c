/* Owners, without a mount: tools that heed them, and unlock. */
#include "unlock.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/bytes.h"
#include "core/error.h"
#include "core/nearest.h"
#include "core/shell.h"
#include "layer/chain.h"
#include "offline/offline.h"
#include "owner/owner.h"
#include "pool/pool.h"

bool offline_owner_allows(const char *path, bool locked, GError **error)
{
	g_auto(owner_place) place = {0};
	struct owner_self self;
	bool good;

	if (!owner_place_init(&place, path))
		return true;
	owner_self_init(&self, NULL, NULL);
	good = owner_allows(place.pool, place.name, &self, locked, error);
	owner_self_clear(&self);
	return good;
}

bool offline_owner_parent(const char *path, GError **error)
{
	g_autofree char *warning = offline_owner_warning(path);

	return !warning || offline_owner_allows(path, false, error);
}

void offline_owner_explain(const char *path, GError **error)
{
	g_auto(owner_place) place = {0};

	if (owner_place_init(&place, path))
		owner_explain_lock(&place, error);
}

/* NULL: it has none that says so. */
static char *warning_of(const char *path, const struct owner_record *record)
{
	g_autofree char *holder = NULL, *cache = NULL;

	if (record->clean || strcmp(record->mode, "writeback") != 0)
		return NULL;
	holder = owner_describe(record);
	cache = shell_quote(record->cache_path);
	return g_strdup_printf(
		"%s: newer content may be in the cache %s of %s, and is not seen here; a mount of the pool "
		"with that cache, or leafctl cache drain %s, brings it there",
		path, record->cache_path, holder, cache);
}

char *offline_owner_warning(const char *path)
{
	g_auto(owner_place) place = {0};
	struct owner_record record = {0};
	g_autoptr(GError) error = NULL;
	char *warning = NULL;

	if (!owner_place_init(&place, path))
		return NULL;
	switch (owner_find(place.pool, place.name, &record, &error)) {
	case ANSWER_YES:
		warning = warning_of(path, &record);
		break;
	case ANSWER_NO:
		break;
	case ANSWER_UNKNOWN:
		warning = g_strdup_printf("%s: nobody can tell whether a cache has newer content: %s", path,
					  error->message);
	}
	owner_record_clear(&record);
	return warning;
}

/* ---- unlock ---------------------------------------------------------------- */

/* The image that POOL shows as NAME; NULL: none. */
static char *image_shown_as(const char *pool, const char *name)
{
	struct disk_pool_options options = {.path = pool, .read_only = true, .quiet = true};
	struct disk_pool *opened = disk_pool_open(&options, NULL);
	struct disk *disk = opened ? disk_pool_lookup(opened, name, NULL) : NULL;
	char *path = disk ? g_strdup(disk_image_path(disk)) : NULL;

	if (disk)
		disk_unref(disk);
	disk_pool_close(opened);
	return path;
}

static bool has_record(const char *pool, const char *name)
{
	struct owner_record record;
	bool there = owner_find(pool, name, &record, NULL) != ANSWER_NO;

	owner_record_clear(&record);
	return there;
}

/* A record outlives its image, and a broken image is no disk: both are named by
 * the image's file name. */
static bool find_place_in(const char *pool, const char *name, struct owner_place *place)
{
	g_autofree char *file = g_build_filename(pool, name, NULL), *stem = g_strconcat(name, ".img", NULL);
	g_autofree char *image = image_shown_as(pool, name);

	if (!image && access(file, F_OK) < 0)
		image = image_shown_as(pool, stem);
	if (image && owner_place_init(place, image) && has_record(place->pool, place->name))
		return true;
	owner_place_clear(place);
	if (owner_place_init(place, file) && has_record(place->pool, place->name))
		return true;
	if (!image && !place->name && !has_record(pool, name))
		return false;
	owner_place_clear(place);
	if (!image || !owner_place_init(place, image))
		*place = (struct owner_place){.pool = g_strdup(pool), .name = g_strdup(name)};
	return true;
}

static bool find_sealed(const char *pool, const char *name, struct owner_place *place)
{
	g_autofree char *directory = g_build_filename(pool, SEALED_DIRECTORY, NULL),
			*file = g_build_filename(directory, name, NULL);

	if (!g_file_test(directory, G_FILE_TEST_IS_DIR) || (access(file, F_OK) < 0 && !has_record(directory, name)))
		return false;
	*place = (struct owner_place){g_steal_pointer(&directory), g_strdup(name)};
	return true;
}

/* A disk's name is that of its image but for the ending. */
static bool refuse_name(const char *pool, const char *name, GError **error)
{
	bool shown = g_str_has_suffix(name, ".img");
	g_autofree char *stem = g_strndup(name, strlen(name) - (shown ? strlen(".img") : 0));
	g_autofree char *meant = nearest_name_in(pool, stem);

	return error_set(error, ENOENT, "%s: has no disk or image, and no owner record, of the name %s%s%s%s", pool,
			 name, meant ? "; did you mean \"" : "", meant ? meant : "", meant ? "\"?" : "");
}

/* NAME is one of POOL, or of the images that were sealed there, whose directory it may have before it. */
static bool find_place(const char *pool, const char *name, struct owner_place *place, GError **error)
{
	bool sealed = g_str_has_prefix(name, SEALED_DIRECTORY "/");
	const char *last = sealed ? name + strlen(SEALED_DIRECTORY "/") : name;

	if (strchr(last, '/') || last[0] == '.' || last[0] == '\0')
		return error_set(error, EINVAL,
				 "\"%s\" is no name of a disk or an image; expected one like web1.img, web1.leaf "
				 "or " SEALED_DIRECTORY "/web1@monday.leaf",
				 name);
	if (access(pool, X_OK) < 0)
		return error_set_errno(error, errno, "%s: cannot be looked into", pool);
	if ((!sealed && find_place_in(pool, last, place)) || find_sealed(pool, last, place))
		return true;
	return refuse_name(pool, name, error);
}

/* The image, locked, or NULL: it is not there. EBUSY: another has it. */
static struct image *lock_image(const struct owner_place *place, GError **error)
{
	g_autofree char *path = g_build_filename(place->pool, place->name, NULL);

	if (access(path, F_OK) < 0)
		return NULL;
	return image_open(path, IMAGE_FORMAT_RAW, IMAGE_WRITABLE | IMAGE_LOCK_ONLY, 0, error);
}

static bool may_be_freed(const struct owner_place *place, const struct owner_record *record, bool locked,
			 GError **error)
{
	struct owner_self self;
	enum owner_verdict verdict;
	bool good;

	owner_self_init(&self, NULL, NULL);
	verdict = owner_judge(record, &self, locked);
	good = verdict == OWNER_FOREIGN || owner_allows(place->pool, place->name, &self, locked, error);
	owner_self_clear(&self);
	return good;
}

/* What counts time is above what counts opens. */
static uint64_t next_generation(const struct owner_record *record)
{
	return record->host ? record->generation + (record->generation < UINT64_MAX) : (uint64_t)g_get_real_time();
}

/* RECORD is empty where it was damaged. */
static bool write_free(const struct owner_place *place, const struct owner_record *record, GError **error)
{
	struct owner_record next = {
		.generation = next_generation(record),
		.mode = g_strdup("none"),
		.clean = true,
	};
	bool good;

	memcpy(next.ended, buffer_is_zero(record->nonce, OWNER_ID_BYTES) ? record->ended : record->nonce,
	       OWNER_ID_BYTES);
	good = owner_write(place->pool, place->name, &next, error);
	owner_record_clear(&next);
	return good;
}

/* RECORD as it is once nobody else may change it. */
static bool unlock_gently(const struct owner_place *place, struct owner_record *record, GError **error)
{
	g_autoptr(GError) inner = NULL;
	struct image *image = lock_image(place, &inner);
	bool good = false;

	owner_explain_lock(place, &inner);
	if (!inner) {
		owner_record_clear(record);
		(void)owner_read(place->pool, place->name, record, &inner);
	}
	if (!inner)
		good = may_be_freed(place, record, image && image->locked, &inner) && write_free(place, record, &inner);
	(void)image_close(image);
	if (inner)
		g_propagate_error(error, g_steal_pointer(&inner));
	return good;
}

static char *report_of(const struct owner_place *place, const struct owner_record *record, bool there, bool force)
{
	g_autofree char *holder = record->host ? owner_describe(record) : NULL;

	if (!there || record->clean)
		return g_strdup_printf("%s/%s: has no owner; what a cache still has of it is given up, leafctl cache "
				       "dump shows what it holds",
				       place->pool, place->name);
	if (!holder)
		return g_strdup_printf("%s/%s: has no owner now; the record that was there could not be read",
				       place->pool, place->name);
	if (strcmp(record->mode, "writeback") == 0)
		return g_strdup_printf("%s/%s: has no owner now; changes that are only in the cache %s of %s are given "
				       "up, leafctl cache dump shows what it holds",
				       place->pool, place->name, record->cache_path, holder);
	return g_strdup_printf("%s/%s: has no owner now; it was owned by %s%s", place->pool, place->name, holder,
			       force ? ", which may lose what it writes from now on if it still runs" : "");
}

/* RECORD is empty on return where there was none, or a damaged one that FORCE
 * passes over. */
static bool read_for_unlock(const struct owner_place *place, bool force, struct owner_record *record, bool *there,
			    GError **error)
{
	g_autoptr(GError) inner = NULL;

	*there = true;
	if (owner_read(place->pool, place->name, record, &inner))
		return true;
	*there = error_to_errno(inner) != -ENOENT;
	if (!*there || (force && error_to_errno(inner) == -EINVAL))
		return true;
	if (error_to_errno(inner) == -EINVAL)
		return error_set(error, EBUSY, "%s; --force replaces it, and with it what it says of newer changes",
				 inner->message);
	g_propagate_error(error, g_steal_pointer(&inner));
	return false;
}

/* Records are reached without links. */
static char *real_pool(const char *pool, GError **error)
{
	char *real = realpath(pool, NULL);
	char *copy = g_strdup(real);

	if (!real)
		error_set_errno(error, errno, "%s: cannot be looked into", pool);
	free(real);
	return copy;
}

char *offline_unlock(const char *given, const char *name, bool force, GError **error)
{
	g_autofree char *pool = real_pool(given, error);
	g_auto(owner_place) place = {0};
	struct owner_record record = {0};
	char *report = NULL;
	bool there;

	if (!pool || !find_place(pool, name, &place, error) || !read_for_unlock(&place, force, &record, &there, error))
		return NULL;
	if ((!there || record.clean) && !force)
		report = g_strdup_printf("%s/%s: has no owner", place.pool, place.name);
	else if (force ? write_free(&place, &record, error) : unlock_gently(&place, &record, error))
		report = report_of(&place, &record, there, force);
	owner_record_clear(&record);
	return report;
}
