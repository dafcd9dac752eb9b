/* Sealing and validating the cache's superblock. */
#include "format_super.h"

#include <glib.h>
#include <string.h>
#include <xxhash.h>

#include "format.h"

/* The field that holds the checksum is taken as zero. */
static uint64_t super_checksum(const struct cache_super_ondisk *super)
{
	struct cache_super_ondisk copy = *super;

	copy.checksum = le64_of(0);
	return XXH64(&copy, sizeof(copy), 0);
}

void cache_super_init(struct cache_super_ondisk *super, const uint8_t uuid[16], const uint8_t pool_id[16],
		      const char *pool_path, uint64_t segments)
{
	size_t path_bytes = strnlen(pool_path, CACHE_POOL_PATH_BYTES - 1);

	memset(super, 0, sizeof(*super));
	memcpy(super->uuid, uuid, sizeof(super->uuid));
	memcpy(super->pool_id, pool_id, sizeof(super->pool_id));
	memcpy(super->pool_path, pool_path, path_bytes);
	super->pool_path_bytes = le32_of((uint32_t)path_bytes);
	super->segments = le64_of(segments);
	super->ring_segments = le64_of(segments);
	super->tail_sequence = le64_of(1);
	super->end_sequence = le64_of(1);
}

void cache_super_seal(struct cache_super_ondisk *super, unsigned copy)
{
	memcpy(super->magic, CACHE_MAGIC, sizeof(super->magic));
	super->version = le32_of(CACHE_VERSION);
	super->super_bytes = le32_of(CACHE_SUPER_BYTES);
	super->segment_bytes = le32_of(CACHE_SEGMENT_BYTES);
	super->position = le64_of(CACHE_SUPER_OFFSET(copy));
	super->checksum = le64_of(super_checksum(super));
}

bool cache_super_is_intact(const struct cache_super_ondisk *super, unsigned copy)
{
	return memcmp(super->magic, CACHE_MAGIC, sizeof(super->magic)) == 0 &&
	       le64_get(super->position) == CACHE_SUPER_OFFSET(copy) &&
	       le64_get(super->sequence) % CACHE_SUPER_COPIES == copy &&
	       le64_get(super->checksum) == super_checksum(super);
}

static char *version_refusal(const struct cache_super_ondisk *super)
{
	uint64_t unknown = (le64_get(super->features_incompatible) & ~CACHE_FEATURES_INCOMPATIBLE) |
			   (le64_get(super->features_read_only) & ~CACHE_FEATURES_READ_ONLY);

	if (le32_get(super->version) < CACHE_VERSION_MIN || le32_get(super->version) > CACHE_VERSION ||
	    le32_get(super->super_bytes) != CACHE_SUPER_BYTES)
		return g_strdup_printf("has format version %u; this program reads versions %u to %u",
				       le32_get(super->version), CACHE_VERSION_MIN, CACHE_VERSION);
	if (unknown)
		return g_strdup_printf("needs features that this version does not know (0x%" G_GINT64_MODIFIER "x)",
				       unknown);
	return NULL;
}

/* Numbers that the next mount could not go on from. */
static char *number_refusal(const struct cache_super_ondisk *super)
{
	if (le64_get(super->generation) == UINT64_MAX)
		return g_strdup("has no generation left for another mount");
	if (le64_get(super->tail_sequence) >= CACHE_ORDER_END || le64_get(super->end_sequence) >= CACHE_ORDER_END)
		return g_strdup_printf("has no number left for another record after %" G_GUINT64_FORMAT,
				       CACHE_ORDER_END - 1);
	return NULL;
}

static char *geometry_refusal(const struct cache_super_ondisk *super)
{
	uint64_t segments = le64_get(super->segments), ring = le64_get(super->ring_segments);
	uint32_t path_bytes = le32_get(super->pool_path_bytes);

	if (le32_get(super->segment_bytes) != CACHE_SEGMENT_BYTES)
		return g_strdup_printf("has segments of %u bytes, expected %u", le32_get(super->segment_bytes),
				       CACHE_SEGMENT_BYTES);
	if (segments > CACHE_SEGMENTS_MAX || ring > segments || ring < CACHE_SEGMENTS_MIN)
		return g_strdup_printf("has a ring of %" G_GUINT64_FORMAT " in %" G_GUINT64_FORMAT
				       " segments; %d to %" G_GUINT64_FORMAT " are possible",
				       ring, segments, CACHE_SEGMENTS_MIN, CACHE_SEGMENTS_MAX);
	if (le64_get(super->tail_segment) >= ring || le64_get(super->tail_sequence) == 0)
		return g_strdup_printf("has its oldest record, number %" G_GUINT64_FORMAT
				       ", in segment %" G_GUINT64_FORMAT " of %" G_GUINT64_FORMAT,
				       le64_get(super->tail_sequence), le64_get(super->tail_segment), ring);
	if (le64_get(super->end_sequence) != 0 && le64_get(super->end_sequence) < le64_get(super->tail_sequence))
		return g_strdup_printf("ends with record %" G_GUINT64_FORMAT ", before its oldest one",
				       le64_get(super->end_sequence));
	if (path_bytes >= CACHE_POOL_PATH_BYTES || strnlen(super->pool_path, CACHE_POOL_PATH_BYTES) != path_bytes)
		return g_strdup("names its pool in a malformed way");
	return NULL;
}

bool cache_super_validate(const struct cache_super_ondisk *super, unsigned copy, char **why)
{
	if (!cache_super_is_intact(super, copy)) {
		*why = g_strdup("is damaged");
		return false;
	}
	*why = version_refusal(super);
	if (!*why)
		*why = geometry_refusal(super);
	if (!*why)
		*why = number_refusal(super);
	return !*why;
}
