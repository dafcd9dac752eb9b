/* How the cache knows an image again.
 *
 * Identity: a native image's UUID, or that of a raw one's file; where it has none, path
 * and offset. Stamp: all that
 * changes when somebody writes the image: size, times and inode of its file,
 * and the generation, which each writable open raises durably before it writes.
 * A raw file has none; there the writable open moves the time stamp durably. */
#include "layer/key.h"

#include <string.h>
#include <sys/stat.h>
#include <xxhash.h>

/* OWN: the file's; zeros: it has none. */
static bool is_own(const struct chain_link *link, const uint8_t own[IMAGE_UUID_BYTES])
{
	return link->base_offset == 0 && !buffer_is_zero(own, IMAGE_UUID_BYTES);
}

static void set_path_identity(const struct chain_link *link, uint8_t identity[CACHE_ID_BYTES])
{
	XXH128_canonical_t canonical;

	XXH128_canonicalFromHash(&canonical, XXH3_128bits_withSeed(link->path, strlen(link->path), link->base_offset));
	memcpy(identity, canonical.digest, CACHE_ID_BYTES);
}

static void set_identity(const struct chain_link *link, const uint8_t own[IMAGE_UUID_BYTES],
			 uint8_t identity[CACHE_ID_BYTES])
{
	if (is_own(link, own))
		memcpy(identity, own, CACHE_ID_BYTES);
	else
		set_path_identity(link, identity);
}

bool layer_identity_is_of_path(const struct chain_link *link, const uint8_t identity[CACHE_ID_BYTES])
{
	uint8_t own[CACHE_ID_BYTES];

	set_path_identity(link, own);
	return memcmp(own, identity, CACHE_ID_BYTES) == 0;
}

static bool look_at(const struct chain_link *link, struct image *image, struct image_info *info, struct stat *st)
{
	if (!image)
		return chain_link_read_info(link, info, st, NULL);
	*info = (struct image_info){
		.size_bytes = image->size_bytes + link->base_offset,
		.generation = image->generation,
	};
	memcpy(info->identity, image->identity, sizeof(info->identity));
	return image_stat(image, st) == 0;
}

static uint64_t stamp_of(const struct image_info *info, const struct stat *st)
{
	uint64_t facts[8] = {info->generation};

	if (S_ISREG(st->st_mode)) {
		facts[1] = st->st_ino;
		facts[2] = (uint64_t)st->st_size;
		facts[3] = (uint64_t)st->st_mtim.tv_sec;
		facts[4] = (uint64_t)st->st_mtim.tv_nsec;
		facts[5] = (uint64_t)st->st_ctim.tv_sec;
		facts[6] = (uint64_t)st->st_ctim.tv_nsec;
	}
	return XXH64(facts, sizeof(facts), 0) | 1;
}

void layer_identity_of(const struct chain_link *link, const struct image *image, uint8_t identity[CACHE_ID_BYTES])
{
	set_identity(link, image ? image->identity : link->info.identity, identity);
}

bool layer_identity_is_own(const struct chain_link *link)
{
	return is_own(link, link->info.identity);
}

bool layer_key_of(const struct chain_link *link, struct image *image, struct cache_layer_key *key)
{
	struct image_info info;
	struct stat st;
	bool leaf = link->format == IMAGE_FORMAT_LEAF;
	bool good = look_at(link, image, &info, &st) && (leaf || S_ISREG(st.st_mode));

	*key = (struct cache_layer_key){.size_bytes = info.size_bytes, .name = link->path};
	set_identity(link, info.identity, key->identity);
	if (good)
		key->stamp = stamp_of(&info, &st);
	image_info_clear(&info);
	return good;
}
