/* Layers and owner records: where the record of an image is, and when it is claimed and
 * released. */
#include "layer/claim.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "core/bytes.h"
#include "core/error.h"
#include "core/log.h"
#include "core/shell.h"
#include "owner/newer.h"
#include "owner/proof.h"
#include "owner/succession.h"

/* As the image was found: who asks its name again asks what somebody may have put
 * there since. A device is no file of a pool: its record has the disk's name. */
static bool find_place(const struct layer *layer, const struct chain_link *link, struct owner_place *place)
{
	*place = (struct owner_place){0};
	if (!link->block_device)
		*place = (struct owner_place){g_path_get_dirname(link->real), g_path_get_basename(link->real)};
	else if (layer->owner)
		*place = (struct owner_place){g_strdup(chain_roots_pool(layer->roots)->path),
					      g_strconcat(layer->name, "@device", NULL)};
	return place->name;
}

bool claim_allows(const struct layer *layer, GError **error)
{
	g_auto(owner_place) place = {0};

	return !layer->owner || !find_place(layer, layer->link, &place) ||
	       owner_allows(place.pool, place.name, layer->owner, true, error);
}

enum answer claim_has_newer(const struct layer *layer, const struct chain_link *link, GError **why)
{
	g_auto(owner_place) place = {0};

	return layer->owner && find_place(layer, link, &place)
		       ? owner_has_newer(place.pool, place.name, layer->owner, why)
		       : ANSWER_NO;
}

static struct owner_image image_as_told(const struct layer *layer, const struct image *image)
{
	struct owner_image found = {.has_nonce = image->has_claim,
				    .progress = image->progress,
				    .unmarked = !image->marked,
				    .inode = layer->link->block_device ? 0 : image->inode,
				    .born_ns = image->born_ns};

	memcpy(found.nonce, image->claim, OWNER_ID_BYTES);
	return found;
}

struct owner_image claim_image(const struct layer *layer)
{
	return image_as_told(layer, layer->image);
}

enum answer claim_has_newer_as(const struct layer *layer, const struct image *image, GError **why)
{
	struct owner_image told = image_as_told(layer, image);
	g_auto(owner_place) place = {0};

	return layer->owner && find_place(layer, layer->link, &place)
		       ? owner_has_newer_as(place.pool, place.name, layer->owner, &told, why)
		       : ANSWER_NO;
}

static struct owner_want want_of(const struct layer *layer)
{
	return (struct owner_want){
		.image_generation = layer->image->generation,
		.image = claim_image(layer),
		.nonce = layer->image->begun ? layer->image->claim : NULL,
		.locked = layer->image->locked,
	};
}

bool claim_look(struct layer *layer, bool (*look)(void *opaque, const struct owner_last *last, GError **error),
		GError **error)
{
	struct owner_want want = want_of(layer);
	g_auto(owner_place) place = {0};

	if (!layer->owner)
		return true;
	if (!find_place(layer, layer->link, &place))
		return error_set_errno(error, errno, "%s: cannot be found", layer->link->path);
	return owner_look(place.pool, place.name, layer->owner, &want, look, layer, error);
}

void claim_remove_mark(const char *mark)
{
	if (mark && unlink(mark) < 0 && errno != ENOENT)
		log_warning("%s: cannot be removed: %s", mark, g_strerror(errno));
}

static const char *mode_of(const struct layer *layer)
{
	if (layer->share == SHARE_DIRTY)
		return "writeback";
	return layer->share == SHARE_MIRRORED ? "persistent" : "direct";
}

void claim_forget(struct layer *layer)
{
	if (!layer->succession)
		return;
	g_free(layer->succession->mark);
	g_free(layer->succession->former);
	g_clear_pointer(&layer->succession, g_free);
}

void claim_settle(struct layer *layer)
{
	if (layer->succession)
		claim_remove_mark(layer->succession->mark);
	claim_forget(layer);
}

/* What is left of it would be said of the next image of that name. */
static void forget_former(const struct layer_succession *succession)
{
	g_autofree char *pool = NULL, *name = NULL;
	g_autoptr(GError) error = NULL;

	if (!succession->former)
		return;
	pool = g_path_get_dirname(succession->former);
	name = g_path_get_basename(succession->former);
	if (!owner_forget(pool, name, succession->nonce, &error))
		log_warning("%s", error->message);
}

/* Of a leaf that was closed meanwhile, whose image knows its claim. */
static void renew_claim(struct layer *layer)
{
	layer->claim.generation = MAX(layer->succession->before, layer->image->generation) + 1;
	memcpy(layer->claim.nonce, layer->image->claim, OWNER_ID_BYTES);
}

/* LAYER's claim is in the owner record. */
static enum answer write_record(struct layer *layer, bool clean, GError **why)
{
	struct owner_want want = want_of(layer);
	g_auto(owner_place) place = {0};

	want.mode = mode_of(layer);
	if (!layer->owner || !find_place(layer, layer->link, &place))
		return ANSWER_YES;
	return owner_succeed(place.pool, place.name, layer->owner, &want, layer->succession->before, &layer->claim,
			     clean, why);
}

enum answer claim_record(struct layer *layer, bool clean, GError **why)
{
	enum answer recorded;

	if (!layer->succession)
		return ANSWER_YES;
	if (layer->claim.generation == 0)
		renew_claim(layer);
	recorded = write_record(layer, clean, why);
	if (recorded != ANSWER_YES)
		return recorded;
	forget_former(layer->succession);
	claim_settle(layer);
	return ANSWER_YES;
}

bool claim_forget_former(const struct layer *layer, GError **error)
{
	g_auto(owner_place) place = {0};

	return !find_place(layer, layer->link, &place) ||
	       (owner_allows(place.pool, place.name, layer->owner, true, error) &&
		owner_remove(place.pool, place.name, error));
}

bool claim_announce(struct layer *layer, GError **error)
{
	enum answer recorded = write_record(layer, false, error);

	if (recorded == ANSWER_NO)
		error_set(error, EBUSY, "%s: another owner has claimed the name meanwhile", layer->link->path);
	return recorded == ANSWER_YES;
}

bool claim_copy(const struct layer *layer, const char *path, GError **error)
{
	g_autofree char *directory = g_path_get_dirname(path), *name = g_path_get_basename(path);
	struct owner_want want = want_of(layer);
	struct owner_claim claim = layer->claim;
	struct owner_record record = {0};
	enum answer there;
	bool good;

	want.mode = mode_of(layer);
	if (!layer->owner)
		return true;
	there = layer->succession ? ANSWER_NO : claim_read(layer, &record, error);
	good = there != ANSWER_UNKNOWN && owner_remove(directory, name, error);
	if (good && layer->succession)
		good = owner_succeed(directory, name, layer->owner, &want, 0, &claim, false, error) == ANSWER_YES;
	else if (good && there == ANSWER_YES)
		good = owner_write(directory, name, &record, error);
	owner_record_clear(&record);
	return good;
}

static bool succeed(struct layer *layer, GError **error)
{
	enum answer recorded = claim_record(layer, false, error);

	if (recorded == ANSWER_NO)
		error_set(error, EBUSY, "%s: was taken over by another owner meanwhile", layer->link->path);
	return recorded == ANSWER_YES;
}

bool claim_take(struct layer *layer, const char *mode,
		bool (*prepare)(void *opaque, const struct owner_last *last, struct owner_claim *claim, GError **error),
		GError **error)
{
	struct owner_want want = want_of(layer);
	g_auto(owner_place) place = {0};

	want.mode = mode;
	want.prepare = prepare;
	want.opaque = layer;

	if (!layer->owner)
		return true;
	if (!find_place(layer, layer->link, &place))
		return error_set_errno(error, errno, "%s: cannot be found", layer->link->path);
	if (!succeed(layer, error))
		return false;
	return owner_claim(place.pool, place.name, layer->owner, &want, &layer->claim, error);
}

/* RECORD is of a claim of that very image, or of the one before, which a command has ended. */
static bool knows(const struct owner_record *record, const struct owner_image *image)
{
	return memcmp(record->nonce, image->nonce, OWNER_ID_BYTES) == 0 ||
	       memcmp(record->ended, image->nonce, OWNER_ID_BYTES) == 0 ||
	       (record->inode && owner_is_file(record, image));
}

struct identity_look {
	const struct layer *layer;
	bool stays;
};

/* What a cache has of an image that took none when it was claimed is known by other means. */
static bool keeps_identity(const struct owner_record *record, const struct layer *layer)
{
	struct owner_image image = claim_image(layer);

	return knows(record, &image) &&
	       (!buffer_is_zero(layer->image->identity, IMAGE_UUID_BYTES) || (record->unmarked && !record->clean));
}

static bool look_for_identity(void *opaque, const struct owner_last *last, GError **error)
{
	struct identity_look *look = opaque;

	(void)error;
	look->stays = last->record && keeps_identity(last->record, look->layer);
	return true;
}

/* The copy of an image has no record that knows it. Of one that is another's, or where nobody
 * can tell, it stays as it is: with another identity what a cache has of it would be no
 * image's. */
static bool needs_identity(const struct layer *layer)
{
	struct identity_look look = {.layer = layer};
	struct owner_want want = want_of(layer);
	g_auto(owner_place) place = {0};
	g_autoptr(GError) why = NULL;

	if (!find_place(layer, layer->link, &place) ||
	    !owner_look(place.pool, place.name, layer->owner, &want, look_for_identity, &look, &why))
		return false;
	return !look.stays;
}

bool claim_identify(struct layer *layer)
{
	struct image *image = layer->image;

	if (!layer->owner || !layer->pool_cache || image->begun || !image_can_be_identified(image) ||
	    !needs_identity(layer))
		return false;
	return image_identify(image);
}

enum answer claim_check(struct layer *layer, GError **why)
{
	g_auto(owner_place) place = {0};

	if (layer->succession)
		return claim_record(layer, false, why);
	if (!layer->owner || !layer->claim.generation || !find_place(layer, layer->link, &place))
		return ANSWER_YES;
	return owner_check(place.pool, place.name, layer->owner, layer->claim.generation, why);
}

enum answer claim_read(const struct layer *layer, struct owner_record *record, GError **error)
{
	g_auto(owner_place) place = {0};

	*record = (struct owner_record){0};
	return find_place(layer, layer->link, &place) ? owner_find(place.pool, place.name, record, error) : ANSWER_NO;
}

bool claim_release(struct layer *layer)
{
	enum answer released = ANSWER_YES;
	g_autoptr(GError) error = NULL;
	g_auto(owner_place) place = {0};

	if (layer->succession)
		released = claim_record(layer, true, &error);
	else if (layer->claim.generation && find_place(layer, layer->link, &place))
		released = owner_release(place.pool, place.name, layer->owner, layer->claim.generation, &error);
	if (error)
		log_warning("%s", error->message);
	layer->claim = (struct owner_claim){0};
	return released != ANSWER_NO;
}

bool claim_is_given_up(const struct layer *layer, const struct chain_link *link)
{
	g_auto(owner_place) place = {0};
	struct owner_record record = {0};
	bool given_up;

	given_up = find_place(layer, link, &place) && owner_read(place.pool, place.name, &record, NULL) &&
		   strcmp(record.mode, "none") == 0;
	owner_record_clear(&record);
	return given_up;
}

char *claim_unlock_command(const struct layer *layer, const struct chain_link *link)
{
	g_auto(owner_place) place = {0};
	g_autofree char *pool = NULL, *name = NULL;

	if (!find_place(layer, link, &place))
		return g_strdup("leafctl unlock --force POOL NAME");
	pool = shell_quote(place.pool);
	name = shell_quote(place.name);
	return g_strdup_printf("leafctl unlock --force %s %s", pool, name);
}

void claim_explain_lock(const struct layer *layer, GError **error)
{
	g_auto(owner_place) place = {0};

	if (find_place(layer, layer->link, &place))
		owner_explain_lock(&place, error);
}

enum holder { NOBODY, US, ANOTHER, UNKNOWN };

/* US is so from the record: another may have taken the image over. RECORD is to be cleared. */
static enum holder holder_of(const struct layer *layer, const struct chain_link *link, struct owner_record *record,
			     GError **error)
{
	g_auto(owner_place) place = {0};
	enum answer there = ANSWER_NO;

	*record = (struct owner_record){0};
	if (find_place(layer, link, &place))
		there = owner_find(place.pool, place.name, record, error);
	if (there == ANSWER_UNKNOWN)
		return UNKNOWN;
	if (there == ANSWER_NO || record->clean)
		return NOBODY;
	return layer->owner && memcmp(record->mount_id, layer->owner->mount_id, OWNER_ID_BYTES) == 0 ? US : ANOTHER;
}

char *claim_describe(const struct layer *layer, const struct chain_link *link)
{
	g_autoptr(GError) error = NULL;
	struct owner_record record;
	char *text = NULL;

	switch (holder_of(layer, link, &record, &error)) {
	case NOBODY:
		text = g_strdup("none");
		break;
	case US:
		text = g_strdup("this mount");
		break;
	case ANOTHER:
		text = g_strdup_printf("host %s pid %" G_GINT64_FORMAT " since %s", record.host, record.pid,
				       record.since);
		break;
	case UNKNOWN:
		text = g_strdup(error->message);
	}
	owner_record_clear(&record);
	return text;
}

char *claim_owner_word(const struct layer *layer, const struct chain_link *link)
{
	struct owner_record record;
	enum holder holder = holder_of(layer, link, &record, NULL);
	const char *const words[] = {CLAIM_NOBODY, CLAIM_HERE, record.host, "unknown"};
	char *word = g_strdup(words[holder]);

	owner_record_clear(&record);
	return word;
}
