/* How the cache knows an image again.
 *
 * Identity: a native image's UUID; a raw one's path and offset. Stamp: all that
 * changes when somebody writes the image: size, times and inode of its file,
 * and the generation, which each writable open raises durably before it writes.
 * A raw file has none; there the writable open moves the time stamp durably. */
#include "layer_key.h"

#include <string.h>
#include <sys/stat.h>
#include <xxhash.h>

static void hash_identity(const struct chain_link *link, uint8_t identity[CACHE_ID_BYTES])
{
	XXH128_canonical_t canonical;

	XXH128_canonicalFromHash(&canonical, XXH3_128bits_withSeed(link->path, strlen(link->path), link->base_offset));
	memcpy(identity, canonical.digest, CACHE_ID_BYTES);
}

bool layer_key_of(const struct chain_link *link, struct cache_layer_key *key)
{
	struct image_info info;
	struct stat st;
	uint64_t facts[8] = {0};
	bool leaf = link->format == IMAGE_FORMAT_LEAF;

	if (stat(link->path, &st) < 0 || (!leaf && !S_ISREG(st.st_mode)) ||
	    !image_read_info(link->path, link->format, &info, NULL))
		return false;
	*key = (struct cache_layer_key){.size_bytes = info.size_bytes, .name = link->path};
	if (leaf)
		memcpy(key->identity, info.uuid, CACHE_ID_BYTES);
	else
		hash_identity(link, key->identity);
	facts[0] = info.generation;
	if (S_ISREG(st.st_mode)) {
		facts[1] = st.st_ino;
		facts[2] = (uint64_t)st.st_size;
		facts[3] = (uint64_t)st.st_mtim.tv_sec;
		facts[4] = (uint64_t)st.st_mtim.tv_nsec;
		facts[5] = (uint64_t)st.st_ctim.tv_sec;
		facts[6] = (uint64_t)st.st_ctim.tv_nsec;
	}
	key->stamp = XXH64(facts, sizeof(facts), 0) | 1;
	image_info_clear(&info);
	return true;
}
