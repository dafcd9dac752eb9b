/* On-disk layout of the native layer image (.leaf), version 1.
 *
 * The byte-by-byte specification, the validity rules and the order of writes
 * are in leafdisk-layer(5); this file is its C form and nothing else. */
#ifndef LEAFDISK_FORMAT_LEAF_H
#define LEAFDISK_FORMAT_LEAF_H

#include <stddef.h>

#include "core/bytes.h"

#define LEAF_MAGIC "LEAFDISK"
#define LEAF_VERSION 1
#define LEAF_HEADER_BYTES 4096
#define LEAF_HEADER_COPIES 2
#define LEAF_PAGE_BYTES 4096
#define LEAF_JOURNAL_OFFSET 65536
#define LEAF_JOURNAL_BYTES (1 << 20)
#define LEAF_JOURNAL_BYTES_MIN (64 << 10)
#define LEAF_JOURNAL_BYTES_MAX (64 << 20)
#define LEAF_CHUNK_BYTES (1 << 20)
#define LEAF_CHUNK_BYTES_MIN (64 << 10)
#define LEAF_CHUNK_BYTES_MAX (16 << 20)
#define LEAF_PARENT_PATH_BYTES 2048
#define LEAF_CHILDREN_BYTES 1792
#define LEAF_SIZE_MAX(chunk_bytes) ((UINT64_C(1) << 63) - (chunk_bytes))

/* Who writes the image leaves its claim in the header. */
#define LEAF_FEATURE_CLAIM UINT64_C(1)
/* The image is a parent: `children` counts. */
#define LEAF_FEATURE_CHILDREN UINT64_C(2)
/* `progress` counts, and the journal may have PROGRESS entries. */
#define LEAF_FEATURE_PROGRESS UINT64_C(1)
/* Feature words: bits this version knows. */
#define LEAF_FEATURES_COMPATIBLE UINT64_C(0)
#define LEAF_FEATURES_READ_ONLY (LEAF_FEATURE_CLAIM | LEAF_FEATURE_CHILDREN)
#define LEAF_FEATURES_INCOMPATIBLE LEAF_FEATURE_PROGRESS

enum leaf_parent_format { LEAF_PARENT_NONE = 0, LEAF_PARENT_RAW = 1, LEAF_PARENT_LEAF = 2 };

struct leaf_header_ondisk {
	char magic[8];
	le32 version;
	le32 header_bytes;
	le64 position; /* of this copy in the file */
	le64 checksum; /* xxh64, seed 0, of the 4096 bytes with this field 0 */
	le64 sequence;
	le64 features_compatible;
	le64 features_read_only;
	le64 features_incompatible;
	uint8_t uuid[16];
	le64 size_bytes;
	le32 chunk_bytes;
	le32 reserved0;
	le64 journal_offset;
	le64 journal_bytes;
	le64 data_offset; /* of the first group */
	le64 epoch;
	le64 journal_sequence; /* of the epoch's first record */
	le64 slot_count;       /* slots that the chunk table covers */
	le64 zero_list_slots;  /* slots that hold the zero list */
	le64 generation;
	le32 parent_format;
	le32 parent_path_bytes;
	le64 parent_size_bytes;
	uint8_t parent_uuid[16];
	le64 parent_generation;
	le64 table_digest; /* of the epochs of the pages that count */
	uint8_t claim[16]; /* the nonce of the last claim under which it was written; zeros: not known */
	le64 parent_stamp; /* of a raw parent; 0: not recorded */
	le64 progress;	   /* under that claim, the order up to which it may have a cache's changes; 0: none */
	uint8_t reserved1[16];
	char parent_path[LEAF_PARENT_PATH_BYTES];
	char children[LEAF_CHILDREN_BYTES]; /* text, ended by a zero byte */
} __attribute__((packed));
_Static_assert(sizeof(struct leaf_header_ondisk) == LEAF_HEADER_BYTES, "header is one block");
_Static_assert(offsetof(struct leaf_header_ondisk, uuid) == 64, "uuid");
_Static_assert(offsetof(struct leaf_header_ondisk, epoch) == 120, "epoch");
_Static_assert(offsetof(struct leaf_header_ondisk, parent_format) == 160, "parent");
_Static_assert(offsetof(struct leaf_header_ondisk, claim) == 208, "claim");
_Static_assert(offsetof(struct leaf_header_ondisk, parent_path) == 256, "parent path");
_Static_assert(offsetof(struct leaf_header_ondisk, parent_stamp) == 224, "parent stamp");
_Static_assert(offsetof(struct leaf_header_ondisk, progress) == 232, "progress");
_Static_assert(offsetof(struct leaf_header_ondisk, children) == 2304, "children");

/* A page of the chunk table. Each page has two places, PAGE_BYTES apart. */
#define LEAF_TABLE_MAGIC 0x5054464c /* "LFTP" */
struct leaf_page_ondisk {
	le32 magic;
	le32 reserved0;
	le64 position;
	le64 checksum;
	le64 epoch;
	le64 first; /* table: first slot; zero list: index of the page */
	le64 image_id;
	le32 entries; /* zero list: intervals in this page; table: 0 */
	uint8_t reserved1[12];
	uint8_t body[LEAF_PAGE_BYTES - 64];
} __attribute__((packed));
_Static_assert(sizeof(struct leaf_page_ondisk) == LEAF_PAGE_BYTES, "page");
_Static_assert(offsetof(struct leaf_page_ondisk, body) == 64, "page body");

/* A table entry; then the presence words, then the zero words, each
 * ceil(blocks per chunk / 64) le64. */
struct leaf_entry_ondisk {
	le64 chunk;
} __attribute__((packed));
#define LEAF_CHUNK_FREE UINT64_MAX
/* CHUNK values from here up to FREE - 1: slot number n of the zero list. */
#define LEAF_CHUNK_ZERO_LIST (UINT64_MAX << 32)

/* Zero list: pages of this magic, filling slots, each interval a run of whole
 * chunks that read as zeros. */
#define LEAF_ZERO_MAGIC 0x4c5a464c /* "LFZL" */
struct leaf_interval_ondisk {
	le64 chunk;
	le64 count;
} __attribute__((packed));
#define LEAF_INTERVALS_PER_PAGE ((LEAF_PAGE_BYTES - 64) / sizeof(struct leaf_interval_ondisk))

/* Journal record: a header, then entries, padded with zeros to a page. */
#define LEAF_RECORD_MAGIC 0x524a464c /* "LFJR" */
struct leaf_record_ondisk {
	le32 magic;
	le32 bytes;
	le64 position;
	le64 checksum;
	le64 epoch;
	le64 sequence;
	le64 image_id;
	le32 entries;
	le32 reserved;
	le64 slot_count;
} __attribute__((packed));
_Static_assert(sizeof(struct leaf_record_ondisk) == 64, "record header");

enum leaf_journal_type {
	LEAF_JOURNAL_CHUNK = 1,	    /* slot, chunk, presence words, zero words */
	LEAF_JOURNAL_FREE = 2,	    /* slot */
	LEAF_JOURNAL_ZERO = 3,	    /* chunk, count: whole chunks read as zeros */
	LEAF_JOURNAL_UNZERO = 4,    /* chunk, count: and now no longer */
	LEAF_JOURNAL_APPLY = 5,	    /* block, blocks, slot, block in slot: copy */
	LEAF_JOURNAL_APPLIED = 6,   /* every APPLY before this is done */
	LEAF_JOURNAL_DATA = 7,	    /* block, blocks, slot: data, in place in the slot */
	LEAF_JOURNAL_ZEROS = 8,	    /* block, blocks, slot: read as zeros */
	LEAF_JOURNAL_DROP = 9,	    /* chunk, count: are in no slot, and not zero */
	LEAF_JOURNAL_PROGRESS = 10, /* claim, order: it may have a cache's changes up to there */
};

/* What APPLY entries name, all of a batch: 1 GiB. */
#define LEAF_OWED_BLOCKS_MAX (UINT64_C(1) << 18)

struct leaf_journal_entry_ondisk {
	le32 type;
	le32 bytes; /* of the entry with this header, a multiple of 8 */
	le64 value[];
} __attribute__((packed));
_Static_assert(sizeof(struct leaf_journal_entry_ondisk) == 8, "journal entry");

#endif
