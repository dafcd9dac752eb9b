/* Layers and owner records: where the record of an image is, and when it is claimed and
 * released. */
#include "layer/claim.h"

#include <errno.h>
#include <string.h>

#include "core/error.h"
#include "core/log.h"

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

bool claim_take(struct layer *layer, const char *mode,
		bool (*prepare)(void *opaque, const struct owner_last *last, uint64_t *generation, GError **error),
		GError **error)
{
	struct owner_want want = {
		.mode = mode,
		.image_generation = layer->image->generation,
		.locked = layer->image->locked,
		.prepare = prepare,
		.opaque = layer,
	};
	g_auto(owner_place) place = {0};

	if (!layer->owner)
		return true;
	if (!find_place(layer, layer->link, &place))
		return error_set_errno(error, errno, "%s: cannot be found", layer->link->path);
	return owner_claim(place.pool, place.name, layer->owner, &want, &layer->claim, error);
}

enum answer claim_check(const struct layer *layer, GError **why)
{
	g_auto(owner_place) place = {0};

	if (!layer->owner || !layer->claim || !find_place(layer, layer->link, &place))
		return ANSWER_YES;
	return owner_check(place.pool, place.name, layer->owner, layer->claim, why);
}

bool claim_read(const struct layer *layer, struct owner_record *record)
{
	g_auto(owner_place) place = {0};

	return find_place(layer, layer->link, &place) && owner_read(place.pool, place.name, record, NULL);
}

void claim_release(struct layer *layer)
{
	g_autoptr(GError) error = NULL;
	g_auto(owner_place) place = {0};

	if (layer->claim && find_place(layer, layer->link, &place) &&
	    !owner_release(place.pool, place.name, layer->owner, layer->claim, &error))
		log_warning("%s", error->message);
	layer->claim = 0;
}

char *claim_unlock_command(const struct layer *layer)
{
	g_auto(owner_place) place = {0};
	g_autofree char *pool = NULL, *name = NULL;

	if (!find_place(layer, layer->link, &place))
		return g_strdup("leafctl unlock --force POOL NAME");
	pool = owner_quote(place.pool);
	name = owner_quote(place.name);
	return g_strdup_printf("leafctl unlock --force %s %s", pool, name);
}

void claim_explain_lock(const struct layer *layer, GError **error)
{
	g_auto(owner_place) place = {0};

	if (find_place(layer, layer->link, &place))
		owner_explain_lock(&place, error);
}

/* "this mount" is so from the record: another may have taken the image over. */
char *claim_describe(const struct layer *layer, const struct chain_link *link)
{
	g_auto(owner_place) place = {0};
	g_autoptr(GError) error = NULL;
	struct owner_record record = {0};
	char *text;

	if (!find_place(layer, link, &place))
		return g_strdup("none");
	if (!owner_read(place.pool, place.name, &record, &error))
		return g_strdup(error_to_errno(error) == -ENOENT ? "none" : error->message);
	if (record.clean)
		text = g_strdup("none");
	else if (layer->owner && memcmp(record.mount_id, layer->owner->mount_id, OWNER_ID_BYTES) == 0)
		text = g_strdup("this mount");
	else
		text = g_strdup_printf("host %s pid %" G_GINT64_FORMAT " since %s", record.host, record.pid,
				       record.since);
	owner_record_clear(&record);
	return text;
}
