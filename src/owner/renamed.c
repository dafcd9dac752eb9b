/* Images that were renamed by hand, or have two names: their record has the other one.
 *
 * A record with an image's nonce is that image's where it names the same file, under whatever
 * name: another image may have the former one by now; or where the file of its name is gone.
 * Of another file that is there it is that one's, and the image is a copy.
 *
 * One that cannot be read may be the image's where its name is another one of the same file, or
 * nobody's any more: nobody can tell then. That of another file which is there is taken for
 * that one's, which is not opened until it can be read: one damaged record stops no other disk. */
#include "renamed.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "core/error.h"
#include "core/shell.h"
#include "owner/proof.h"

/* UNKNOWN and ERROR: the file of the name BEFORE cannot be looked at. */
static enum answer is_gone(const char *pool, const char *before, struct stat *st, GError **error)
{
	g_autofree char *path = g_build_filename(pool, before, NULL);

	if (lstat(path, st) == 0)
		return ANSWER_NO;
	if (errno == ENOENT)
		return ANSWER_YES;
	error_set_errno(error, errno, "%s: cannot be looked at", path);
	return ANSWER_UNKNOWN;
}

static enum answer is_of(const char *pool, const char *before, const struct owner_record *record,
			 const struct owner_image *image, GError **error)
{
	struct stat st;

	if (memcmp(record->nonce, image->nonce, OWNER_ID_BYTES) != 0)
		return ANSWER_NO;
	if (record->inode && owner_is_file(record, image))
		return ANSWER_YES;
	return is_gone(pool, before, &st, error);
}

/* WHY it cannot be read. */
static enum answer may_be_of(const char *pool, const char *before, const struct owner_image *image, const GError *why,
			     GError **error)
{
	struct stat st;
	enum answer gone = is_gone(pool, before, &st, error);

	if (gone == ANSWER_UNKNOWN || (gone == ANSWER_NO && (!image->inode || st.st_ino != image->inode)))
		return gone;
	g_propagate_error(error, g_error_copy(why));
	return ANSWER_UNKNOWN;
}

static enum answer look(const char *pool, const char *before, const struct owner_image *image,
			struct owner_record *record, GError **error)
{
	g_autoptr(GError) why = NULL;

	if (owner_read(pool, before, record, &why))
		return is_of(pool, before, record, image, error);
	return error_to_errno(why) == -ENOENT ? ANSWER_NO : may_be_of(pool, before, image, why, error);
}

/* The command settles what is no record; for what cannot be read now there is none. */
static void set_doubt(const char *pool, const char *name, const char *before, const GError *why, GError **error)
{
	g_autofree char *pool_word = shell_quote(pool), *name_word = shell_quote(before);

	if (error_to_errno(why) == -EINVAL)
		error_set(error, EBUSY,
			  "%s; so nobody knows whether it is that of %s/%s, which has no other; when no other mount "
			  "has that one: leafctl unlock --force %s %s",
			  why->message, pool, name, pool_word, name_word);
	else
		error_set(error, -error_to_errno(why),
			  "%s; so nobody knows whether it is that of %s/%s, which has no other", why->message, pool,
			  name);
}

static enum answer find_among(const char *pool, const char *name, const GPtrArray *names,
			      const struct owner_image *image, char **before, struct owner_record *record,
			      GError **error)
{
	g_autoptr(GError) doubt = NULL;

	for (guint i = 0; i < names->len; i++) {
		g_autoptr(GError) why = NULL;

		if (look(pool, names->pdata[i], image, record, &why) == ANSWER_YES) {
			*before = g_strdup(names->pdata[i]);
			return ANSWER_YES;
		}
		owner_record_clear(record);
		if (why && !doubt)
			set_doubt(pool, name, names->pdata[i], why, &doubt);
	}
	if (!doubt)
		return ANSWER_NO;
	g_propagate_error(error, g_steal_pointer(&doubt));
	return ANSWER_UNKNOWN;
}

enum answer renamed_find(const char *pool, const char *name, const struct owner_image *image, char **before,
			 struct owner_record *record, GError **error)
{
	g_autoptr(GError) why = NULL;
	g_autoptr(GPtrArray) names = owner_list(pool, &why);

	*record = (struct owner_record){0};
	*before = NULL;
	if (names)
		return find_among(pool, name, names, image, before, record, error);
	if (error_to_errno(why) == -ENOENT)
		return ANSWER_NO;
	g_propagate_error(error, g_steal_pointer(&why));
	return ANSWER_UNKNOWN;
}
