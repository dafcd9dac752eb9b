/* A cache without a mount: what leafctl cache does. All of it blocks. */
#ifndef LEAFDISK_CACHE_OFFLINE_H
#define LEAFDISK_CACHE_OFFLINE_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "cache/cache.h"
#include "format/cache.h"

/* Formats PATH. A file that is a cache or holds nothing that is known, or a device that is not empty,
 * only with FORCE; never a device that is in use, nor an image. PREALLOCATE writes the whole log once. */
bool cache_create(const struct cache_options *options, bool force, bool preallocate, GError **error);

/* What PATH holds, for a sentence: "is the cache of the pool /srv/pool", "has a file system (ext4)".
 * NULL: nothing, or it cannot be read. g_free. */
char *cache_tell_content(const char *path);

struct cache_layer_info {
	uint32_t id;
	char *name;
	uint8_t identity[CACHE_ID_BYTES];
	uint64_t stamp;
	uint64_t size_bytes;
	uint64_t generation;	       /* of the ownership under which it is written back; 0: it is not */
	uint8_t nonce[CACHE_ID_BYTES]; /* of the claim under which it is dirty; zeros: none */
	uint64_t reached;	       /* the highest order that the log knows of its changes; 0: none */
	bool orphan;		       /* its image has another owner */
	const char *orphan_text;       /* why it is one, for people */
	uint64_t orphan_time_ns;       /* since the epoch; 0: not known */
	char *loss;		       /* what the log has lost of it, for a message; NULL: nothing */
	uint64_t clean_blocks;
	uint64_t dirty_blocks;
	uint64_t zero_blocks;
	uint64_t epochs; /* that its image does not have */
};
struct cache_info {
	uint8_t uuid[CACHE_ID_BYTES];
	uint8_t pool_id[CACHE_ID_BYTES];
	char *pool_path;
	uint64_t size_bytes;
	uint64_t segments;
	uint64_t generation;
	uint8_t mounts[CACHE_MOUNTS][CACHE_ID_BYTES]; /* see struct cache_super_ondisk */
	uint64_t tail_segment, head_segment;
	uint64_t records;
	uint64_t first_sequence, last_sequence;
	GPtrArray *layers; /* struct cache_layer_info, by id */
};
/* What a mount would recover. cache_info_free. */
struct cache_info *cache_read_info(const char *path, GError **error);
void cache_info_free(struct cache_info *info);

/* Every rule of the format, with the checksums of all data. FINDING once per
 * damage, with a sentence. Survives any bytes. False and ERROR when the file
 * cannot be read at all. */
struct cache_check_result {
	uint64_t records;
	uint64_t blocks;
	uint64_t damages;
	unsigned bad_super_copies; /* one of two: no damage, a crash can leave it */
};
bool cache_check(const char *path, void (*finding)(void *opaque, const char *sentence), void *opaque,
		 struct cache_check_result *result, GError **error);

/* Calls BLOCK for each live block of the layer (NULL name: of every layer),
 * sorted by block; DATA NULL: a run of zeros. Damaged blocks go to FINDING and
 * are left out. */
bool cache_dump(const char *path, const char *layer,
		bool (*block)(void *opaque, const struct cache_layer_info *layer, uint64_t block, uint64_t blocks,
			      const void *data),
		void (*finding)(void *opaque, const char *sentence), void *opaque, GError **error);

/* The same of what is dirty in the layer ID, and no more. */
bool cache_dump_dirty(const char *path, uint32_t id,
		      bool (*block)(void *opaque, const struct cache_layer_info *layer, uint64_t block, uint64_t blocks,
				    const void *data),
		      void (*finding)(void *opaque, const char *sentence), void *opaque, GError **error);

#endif
