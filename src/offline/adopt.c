/* Changes in a cache that no mount writes back: brought to their image, or forgotten.
 *
 * Adopting writes what is dirty of a layer to its image, where that still has the claim
 * under which they were made: nothing was written to it since. What is durable when, and
 * what a crash leaves:
 *
 *     1. the owner record has that claim again    the cache's mounts refuse the disk, as do all
 *        and this cache                           others, until the command is run again
 *     2. the image has the changes
 *     3. the cache has forgotten them             the disk is this cache's, and has nothing in it
 *     4. the record is clean                      the disk is nobody's */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cache/cache.h"
#include "core/bytes.h"
#include "core/error.h"
#include "core/nearest.h"
#include "core/shell.h"
#include "image/image.h"
#include "layer/key.h"
#include "layer/parent.h"
#include "migrate/apply.h"
#include "offline/cache.h"
#include "offline/offline.h"
#include "open.h"
#include "owner/mounts.h"
#include "owner/owner.h"
#include "pool/pool.h"

#define BATCH_BLOCKS 4096

struct adoption {
	const char *cache_path;
	struct cache_info *info;
	const struct cache_layer_info *layer;
	char *path;  /* of the image */
	bool sealed; /* takes no other writes */
	struct owner_self self;
	owner_place place;
	struct owner_claim claim;
	bool force;

	struct image *image;
	struct cache_batch batch; /* what was read and is not written */
	uint8_t *data;		  /* of it */
	int result;
	uint64_t damages;
	void (*finding)(void *opaque, const char *sentence);
	void *opaque;
};

/* ---- Which layer ------------------------------------------------------------ */

static bool is_called(const struct cache_layer_info *layer, const char *name)
{
	g_autofree char *last = g_path_get_basename(layer->name), *id = g_strdup_printf("%u", layer->id);

	return strcmp(layer->name, name) == 0 || strcmp(last, name) == 0 || strcmp(id, name) == 0;
}

static bool refuse_layer(const struct cache_info *info, const char *path, const char *name, GError **error)
{
	g_autofree char *text = NULL;
	struct nearest nearest;

	nearest_begin(&nearest, name);
	for (guint i = 0; i < info->layers->len; i++) {
		const struct cache_layer_info *layer = info->layers->pdata[i];
		const char *last = strrchr(layer->name, '/');

		if (layer->dirty_blocks + layer->zero_blocks > 0)
			nearest_offer(&nearest, last ? last + 1 : layer->name);
	}
	text = nearest_text(&nearest, "; leafctl cache info lists them");
	return error_set(error, ENOENT, "%s: has no changes of a layer \"%s\"%s", path, name, text);
}

static const struct cache_layer_info *find_layer(const struct cache_info *info, const char *path, const char *name,
						 GError **error)
{
	const struct cache_layer_info *found = NULL;

	for (guint i = 0; i < info->layers->len; i++) {
		const struct cache_layer_info *layer = info->layers->pdata[i];

		if (!is_called(layer, name) || layer->dirty_blocks + layer->zero_blocks == 0)
			continue;
		if (found) {
			error_set(error, EINVAL,
				  "%s: has changes of several layers \"%s\", %u and %u; name one by its number", path,
				  name, found->id, layer->id);
			return NULL;
		}
		found = layer;
	}
	if (!found)
		refuse_layer(info, path, name, error);
	return found;
}

/* ---- Purge ------------------------------------------------------------------ */

static bool forget(const char *path, const struct cache_info *info, const struct cache_layer_info *layer,
		   GError **error)
{
	struct cache_options options = {.path = path, .pool_path = info->pool_path};
	struct cache *cache;
	int result;

	memcpy(options.pool_id, info->pool_id, sizeof(options.pool_id));
	cache = cache_open(&options, error);
	if (!cache || !cache_start(cache, error)) {
		cache_close(cache);
		return false;
	}
	result = cache_layer_purge(cache, layer->id);
	if (result == 0)
		result = cache_stop(cache);
	cache_close(cache);
	return result == 0 || error_set_errno(error, -result, "%s: cannot record that it has nothing of %s any more",
					      path, layer->name);
}

bool offline_cache_purge(const char *cache_path, const char *name, bool force, GError **error)
{
	struct cache_info *info = cache_read_info(cache_path, error);
	const struct cache_layer_info *layer = info ? find_layer(info, cache_path, name, error) : NULL;
	g_autofree char *word = shell_quote(cache_path);
	bool done =
		layer && (layer->orphan || force ||
			  error_set(error, EBUSY,
				    "%s: the changes of %s are to be written back (leafctl cache drain %s); --force "
				    "forgets them all the same",
				    cache_path, layer->name, word));

	done = done && forget(cache_path, info, layer, error);
	cache_info_free(info);
	return done;
}

/* ---- Which image ------------------------------------------------------------ */

struct search {
	const struct cache_layer_info *layer;
	bool force;
	char *path; /* NULL: none yet */
	bool sealed;
	GPtrArray *chains; /* of all that there are */
};

/* FORCE: one that had no identity of its own when the cache had its changes is what stands at its
 * path now. */
static bool has_identity(const struct search *search, const struct chain_link *link)
{
	uint8_t identity[CACHE_ID_BYTES];

	layer_identity_of(link, NULL, identity);
	return memcmp(identity, search->layer->identity, CACHE_ID_BYTES) == 0 ||
	       (search->force && layer_identity_is_of_path(link, search->layer->identity));
}

/* Of copies that with the layer's name. */
static void consider(struct search *search, const char *path, GPtrArray *links, bool sealed)
{
	g_ptr_array_add(search->chains, g_ptr_array_ref(links));
	if (!has_identity(search, links->pdata[0]) || (search->path && strcmp(path, search->layer->name) != 0))
		return;
	g_free(search->path);
	search->path = g_strdup(path);
	search->sealed = sealed;
}

static bool look_at_disks(struct search *search, const char *pool_path, GError **error)
{
	struct disk_pool_options options = {.path = pool_path, .read_only = true, .quiet = true};
	struct disk_pool *pool = disk_pool_open(&options, error);
	g_autoptr(GPtrArray) disks = pool ? disk_pool_shown(pool) : NULL;

	for (guint i = 0; disks && i < disks->len; i++) {
		g_autoptr(GPtrArray) links = disk_get_links(disks->pdata[i]);

		consider(search, disk_image_path(disks->pdata[i]), links, false);
	}
	g_clear_pointer(&disks, g_ptr_array_unref);
	disk_pool_close(pool);
	return pool;
}

static void look_at_sealed(void *opaque, const char *path)
{
	g_autoptr(GPtrArray) links = offline_links(path, IMAGE_FORMAT_NONE, NULL, NULL);

	if (links)
		consider(opaque, path, links, true);
}

/* A sealed image notes its children when it is complete, which it would not be without this. */
static void mark_parents(const struct search *search)
{
	for (guint i = 0; i < search->chains->len; i++) {
		const GPtrArray *links = search->chains->pdata[i];

		for (guint j = 1; j < links->len; j++)
			if (strcmp(((const struct chain_link *)links->pdata[j])->real, search->path) == 0)
				parent_mark_chain(links, NULL, NULL);
	}
}

static bool find_image(struct adoption *adoption, GError **error)
{
	const char *pool = adoption->info->pool_path;
	g_autoptr(GPtrArray) chains = g_ptr_array_new_with_free_func((GDestroyNotify)g_ptr_array_unref);
	struct search search = {.layer = adoption->layer, .force = adoption->force, .chains = chains};

	if (!look_at_disks(&search, pool, error) || !offline_foreach_sealed(pool, look_at_sealed, &search, error)) {
		g_free(search.path);
		return false;
	}
	adoption->path = search.path;
	adoption->sealed = search.sealed;
	if (search.sealed)
		mark_parents(&search);
	return search.path ||
	       error_set(error, ENOENT, "%s: is not in the pool %s, under any name", search.layer->name, pool);
}

/* ---- Whether nothing was written since --------------------------------------- */

/* Also when an adoption that was interrupted is gone on with: it gave the image the claim that it
 * had. */
static bool is_as_it_was(const struct adoption *adoption, const struct image *image, GError **error)
{
	const struct cache_layer_info *layer = adoption->layer;
	bool claimed = image->has_claim == ANSWER_YES && !buffer_is_zero(layer->nonce, OWNER_ID_BYTES);

	if (adoption->force)
		return true;
	if (!claimed)
		return error_set(error, EBUSY,
				 "%s: nothing tells whether it was written since the cache had its changes; --force "
				 "writes them to it all the same",
				 image->path);
	if (memcmp(image->claim, layer->nonce, IMAGE_CLAIM_BYTES) == 0 && image->progress > layer->reached)
		return error_set(
			error, EBUSY,
			"%s: has newer changes than the cache, whose log is an older copy or has lost its end; "
			"--force writes the older ones to it all the same, and leafctl cache dump to a file",
			image->path);
	return memcmp(image->claim, layer->nonce, IMAGE_CLAIM_BYTES) == 0 ||
	       error_set(error, EBUSY,
			 "%s: was written since the cache had its changes, or is another than it was; --force writes "
			 "them to it all the same, and leafctl cache dump to a file",
			 image->path);
}

static bool claim(struct adoption *adoption, const struct image *image, GError **error)
{
	struct owner_want want = {
		.mode = "writeback",
		.image_generation = image->generation,
		.image = {.has_nonce = image->has_claim,
			  .inode = image->inode,
			  .born_ns = image->born_ns,
			  .unmarked = !image->marked},
		.nonce = buffer_is_zero(adoption->layer->nonce, OWNER_ID_BYTES) ? NULL : adoption->layer->nonce,
		.locked = image->locked,
	};

	memcpy(want.image.nonce, image->claim, OWNER_ID_BYTES);
	return owner_claim(adoption->place.pool, adoption->place.name, &adoption->self, &want, &adoption->claim, error);
}

/* Locked until the end. */
static bool take_image(struct adoption *adoption, GError **error)
{
	enum image_format format = offline_format_of(adoption->path, IMAGE_FORMAT_NONE, error);
	unsigned flags = IMAGE_WRITABLE | IMAGE_BEGIN_LATER | (adoption->sealed ? IMAGE_SEALED : 0);
	int result;

	if (format == IMAGE_FORMAT_NONE || !owner_place_init(&adoption->place, adoption->path))
		return false;
	adoption->image = image_open(adoption->path, format, flags, 0, error);
	if (!adoption->image) {
		owner_explain_lock(&adoption->place, error);
		return false;
	}
	if (!is_as_it_was(adoption, adoption->image, error) || !claim(adoption, adoption->image, error))
		return false;
	result = image_begin_writing(adoption->image, adoption->claim.nonce);
	return result == 0 || error_set_errno(error, -result, "%s: cannot be made ready for writing", adoption->path);
}

/* ---- Into the image ---------------------------------------------------------- */

static void count_damage(void *opaque, const char *sentence)
{
	struct adoption *adoption = opaque;

	adoption->damages++;
	adoption->finding(adoption->opaque, sentence);
}

static bool pass_over(void *opaque, const struct cache_layer_info *layer, uint64_t block, uint64_t blocks,
		      const void *data)
{
	(void)opaque;
	(void)layer;
	(void)block;
	(void)blocks;
	(void)data;
	return true;
}

/* What is left of changes of which some are lost is of no moment of the disk. */
static bool is_complete(const struct adoption *adoption, GError **error)
{
	const struct cache_layer_info *layer = adoption->layer;

	return !layer->loss || adoption->force ||
	       error_set(
		       error, EIO,
		       "%s: %s: %s; what is left is not what the disk was at any moment: leafctl cache dump saves it, "
		       "and --force adopts it all the same",
		       adoption->cache_path, layer->name, layer->loss);
}

/* Before anything is written. */
static bool can_be_read(struct adoption *adoption, GError **error)
{
	if (!is_complete(adoption, error))
		return false;
	if (!cache_dump_dirty(adoption->cache_path, adoption->layer->id, pass_over, count_damage, adoption, error))
		return false;
	return adoption->damages == 0 || adoption->force ||
	       error_set(error, EIO, "%s: %" G_GUINT64_FORMAT " blocks of %s cannot be read; --force adopts the others",
			 adoption->cache_path, adoption->damages, adoption->layer->name);
}

static bool write_batch(struct adoption *adoption)
{
	struct cache_batch *batch = &adoption->batch;

	if (batch->extent_count > 0)
		adoption->result = batch_apply(adoption->image, batch);
	if (apply_found_no_room(adoption->result))
		adoption->result = batch_apply_in_pieces(adoption->image, batch);
	batch->extent_count = 0;
	batch->data_blocks = 0;
	return adoption->result == 0;
}

static void add(struct adoption *adoption, uint64_t block, uint64_t blocks, const void *data)
{
	struct cache_batch *batch = &adoption->batch;
	struct cache_batch_extent *extent = &batch->extents[batch->extent_count++];

	*extent = (struct cache_batch_extent){.block = block, .blocks = blocks};
	if (!data)
		return;
	extent->data = adoption->data + ((size_t)batch->data_blocks << BLOCK_SHIFT);
	memcpy(extent->data, data, (size_t)blocks << BLOCK_SHIFT);
	batch->data_blocks += (unsigned)blocks;
}

/* What is past the end of an image that was made smaller is nobody's. */
static bool adopt_block(void *opaque, const struct cache_layer_info *layer, uint64_t block, uint64_t blocks,
			const void *data)
{
	struct adoption *adoption = opaque;
	uint64_t end = blocks_of(adoption->image->size_bytes);

	(void)layer;
	if (block >= end)
		return true;
	if (adoption->batch.extent_count == BATCH_BLOCKS && !write_batch(adoption))
		return false;
	add(adoption, block, MIN(blocks, end - block), data);
	return true;
}

static void ignore_damage(void *opaque, const char *sentence)
{
	(void)opaque;
	(void)sentence;
}

static bool write_all(struct adoption *adoption, GError **error)
{
	struct cache_batch *batch = &adoption->batch;
	g_autofree struct cache_batch_extent *extents = g_new(struct cache_batch_extent, BATCH_BLOCKS);
	g_autoptr(GError) inner = NULL;
	bool read;

	batch->extents = extents;
	adoption->data = aligned_alloc(BLOCK_SIZE, (size_t)BATCH_BLOCKS << BLOCK_SHIFT);
	read = cache_dump_dirty(adoption->cache_path, adoption->layer->id, adopt_block, ignore_damage, adoption,
				&inner);
	if (read)
		(void)write_batch(adoption);
	free(adoption->data);
	if (adoption->result < 0)
		return error_set_errno(error, -adoption->result, "%s: cannot be written", adoption->path);
	if (!read)
		g_propagate_error(error, g_steal_pointer(&inner));
	return read;
}

/* ---- Adopt ------------------------------------------------------------------- */

static bool adopt(struct adoption *adoption, GError **error)
{
	if (!can_be_read(adoption, error))
		return false;
	return find_image(adoption, error) && take_image(adoption, error) && write_all(adoption, error) &&
	       forget(adoption->cache_path, adoption->info, adoption->layer, error) &&
	       owner_release(adoption->place.pool, adoption->place.name, &adoption->self, adoption->claim.generation,
			     error) == ANSWER_YES;
}

static bool close_image(struct adoption *adoption, GError **error)
{
	int result = image_close(adoption->image);

	return result == 0 || error_set_errno(error, -result, "%s: cannot be closed", adoption->path);
}

/* Who adopts goes on as the cache's last mount, and so does another try of that: the cache
 * has the next generation when it is opened, which is after the claim. One of an earlier
 * version does not know its mounts, and its generation tells nothing. */
static void go_on_as_mount(struct adoption *adoption)
{
	const struct cache_info *info = adoption->info;

	owner_self_set_mounts(&adoption->self, info->generation, info->mounts[0]);
	if (buffer_is_zero(info->mounts[info->generation % CACHE_MOUNTS], OWNER_ID_BYTES))
		adoption->self.cache_generation = 0;
}

bool offline_cache_adopt(const char *cache_path, const char *name, bool force,
			 void (*finding)(void *opaque, const char *sentence), void *opaque, GError **error)
{
	struct adoption adoption = {.cache_path = cache_path, .force = force, .finding = finding, .opaque = opaque};
	bool done = false;

	adoption.info = cache_read_info(cache_path, error);
	if (adoption.info)
		adoption.layer = find_layer(adoption.info, cache_path, name, error);
	if (adoption.layer) {
		owner_self_init(&adoption.self, cache_path, adoption.info->uuid);
		go_on_as_mount(&adoption);
		done = adopt(&adoption, error);
		done = close_image(&adoption, done ? error : NULL) && done;
		owner_self_clear(&adoption.self);
	}
	owner_place_clear(&adoption.place);
	g_free(adoption.path);
	cache_info_free(adoption.info);
	return done;
}
