/* On-disk layout of the cache, version 2, and what it has of version 1.
 *
 * The byte-by-byte specification, the validity rules and the order of writes
 * are in leafdisk-cache(5); this file is its C form and nothing else.
 *
 * A cache file or device is two superblock copies and a ring of segments from
 * CACHE_SEGMENTS_OFFSET on. A segment holds records, one behind the other,
 * none across its end. A record is a header block and the data blocks that its
 * entries name, in their order. Where less than two blocks are left in a
 * segment the next record begins the next one.
 *
 * A cache of version 1 becomes one of version 2 with the superblock that its next
 * mount writes; its records stay as they are, before those of version 2, until their
 * segments are reclaimed. */
#ifndef LEAFDISK_FORMAT_CACHE_H
#define LEAFDISK_FORMAT_CACHE_H

#include <stddef.h>

#include "core/bytes.h"

#define CACHE_MAGIC "LEAFCACH"
#define CACHE_VERSION 2
#define CACHE_VERSION_MIN 1 /* that is read */
#define CACHE_SUPER_BYTES 4096
#define CACHE_SUPER_COPIES 2
#define CACHE_SUPER_OFFSET(copy) ((uint64_t)(copy)*65536)
#define CACHE_SEGMENTS_OFFSET (1 << 20)
#define CACHE_SEGMENT_BYTES (1 << 20)
#define CACHE_SEGMENT_BLOCKS (CACHE_SEGMENT_BYTES / 4096)
#define CACHE_SEGMENTS_MIN 7
/* Slots are numbered in 32 bits: 16 TiB. */
#define CACHE_SEGMENTS_MAX ((UINT64_C(1) << 32) / CACHE_SEGMENT_BLOCKS - 1)
#define CACHE_BYTES_MIN (CACHE_SEGMENTS_OFFSET + (uint64_t)CACHE_SEGMENTS_MIN * CACHE_SEGMENT_BYTES)
#define CACHE_POOL_PATH_BYTES 2048
#define CACHE_MOUNTS 112
#define CACHE_LAYER_NAME_BYTES 256
/* Layer ids are in [1, MAX]; blocks in [0, 2^51). */
#define CACHE_LAYER_MAX ((1u << 24) - 1)
#define CACHE_BLOCK_END (UINT64_C(1) << 51)

#define CACHE_FEATURES_COMPATIBLE UINT64_C(0)
#define CACHE_FEATURES_READ_ONLY UINT64_C(0)
#define CACHE_FEATURES_INCOMPATIBLE UINT64_C(0)

struct cache_super_ondisk {
	char magic[8];
	le32 version;
	le32 super_bytes;
	le64 position; /* of this copy in the file */
	le64 checksum; /* xxh64, seed 0, of the 4096 bytes with this field 0 */
	le64 sequence; /* modulo 2 the number of this copy; the valid copy with the higher one counts */
	le64 features_compatible;
	le64 features_read_only;
	le64 features_incompatible;
	uint8_t uuid[16];    /* of the cache */
	uint8_t pool_id[16]; /* of the pool that it belongs to */
	le32 segment_bytes;
	le32 reserved0;
	le64 segments;	    /* in the file */
	le64 ring_segments; /* in the ring; more join it where the ring wraps */
	le64 generation;    /* raised before a mount's first append */
	le64 tail_segment;  /* the oldest record begins it */
	le64 tail_sequence; /* and has this sequence */
	le64 tail_previous; /* and this hash of its predecessor */
	le32 pool_path_bytes;
	le32 reserved1;
	/* A mount that came to its end set it to the sequence that the next record has: all
	 * before are durable, and there are none from there on. 0: nobody knows. */
	le64 end_sequence;
	/* Layers of which the log has nothing any more may have had changes in this generation or
	 * an earlier one; 0: it has lost none. */
	le64 lost_generation;
	uint8_t reserved2[80];
	char pool_path[CACHE_POOL_PATH_BYTES]; /* for messages */
	/* The numbers of the last mounts, each at its generation modulo CACHE_MOUNTS; zeros: not
	 * known. A copy of the cache has those that came before it, and its own. */
	uint8_t mounts[CACHE_MOUNTS][16];
} __attribute__((packed));
_Static_assert(sizeof(struct cache_super_ondisk) == CACHE_SUPER_BYTES, "superblock is one block");
_Static_assert(offsetof(struct cache_super_ondisk, mounts) == 2304, "mounts");
_Static_assert(offsetof(struct cache_super_ondisk, uuid) == 64, "uuid");
_Static_assert(offsetof(struct cache_super_ondisk, segment_bytes) == 96, "segment_bytes");
_Static_assert(offsetof(struct cache_super_ondisk, pool_path) == 256, "pool path");

/* A record's header: one block. Entries follow the fixed part. */
#define CACHE_RECORD_MAGIC 0x3252464c	/* "LFR2" */
#define CACHE_RECORD_MAGIC_1 0x5243464c /* "LFCR", of version 1 */
#define CACHE_RECORD_BODY_BYTES (4096 - 80)
struct cache_record_ondisk {
	le32 magic;
	le32 blocks;   /* of data behind the header */
	le64 position; /* of the header in the file */
	le64 checksum; /* xxh64, seed 0, of the 4096 bytes with this field 0 */
	le64 cache_id; /* the first 8 bytes of the cache's uuid */
	le64 generation;
	le64 sequence;
	le64 previous; /* checksum of the record before it */
	le64 durable;  /* every record up to this sequence was durable when this one was built; 0: none known */
	/* LAST entries name every layer that this many records before this one have
	 * changed; 0 in version 1. */
	le32 depth;
	le32 entries_bytes;  /* used in BODY */
	le64 mount_sequence; /* of the first record of this generation; 0 in version 1 */
	uint8_t body[CACHE_RECORD_BODY_BYTES];
} __attribute__((packed));
_Static_assert(sizeof(struct cache_record_ondisk) == 4096, "record header");
_Static_assert(offsetof(struct cache_record_ondisk, body) == 80, "record body");

/* An entry; WORDS le64 follow it. */
struct cache_entry_ondisk {
	le32 layer;
	le16 kind;
	le16 words;
	le64 block;
} __attribute__((packed));
_Static_assert(sizeof(struct cache_entry_ondisk) == 16, "entry header");

enum cache_entry_kind {
	/* WORDS blocks of data from BLOCK on, each word the xxh64 of one. */
	CACHE_ENTRY_CLEAN = 1, /* the layer's image has the same */
	CACHE_ENTRY_DIRTY = 2, /* it does not have it yet */
	/* One word: how many blocks from BLOCK on. */
	CACHE_ENTRY_ZERO = 3,	/* read as zeros, the image does not know yet */
	CACHE_ENTRY_FORGET = 4, /* the cache has nothing of these any more */
	/* BLOCK 0; struct cache_layer_ondisk and the name, zero-padded to words. */
	CACHE_ENTRY_LAYER = 5,
	/* BLOCK 0, no words: the layer's entries before this one are void. */
	CACHE_ENTRY_DROP = 6,
	/* BLOCK 0, no words: an epoch of the layer ends here. */
	CACHE_ENTRY_BARRIER = 7,
	/* BLOCK is the order of a BARRIER of the layer, no words. In version 1 BLOCK is 0 and
	 * two words name it: the slot of its record, and how many data blocks of that record
	 * come before it. */
	CACHE_ENTRY_MIGRATE = 8,  /* from here on the image may have what is DIRTY or ZERO up to it */
	CACHE_ENTRY_MIGRATED = 9, /* the image has that: it is clean */
	/* BLOCK is the sequence of the last record before this one that changed the layer, 0:
	 * there is none; no words. A record that changes a layer has one before all else
	 * that it says of it. */
	CACHE_ENTRY_LAST = 10,
	/* DIRTY, from an earlier place. One word more before the others: its order. */
	CACHE_ENTRY_MOVED = 11,
	/* ZERO, from an earlier place. Two words: how many blocks, and its order. */
	CACHE_ENTRY_MOVED_ZERO = 12,
	/* BARRIER, from an earlier place. BLOCK is its order, no words. */
	CACHE_ENTRY_MOVED_BARRIER = 13,
};

/* The order of DIRTY, ZERO and BARRIER is the sequence of the record that they were first
 * in; moved they keep it. Of two versions of a block the one of the higher order is newer,
 * of one order data is newer than zeros. */
#define CACHE_ORDER_END (UINT64_C(1) << 45)
/* In a MOVED word beside the order: no read finds it, it is for its epoch only. */
#define CACHE_ORDER_SUPERSEDED (UINT64_C(1) << 63)
/* And: it was damaged before it was moved; its data is not what was put. */
#define CACHE_ORDER_DAMAGED (UINT64_C(1) << 62)

/* What CACHE_ENTRY_LAYER says of its layer; a later one replaces it. Version 1 has no
 * more than the first 48 bytes. */
#define CACHE_LAYER_BYTES_1 48
struct cache_layer_ondisk {
	uint8_t identity[16];
	le64 stamp; /* of the image, when its cached blocks were last known good; 0: they are not */
	le64 size_bytes;
	le64 generation; /* of the image's ownership under which its blocks are good; 0: none */
	le32 name_bytes;
	le32 flags;
	uint8_t nonce[16];  /* of the claim under which its blocks are dirty; zeros: none */
	le32 orphan_reason; /* an orphan: enum cache_orphan_reason */
	le32 reserved;
	le64 orphan_time_ns; /* and since when, from the epoch on; 0: not known */
} __attribute__((packed));
_Static_assert(sizeof(struct cache_layer_ondisk) == 80, "layer");
_Static_assert(offsetof(struct cache_layer_ondisk, nonce) == CACHE_LAYER_BYTES_1, "layer");

/* FLAGS of a layer. */
#define CACHE_LAYER_ORPHAN 1u	  /* its image has another owner now: what is dirty stays here */
#define CACHE_LAYER_INCOMPLETE 2u /* the log has lost changes of it */

enum cache_orphan_reason {
	CACHE_ORPHAN_UNKNOWN = 0,  /* of version 1 */
	CACHE_ORPHAN_COMMAND = 1,  /* a command gave them up */
	CACHE_ORPHAN_TAKEN = 2,	   /* another has claimed the image */
	CACHE_ORPHAN_NAMELESS = 3, /* the log has lost which image it is of */
	CACHE_ORPHAN_OLDER = 4,	   /* the image has what came after it, and the log has not: its nonce is a new one */
};

#endif
