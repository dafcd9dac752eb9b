/* What crashes left of successions.
 *
 * A group goes one way: forward when one of it is made or all are ready to be, else back; which of the two is the same
 * however often it is asked, as no mark of a group goes forward before all of it is made. What the store does not
 * tell is asked again with the next look at the pool. Until then none of the images is shown: opened for writing, one
 * that is sealed already would be changed under the disk that stands on it. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "core/error.h"
#include "core/log.h"
#include "core/verdict.h"
#include "layer/parent.h"
#include "owner/succession.h"
#include "removal.h"
#include "succession.h"
#include "succession_left.h"

/* STAGED: what is to be sealed is still as the new leaf was made for it. */
enum progress { NOTHING, STAGED, EXCHANGED, UNTOLD };

static bool fail(GError **error, int result, const char *name)
{
	return error_set_errno(error, -result, "%s: cannot be looked at", name);
}

/* The name of what is to be sealed: a store without links may have had it renamed already. NULL and ERROR. */
static const char *image_of(struct disk_pool *pool, const struct succession *succession, GError **error)
{
	struct stat st;
	int result = place_look_at(pool_place(pool)->fd, succession->from, &st);

	if (result == 0 || result == -ENOENT)
		return result == 0 ? succession->from : succession->sealed;
	fail(error, result, succession->from);
	return NULL;
}

/* A raw image has no generation: whether somebody has claimed it since shows by its record, which was copied for its
 * other name then. */
static enum answer has_same_record(struct disk_pool *pool, const struct succession *succession, GError **error)
{
	const char *path = pool_place(pool)->path;
	g_autofree char *directory = g_build_filename(path, SEALED_DIRECTORY, NULL);
	struct owner_record then = {0}, now = {0};
	enum answer has_then = owner_find(directory, pool_file_name(succession->sealed), &then, error);
	enum answer has_now = has_then == ANSWER_YES ? owner_find(path, succession->from, &now, error) : ANSWER_NO;
	bool same = has_now == ANSWER_YES && then.generation == now.generation &&
		    memcmp(then.nonce, now.nonce, OWNER_ID_BYTES) == 0;

	owner_record_clear(&then);
	owner_record_clear(&now);
	if (has_then == ANSWER_UNKNOWN || has_now == ANSWER_UNKNOWN)
		return ANSWER_UNKNOWN;
	return same ? ANSWER_YES : ANSWER_NO;
}

static enum progress progress_of_staged(struct disk_pool *pool, const struct succession *succession, GError **error)
{
	const char *name = image_of(pool, succession, error);
	g_autofree char *leaf = g_build_filename(pool_place(pool)->path, succession->staged, NULL);
	g_autofree char *path = name ? g_build_filename(pool_place(pool)->path, name, NULL) : NULL;
	struct image_info child = {0}, now = {0};
	const struct image_parent *then = &child.parent;
	g_autoptr(GError) inner = NULL;
	enum progress progress = UNTOLD;

	if (!path || !image_read_info(leaf, IMAGE_FORMAT_LEAF, &child, error))
		return UNTOLD;
	if (image_read_info(path, then->format, &now, &inner)) {
		enum answer same = parent_is_as_expected(then, &now) ? ANSWER_YES : ANSWER_NO;

		if (same == ANSWER_YES && !then->generation && name == succession->from)
			same = has_same_record(pool, succession, error);
		progress = same == ANSWER_UNKNOWN ? UNTOLD : same == ANSWER_YES ? STAGED : NOTHING;
	} else if (error_to_errno(inner) == -ENOENT) {
		progress = NOTHING;
	} else {
		g_propagate_error(error, g_steal_pointer(&inner));
	}
	image_info_clear(&child);
	image_info_clear(&now);
	return progress;
}

/* A store that cannot rename without replacing gave it another name first. */
static bool is_same(const struct stat *a, const struct stat *b)
{
	return a->st_ino == b->st_ino && a->st_dev == b->st_dev;
}

/* All are whole before the first has its name. */
static enum progress progress_of_forks(struct disk_pool *pool, const struct succession *succession, GError **error)
{
	enum progress progress = NOTHING;
	struct stat a, b;

	for (guint i = 0; succession->forks && i < succession->forks->len; i++) {
		const struct succession_fork *fork = succession->forks->pdata[i];
		int staged = place_look_at(pool_place(pool)->fd, fork->staged, &a);
		int shown = place_look_at(pool_place(pool)->fd, fork->to, &b);

		if ((staged < 0 && staged != -ENOENT) || (shown < 0 && shown != -ENOENT)) {
			fail(error, staged == -ENOENT || staged == 0 ? shown : staged, fork->to);
			return UNTOLD;
		}
		if (shown == 0 && (staged == -ENOENT || is_same(&a, &b)))
			progress = EXCHANGED;
	}
	return progress;
}

/* Nobody has the image, nor gets it meanwhile; *HELD is NULL where it is gone. */
static bool hold(struct disk_pool *pool, const struct succession *succession, struct image **held, GError **error)
{
	const char *name = image_of(pool, succession, error);
	g_autofree char *path = name ? g_build_filename(pool_place(pool)->path, name, NULL) : NULL;
	g_autoptr(GError) inner = NULL;

	if (!path)
		return false;
	*held = image_open(path, IMAGE_FORMAT_RAW, IMAGE_WRITABLE | IMAGE_LOCK_ONLY, 0, &inner);
	if (*held || error_class_of(STORE_OPEN, error_to_errno(inner)) == ERROR_ABSENT)
		return true;
	g_propagate_error(error, g_steal_pointer(&inner));
	return false;
}

/* Of one that is not exchanged, whose image is held. */
static enum progress progress_of_held(struct disk_pool *pool, const struct succession *succession, GError **error)
{
	switch (succession_is_leaf(pool, succession, succession->staged, error)) {
	case ANSWER_YES:
		return progress_of_staged(pool, succession, error);
	case ANSWER_NO:
		return NOTHING;
	case ANSWER_UNKNOWN:
		break;
	}
	return UNTOLD;
}

/* What is exchanged is nobody's to hold: who reads the new leaf is not in the way. */
static enum progress progress_of(struct disk_pool *pool, const struct succession *succession, struct image **held,
				 GError **error)
{
	enum progress progress = NOTHING;

	if (succession->removes)
		return EXCHANGED;
	if (succession->beside)
		progress = progress_of_forks(pool, succession, error);
	else
		switch (succession_is_leaf(pool, succession, succession->to, error)) {
		case ANSWER_YES:
			progress = EXCHANGED;
			break;
		case ANSWER_NO:
			break;
		case ANSWER_UNKNOWN:
			progress = UNTOLD;
		}
	if (progress != NOTHING)
		return progress;
	if (!hold(pool, succession, held, error))
		return UNTOLD;
	return succession->beside || succession->reverts ? NOTHING : progress_of_held(pool, succession, error);
}

/* ---- Forward -------------------------------------------------------------------------- */

/* What the owner record of the image that is sealed says holds for its other name, and not what an earlier one of that
 * name left. It is never without one meanwhile: has_same_record() goes by it when this fails. */
static bool copy_record(struct disk_pool *pool, const struct succession *succession, GError **error)
{
	g_autofree char *directory = g_build_filename(pool_place(pool)->path, SEALED_DIRECTORY, NULL);
	const char *name = pool_file_name(succession->sealed);
	struct owner_record record = {0};
	enum answer there = owner_find(pool_place(pool)->path, succession->from, &record, error);
	bool good = false;

	if (there == ANSWER_YES)
		good = owner_write(directory, name, &record, error);
	else if (there == ANSWER_NO)
		good = owner_remove(directory, name, error);
	owner_record_clear(&record);
	return good;
}

static bool link_and_exchange(struct disk_pool *pool, struct succession *succession, GError **error)
{
	switch (succession_is_linked(pool, succession)) {
	case ANSWER_UNKNOWN:
		return fail(error, -EIO, succession->sealed);
	case ANSWER_NO:
		if (!copy_record(pool, succession, error) || !succession_link(pool, succession, error))
			return false;
		break;
	case ANSWER_YES:
		succession->linked = true;
	}
	return succession_exchange(pool, succession, error);
}

static bool make(struct disk_pool *pool, struct succession *succession, GError **error)
{
	const char *name = image_of(pool, succession, error);

	succession->linked = name == succession->from;
	if (!name)
		return false;
	return succession->linked ? link_and_exchange(pool, succession, error)
				  : succession_put_in_place(pool, succession, error);
}

/* The record at the name is of the image before, or the new leaf's, or of one that came later. */
static bool hand_over(struct disk_pool *pool, const struct succession *succession, GError **error)
{
	g_autofree char *path = g_build_filename(pool_place(pool)->path, succession->to, NULL);
	struct image *image = image_open(path, IMAGE_FORMAT_LEAF, IMAGE_NO_LOCK, 0, error);
	bool good = image && owner_hand_over(pool_place(pool)->path, succession->to, &pool->owner, image->claim, error);

	(void)image_close(image);
	return good;
}

/* With another name FROM may be there still, as a second one of what is sealed. */
static bool remove_from(struct disk_pool *pool, const struct succession *succession, GError **error)
{
	enum answer linked = ANSWER_NO;
	int result = 0;

	if (strcmp(succession->from, succession->to) != 0)
		linked = succession_is_linked(pool, succession);
	if (linked == ANSWER_YES)
		result = place_remove(pool_place(pool)->fd, succession->from);
	if (linked == ANSWER_UNKNOWN)
		result = -EIO;
	return result == 0 || error_set_errno(error, -result, "%s: cannot be removed", succession->from);
}

/* What is left at a name that no image has would be said of the next one. */
static bool forget_former(struct disk_pool *pool, const struct succession *succession, GError **error)
{
	struct stat st;

	return strcmp(succession->from, succession->to) == 0 ||
	       place_look_at(pool_place(pool)->fd, succession->from, &st) != -ENOENT ||
	       owner_remove(pool_place(pool)->path, succession->from, error);
}

/* One that a crash has left without its name; others have theirs. */
static bool show_fork(struct disk_pool *pool, const struct succession_fork *fork, GError **error)
{
	int fd = pool_place(pool)->fd, result;
	struct stat staged, shown;

	result = place_look_at(fd, fork->staged, &staged);
	if (result == -ENOENT)
		return true;
	if (result == 0)
		result = place_rename_new(fd, fork->staged, fork->to);
	if (result == -EEXIST && (result = place_look_at(fd, fork->to, &shown)) == 0) {
		if (!is_same(&staged, &shown))
			log_warning("%s: exists meanwhile, so a fork that was to have its name is not made", fork->to);
		result = place_remove(fd, fork->staged);
	}
	return result == 0 || error_set_errno(error, -result, "%s: cannot be made", fork->to);
}

static bool show_forks(struct disk_pool *pool, const struct succession *succession, GError **error)
{
	for (guint i = 0; succession->forks && i < succession->forks->len; i++)
		if (!show_fork(pool, succession->forks->pdata[i], error))
			return false;
	return true;
}

static bool finish(struct disk_pool *pool, struct succession *succession, enum progress progress, GError **error)
{
	int result;

	if (succession->removes)
		return removal_finish(pool, succession, error);
	if (progress != EXCHANGED && !make(pool, succession, error))
		return false;
	if (!succession->beside && (!hand_over(pool, succession, error) || !remove_from(pool, succession, error) ||
				    !forget_former(pool, succession, error)))
		return false;
	if (!show_forks(pool, succession, error))
		return false;
	result = succession_sync(pool);
	if (result < 0)
		return error_set_errno(error, -result, "%s: cannot be flushed", pool_place(pool)->path);
	if (succession->reverts)
		return removal_finish(pool, succession, error);
	if (progress != EXCHANGED)
		log_warning("%s: a snapshot that was interrupted was finished: %s", succession->to, succession->sealed);
	return true;
}

/* ---- Back ------------------------------------------------------------------------------ */

static bool take_back(struct disk_pool *pool, struct succession *succession, GError **error)
{
	struct stat st;
	bool made = place_look_at(pool_place(pool)->fd, succession->staged, &st) == 0;

	succession->exchanged = true;
	if (!succession_undo(pool, succession, error))
		return false;
	if (made)
		log_warning("%s: a snapshot that was interrupted was taken back", succession->from);
	return true;
}

/* ---- A group --------------------------------------------------------------------------- */

/* The marks go when all is made. */
static bool go(struct disk_pool *pool, GPtrArray *group, const enum progress *progress, bool forward, GError **error)
{
	for (guint i = 0; i < group->len; i++) {
		struct succession *succession = group->pdata[i];

		if (forward && progress[i] != NOTHING ? !finish(pool, succession, progress[i], error)
						      : !take_back(pool, succession, error))
			return false;
	}
	for (guint i = 0; i < group->len; i++)
		succession_remove_mark(group->pdata[i]);
	return true;
}

struct group {
	enum progress *progress; /* of each; */
	struct image **held;	 /* and its image, NULL where that is sealed, or gone */
	unsigned exchanged, staged;
};

static void group_clear(struct group *found, guint count)
{
	for (guint i = 0; i < count; i++)
		(void)image_close(found->held[i]);
	g_free(found->held);
	g_free(found->progress);
}

/* False and ERROR: the store does not tell, or another program has one of the images. */
static bool look_at_group(struct disk_pool *pool, GPtrArray *group, struct group *found, GError **error)
{
	for (guint i = 0; i < group->len; i++) {
		found->progress[i] = progress_of(pool, group->pdata[i], &found->held[i], error);
		if (found->progress[i] == UNTOLD)
			return false;
		found->exchanged += found->progress[i] == EXCHANGED;
		found->staged += found->progress[i] == STAGED;
	}
	return true;
}

/* NO and ERROR: all are of another mount that runs, or of another host's, whose next mount does it. UNKNOWN and ERROR:
 * that is so of some, which cannot go without the others. */
static enum answer is_ours(struct disk_pool *pool, const GPtrArray *group, GError **error)
{
	const char *path = pool_place(pool)->path;
	g_autoptr(GError) first = NULL;
	guint others = 0;

	for (guint i = 0; i < group->len; i++) {
		const struct succession *succession = group->pdata[i];
		g_autoptr(GError) inner = NULL;

		if (owner_allows(path, succession->from, &pool->owner, false, &inner) &&
		    owner_allows(path, succession->to, &pool->owner, false, &inner))
			continue;
		others += error_to_errno(inner) == -EBUSY ? 1 : group->len + 1;
		if (!first)
			first = g_steal_pointer(&inner);
	}
	if (!first)
		return ANSWER_YES;
	g_propagate_error(error, g_steal_pointer(&first));
	return others == group->len ? ANSWER_NO : ANSWER_UNKNOWN;
}

static bool is_withheld(const struct disk_pool *pool, const GPtrArray *group)
{
	for (guint i = 0; i < group->len; i++)
		if (g_hash_table_contains(pool->options.withheld, ((const struct succession *)group->pdata[i])->from))
			return true;
	return false;
}

/* MADE: only one of which something is made. NO without ERROR: it is not. */
static enum answer settle_ours(struct disk_pool *pool, GPtrArray *group, bool made, GError **error)
{
	const struct succession *first = group->pdata[0];
	struct group found = {g_new0(enum progress, group->len), g_new0(struct image *, group->len), 0, 0};
	enum answer answer = ANSWER_UNKNOWN;

	if (look_at_group(pool, group, &found, error)) {
		bool forward = found.exchanged > 0 || found.staged == first->parts;

		if (made && found.exchanged == 0)
			answer = ANSWER_NO;
		else if (go(pool, group, found.progress, forward, error))
			answer = ANSWER_YES;
	}
	group_clear(&found, group->len);
	return answer;
}

static enum answer settle(struct disk_pool *pool, GPtrArray *group, bool made, GError **error)
{
	enum answer ours;

	if (is_withheld(pool, group)) {
		error_set(error, EIO, "one before it is not settled");
		return ANSWER_UNKNOWN;
	}
	ours = is_ours(pool, group, error);
	return ours == ANSWER_YES ? settle_ours(pool, group, made, error) : ours;
}

/* But for what is only to be removed: nobody stands on it. */
static void withhold(struct disk_pool *pool, const GPtrArray *group, const GError *why)
{
	const struct succession *first = group->pdata[0];

	if (first->removes) {
		log_warning_limited(first->sealed, "removal", "%s: cannot be removed now: %s", first->sealed,
				    why->message);
		return;
	}
	for (guint i = 0; i < group->len; i++) {
		const struct succession *succession = group->pdata[i];
		const char *const names[] = {succession->from, succession->to};

		for (unsigned j = 0; j < G_N_ELEMENTS(names); j++)
			g_hash_table_insert(pool->options.withheld, g_strdup(names[j]),
					    g_strdup_printf("a snapshot of it that was interrupted cannot be finished "
							    "or taken back now: %s",
							    why->message));
	}
}

static void settle_some(struct disk_pool *pool, bool made)
{
	for (guint i = pool->left->len; i-- > 0;) {
		GPtrArray *group = pool->left->pdata[i];
		g_autoptr(GError) error = NULL;
		enum answer settled = settle(pool, group, made, &error);

		if (settled == ANSWER_UNKNOWN)
			withhold(pool, group, error);
		else if (settled == ANSWER_NO && error)
			log_debug(LOG_DISK, "%s", error->message);
		if (settled == ANSWER_YES || (settled == ANSWER_NO && error))
			g_ptr_array_remove_index(pool->left, i);
	}
}

/* A disk may have two: one that is made, and has no record yet, and one that was begun on it. */
void pool_settle_left_locked(struct disk_pool *pool)
{
	lock_assert_mine(&pool->scanning);
	g_hash_table_remove_all(pool->options.withheld);
	settle_some(pool, true);
	settle_some(pool, false);
}

bool pool_read_left(struct disk_pool *pool, GError **error)
{
	g_autoptr(GHashTable) groups = succession_read_marks(pool, error);
	GHashTableIter iter;
	gpointer group;

	if (!groups)
		return false;
	g_hash_table_iter_init(&iter, groups);
	while (g_hash_table_iter_next(&iter, NULL, &group))
		g_ptr_array_add(pool->left, g_ptr_array_ref(group));
	return true;
}
