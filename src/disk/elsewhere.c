/* Disks whose newest changes are elsewhere: in another cache, or in another copy of ours.
 *
 * Who reads such a disk gets old content. So it is refused, as is one of which nobody can
 * tell; with stale_reads it is read, its state and the log say so, and nothing is written on
 * what is old:
 *
 *     REFUSED    the opening fails where a layer is old
 *     ALLOWED    for reading, as is all of an ephemeral disk, with stale_reads: where a layer
 *                is old the disk becomes
 *     SHOWN      and its images are opened for reading only, until its chain is closed
 *
 * The owner record of a layer tells: of the leaf the one of its name, or, where that is none,
 * the one that the open image knows itself by, as it may have been renamed by hand. Below the
 * leaf those are asked which were sealed, and those which the configuration names. A parent
 * that its child names has nothing elsewhere: it has none when the child is made, nobody
 * writes it after that, and what was written all the same shows at the child. */
#include "elsewhere.h"

#include "core/error.h"
#include "core/log.h"
#include "layer/claim.h"

/* What is said of DISK, for WHY. g_free. */
static char *sentence_of(const struct disk *disk, enum answer elsewhere, const GError *why)
{
	const char *doubt = "nobody can tell whether a cache has newer changes of it: ";
	const char *shown = disk->stale_reads ? "shows old content: " : "";

	return g_strconcat(
		elsewhere == ANSWER_UNKNOWN ? doubt : shown, why->message,
		disk->stale_reads ? "" : "; with the mount option stale_reads it can be read as the pool has it", NULL);
}

/* For its status. */
static void note(struct disk *disk, const char *sentence)
{
	LOCK_GUARD(&disk->lock);
	g_free(disk->elsewhere);
	disk->elsewhere = g_strdup(sentence);
}

static void note_owner(struct disk *disk, char *owner)
{
	LOCK_GUARD(&disk->lock);
	g_free(disk->owner);
	disk->owner = owner;
}

/* As the leaf's record says. */
static enum answer look(struct disk *disk, GError **why)
{
	g_autoptr(GPtrArray) links = disk_get_links(disk);
	g_autoptr(layer_held) leaf = disk_hold_leaf(disk);

	note_owner(disk, claim_owner_word(leaf, links->pdata[0]));
	return claim_has_newer(leaf, links->pdata[0], why);
}

/* An opening asks those that are sealed one by one. */
static enum answer look_below(struct disk *disk, GError **why)
{
	g_autoptr(GPtrArray) links = disk_get_links(disk);
	g_autoptr(layer_held) leaf = disk_hold_leaf(disk);
	enum answer elsewhere = ANSWER_NO;

	for (guint i = 1; i < links->len && elsewhere == ANSWER_NO; i++) {
		const struct chain_link *link = links->pdata[i];

		if (chain_is_sealed_name(link->path))
			elsewhere = claim_has_newer(leaf, link, why);
	}
	return elsewhere;
}

enum answer disk_look_elsewhere(struct disk *disk, char **sentence)
{
	g_autoptr(GError) why = NULL;
	enum answer elsewhere = look(disk, &why);

	if (elsewhere == ANSWER_NO)
		elsewhere = look_below(disk, &why);

	*sentence = elsewhere == ANSWER_NO ? NULL : sentence_of(disk, elsewhere, why);
	note(disk, *sentence);
	return elsewhere;
}

/* ---- An opening ------------------------------------------------------------------ */

void elsewhere_begin(struct disk *disk, bool write)
{
	bool reads = !write || disk->mode == DISK_MODE_EPHEMERAL;

	disk->old = disk->stale_reads && reads ? OLD_ALLOWED : OLD_REFUSED;
}

/* ELSEWHERE is of one of its layers. */
static bool settle(struct disk *disk, enum answer elsewhere, const GError *why, GError **error)
{
	g_autofree char *sentence = NULL;

	if (elsewhere == ANSWER_NO)
		return true;
	sentence = sentence_of(disk, elsewhere, why);
	note(disk, sentence);
	if (disk->old == OLD_REFUSED)
		return error_set(error, -error_to_errno(why), "%s", disk->stale_reads ? why->message : sentence);
	disk->old = OLD_SHOWN;
	log_disk(EVENT_WARNING, disk->name, "%s: %s", disk->name, sentence);
	return true;
}

bool elsewhere_allows(struct disk *disk, GError **error)
{
	g_autoptr(GError) why = NULL;
	enum answer elsewhere = look(disk, &why);

	if (elsewhere == ANSWER_NO)
		note(disk, NULL);
	return settle(disk, elsewhere, why, error);
}

bool elsewhere_allows_below(struct disk *disk, const struct chain_link *link, GError **error)
{
	g_autoptr(GError) why = NULL;
	enum answer elsewhere = ANSWER_NO;

	if (disk->spelled || chain_is_sealed_name(link->path))
		elsewhere = claim_has_newer(disk->leaf, link, &why);
	return settle(disk, elsewhere, why, error);
}

bool elsewhere_allows_image(struct disk *disk, const struct image *image, GError **error)
{
	g_autoptr(GError) why = NULL;
	enum answer elsewhere = claim_has_newer_as(disk->leaf, image, &why);

	return settle(disk, elsewhere, why, error);
}
