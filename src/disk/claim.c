/* Disks and their owner records: where the record of a disk's image is, and when
 * it is claimed and released. */
#include "disk/claim.h"

#include <errno.h>
#include <string.h>

#include "core/error.h"
#include "core/log.h"

/* As the disk's image was found: who asks its name again asks what somebody may
 * have put there since. */
static bool place_of_disk(struct disk *disk, struct owner_place *place)
{
	g_autoptr(GPtrArray) links = disk_get_links(disk);
	const struct chain_link *leaf = links->pdata[0];

	*place = (struct owner_place){0};
	if (!leaf->block_device)
		*place = (struct owner_place){g_path_get_dirname(leaf->real), g_path_get_basename(leaf->real)};
	else if (disk->owner)
		*place = (struct owner_place){g_strdup(chain_roots_pool(disk->roots)->path),
					      g_strconcat(disk->name, "@device", NULL)};
	return place->name;
}

bool owner_allows_disk(struct disk *disk, GError **error)
{
	g_auto(owner_place) place = {0};

	return !disk->owner || !disk->writable || !place_of_disk(disk, &place) ||
	       owner_allows(place.pool, place.name, disk->owner, true, error);
}

bool owner_claim_disk(struct disk *disk, enum disk_mode mode,
		      bool (*prepare)(void *opaque, uint64_t owned, uint64_t generation, GError **error),
		      GError **error)
{
	struct owner_want want = {
		.mode = disk_mode_name(mode),
		.image_generation = disk->leaf->generation,
		.locked = disk->leaf->locked,
		.prepare = prepare,
		.opaque = disk,
	};
	g_auto(owner_place) place = {0};

	if (!disk->owner)
		return true;
	if (!place_of_disk(disk, &place))
		return error_set_errno(error, errno, "%s: cannot be found", disk_image_path(disk));
	return owner_claim(place.pool, place.name, disk->owner, &want, &disk->owner_generation, error);
}

int owner_check_disk(struct disk *disk, bool *stands)
{
	g_auto(owner_place) place = {0};

	*stands = true;
	if (!disk->owner || !disk->owner_generation || !place_of_disk(disk, &place))
		return 0;
	return owner_check(place.pool, place.name, disk->owner, disk->owner_generation, stands);
}

void owner_release_disk(struct disk *disk)
{
	g_autoptr(GError) error = NULL;
	g_auto(owner_place) place = {0};

	if (disk->owner_generation && place_of_disk(disk, &place) &&
	    !owner_release(place.pool, place.name, disk->owner, disk->owner_generation, &error))
		log_warning("%s", error->message);
	disk->owner_generation = 0;
}

void owner_explain_disk_lock(struct disk *disk, GError **error)
{
	g_auto(owner_place) place = {0};

	if (place_of_disk(disk, &place))
		owner_explain_lock(&place, error);
}

/* "this mount" is so from the record: another may have taken the image over. */
char *disk_get_owner(struct disk *disk)
{
	g_auto(owner_place) place = {0};
	g_autoptr(GError) error = NULL;
	struct owner_record record = {0};
	char *text;

	if (!place_of_disk(disk, &place))
		return g_strdup("none");
	if (!owner_read(place.pool, place.name, &record, &error))
		return g_strdup(error_to_errno(error) == -ENOENT ? "none" : error->message);
	if (record.clean)
		text = g_strdup("none");
	else if (disk->owner && memcmp(record.mount_id, disk->owner->mount_id, OWNER_ID_BYTES) == 0)
		text = g_strdup("this mount");
	else
		text = g_strdup_printf("host %s pid %" G_GINT64_FORMAT " since %s", record.host, record.pid,
				       record.since);
	owner_record_clear(&record);
	return text;
}
