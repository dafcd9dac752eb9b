/* Renaming and removing images that have owner records.
 *
 * While the file is moved the record stands under both names, so that a crash
 * leaves no image without the record it had. What a crash leaves besides, the
 * record of a name that is gone, says of the next image of that name what was
 * true of the last. */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "core/error.h"
#include "core/log.h"
#include "owner/owner.h"

static void clear(struct owner_move *move)
{
	owner_place_clear(&move->from);
	owner_place_clear(&move->to);
	owner_record_clear(&move->replaced);
}

/* A link is moved alone: the record lies beside the image. */
static void find_places(struct owner_move *move, const char *old, const char *file)
{
	struct stat st;

	*move = (struct owner_move){0};
	move->moves = lstat(old, &st) == 0 && S_ISREG(st.st_mode) && g_strcmp0(old, file) != 0;
	if (move->moves)
		move->from = (owner_place){g_path_get_dirname(old), g_path_get_basename(old)};
	if (move->moves && file)
		move->to = (owner_place){g_path_get_dirname(file), g_path_get_basename(file)};
}

/* False: nobody can tell whether there is one. */
static bool find_record(const owner_place *place, struct owner_record *record, bool *found, GError **error)
{
	enum answer answer = owner_find(place->pool, place->name, record, error);

	*found = answer == ANSWER_YES;
	return answer != ANSWER_UNKNOWN;
}

static bool copy_record(struct owner_move *move, GError **error)
{
	struct owner_record record = {0};
	bool good = find_record(&move->from, &record, &move->has_record, error);

	if (good && move->to.name)
		good = find_record(&move->to, &move->replaced, &move->has_replaced, error);
	if (good && move->has_record && move->to.name) {
		record.generation = MAX(record.generation, move->replaced.generation);
		good = owner_write(move->to.pool, move->to.name, &record, error);
	}
	owner_record_clear(&record);
	return good;
}

static bool gives_way(const owner_place *place, const struct owner_self *self, GError **error)
{
	return !place->name || owner_allows(place->pool, place->name, self, false, error);
}

bool owner_move_begin(struct owner_move *move, const struct owner_self *self, const char *old, const char *file,
		      GError **error)
{
	find_places(move, old, file);
	if (!move->moves ||
	    (gives_way(&move->from, self, error) && gives_way(&move->to, self, error) && copy_record(move, error)))
		return true;
	clear(move);
	return false;
}

static bool put_back(struct owner_move *move, GError **error)
{
	if (!move->to.name || !move->has_record)
		return true;
	if (move->has_replaced)
		return owner_write(move->to.pool, move->to.name, &move->replaced, error);
	return owner_remove(move->to.pool, move->to.name, error);
}

/* Without a record to follow it, the new name has none. */
static bool finish(struct owner_move *move, GError **error)
{
	const owner_place *gone = move->has_record || !move->to.name ? &move->from : &move->to;

	return owner_remove(gone->pool, gone->name, error);
}

void owner_move_end(struct owner_move *move, bool moved)
{
	g_autoptr(GError) error = NULL;

	if (move->moves && !(moved ? finish(move, &error) : put_back(move, &error)))
		log_warning("%s", error->message);
	clear(move);
}
