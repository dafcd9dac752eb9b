/* The native layer in memory, shared by the files of this folder.
 *
 * What is stored: for every chunk that has a slot, a struct chunk in the hash
 * (virtual chunk -> chunk), in the ordered tree, and in the slot array (slot ->
 * chunk); whole chunks that read as zeros, as intervals; the state of every
 * slot. It follows the inverted table on disk, whose size is that of what is
 * allocated.
 *
 * Invariants (leaf_table_assert_locked() checks 1 to 3 in debug builds):
 *  1. hash[c] == k implies k->index == c and slots[k->slot].chunk == k; the tree
 *     has the same chunks.
 *  2. A chunk in the hash is in no zero interval.
 *  3. A slot has one state, and is in the list of that state (slots.c); it is
 *     free only when no punch and no transfer of it is under way.
 *  4. A block is present only after its data has been written; a record or
 *     page names it only when that data was flushed after.
 *  5. A slot is handed out again only when no table or record that may be
 *     durable names its last owner (NAMED, slots.c).
 *
 * Locking: LOCK guards everything below it in struct leaf; never held across
 * I/O. Commits are serial: one runs, the flushes that arrive meanwhile share
 * the next (commit.c). */
#ifndef LEAFDISK_IMAGE_LEAF_LEAF_H
#define LEAFDISK_IMAGE_LEAF_LEAF_H

#include "../driver.h"
#include "../file.h"
#include "format/leaf.h"
#include "core/intervals.h"

/* Everything that follows from the chunk size. */
struct leaf_geometry {
	uint64_t chunk_bytes;
	unsigned chunk_shift;
	uint32_t chunk_blocks;
	uint32_t words; /* of presence, and of zero bits */
	uint32_t entry_bytes;
	uint32_t entries_per_page;
	uint64_t pages_per_group;
	uint64_t slots_per_group;
	uint64_t group_bytes;
	uint64_t data_offset;
};

void leaf_geometry_init(struct leaf_geometry *geometry, uint32_t chunk_bytes, uint64_t data_offset);
uint64_t leaf_slot_offset(const struct leaf_geometry *geometry, uint64_t slot);
/* Of the page's first place; the second is LEAF_PAGE_BYTES behind. */
uint64_t leaf_page_offset(const struct leaf_geometry *geometry, uint64_t page);
/* Slots that lie wholly inside FILE_BYTES. */
uint64_t leaf_slots_within(const struct leaf_geometry *geometry, uint64_t file_bytes);

struct chunk {
	uint64_t index; /* virtual chunk, or LEAF_CHUNK_ZERO_LIST + n */
	uint64_t slot;
	uint32_t users;		 /* transfers in flight */
	uint32_t writers;	 /* those of them that write */
	uint32_t dirty_position; /* in leaf->dirty */
	bool dirty;		 /* changed by a hard write since the last commit */
	bool soft;		 /* has blocks of soft writes that no record or page names */
	bool dead;		 /* gone from the hash and its slot, which it pins until the last user is back */
	uint64_t bits[];	 /* presence words, then zero words */
};

/* slots.c has the transitions. */
enum slot_state {
	SLOT_FREE,    /* nothing names it, nothing is under way on it: may be handed out */
	SLOT_SPARE,   /* the same, and kept for the zero list */
	SLOT_TAKEN,   /* has an owner, of which nothing on disk knows */
	SLOT_NAMED,   /* has one, and a record or page that may be on disk says so */
	SLOT_FREED,   /* lost its owner; the next commit tells the disk */
	SLOT_FREEING, /* the commit under way tells the disk */
	SLOT_BUSY,    /* nothing names it any more, a punch or a transfer of it is under way */
	SLOT_STATES
};

struct slot {
	struct chunk *chunk; /* the owner, NULL unless TAKEN or NAMED */
	uint32_t pins;	     /* punches under way, and dead chunks with users */
	enum slot_state state;
};

/* A journal event that is not the state of a chunk. */
struct leaf_event {
	uint32_t type; /* LEAF_JOURNAL_ZERO or _UNZERO */
	uint64_t chunk;
	uint64_t count;
};

struct leaf_redo {
	uint64_t block;
	uint64_t blocks;
	uint64_t slot;
	uint64_t slot_block;
};

struct leaf_commit;

struct leaf {
	struct image image;
	struct image_file file;
	struct leaf_geometry geometry;
	uint64_t image_id;

	GMutex lock;
	/* As on disk. It changes where a commit ends, from what that commit has
	 * written, and before the first of them. */
	struct leaf_header_ondisk header;
	uint64_t file_bytes;

	GHashTable *chunks; /* uint64_t * (chunk->index) -> struct chunk */
	GTree *ordered;	    /* the same by index: what is next */
	GArray *slots;	    /* struct slot */
	uint64_t slots_max; /* while loading: that a journal may name */
	GArray *free;	    /* uint64_t: the FREE slots, a stack */
	GArray *spare;	    /* uint64_t: SPARE */
	GArray *freed;	    /* uint64_t: FREED */
	GArray *freeing;    /* uint64_t: FREEING */
	struct intervals *zero;
	unsigned zero_promised; /* intervals that a batch under way may add */

	GPtrArray *dirty;	/* struct chunk: to be in the next record */
	GArray *events;		/* struct leaf_event */
	GArray *free_events;	/* uint64_t slots: FREE entries */
	GByteArray *page_dirty; /* per page: differs from the table on disk */
	GByteArray *page_place; /* per page: place of the current copy, 0 or 1 */
	GArray *page_epoch;	/* uint64_t, per page: of the current copy, 0: none yet */
	bool zero_dirty;	/* differs from the zero list on disk */
	bool checkpoint_due; /* the next commit must write the table back: a record that must not count may be there */
	GPtrArray *zero_slots;	/* struct chunk: slots of the zero list */
	unsigned zero_retiring; /* slots that a checkpoint under way replaces */

	uint64_t journal_position; /* file offset of the next record */
	uint64_t journal_sequence; /* of the next record */
	uint8_t *record;	   /* journal_bytes, aligned; NULL until the first commit */

	bool unflushed;		    /* transfers written since the last data flush began */
	struct list flushes;	    /* image_op: wait for the next commit */
	struct list applies;	    /* image_op: wait for a commit of their own */
	struct list resizes;	    /* image_op: the same */
	struct leaf_commit *commit; /* under way, or NULL */

	struct leaf_grow *grow; /* the grow command runs, or NULL */
	uint64_t full_bytes;	/* the size at which it was tried last */
	struct loop_work extension;
	bool extending;	       /* a background thread extends the file, or is about to */
	bool extended_in_vain; /* the last time */
	uint64_t page_room;    /* pages of the table, from the first on, whose room the file has */
	GCond extended;
	struct list room_waiters; /* image_op */

	/* A redo slot that the file has room for, kept from the first batch on. */
	struct chunk *redo_reserve; /* NULL: none, or in use */
	bool redo_reserved;	    /* there is one, or a batch has it */

	GArray *redo; /* struct leaf_redo found at open, by block; their slots are in freed. Empty once it is written */
};

static inline struct leaf *leaf_of(struct image *image)
{
	return container_of(image, struct leaf, image);
}

static inline uint64_t *chunk_present(const struct leaf *leaf, struct chunk *chunk)
{
	(void)leaf;
	return chunk->bits;
}

static inline uint64_t *chunk_zero(const struct leaf *leaf, struct chunk *chunk)
{
	return chunk->bits + leaf->geometry.words;
}

/* Virtual chunks of the image's size. */
static inline uint64_t leaf_chunk_count(const struct leaf *leaf, uint64_t size_bytes)
{
	return (size_bytes >> leaf->geometry.chunk_shift) + ((size_bytes & (leaf->geometry.chunk_bytes - 1)) != 0);
}

/* bits.c: runs in bit arrays. */
void bits_set(uint64_t *words, uint32_t first, uint32_t count);
void bits_clear(uint64_t *words, uint32_t first, uint32_t count);
bool bits_all_set(const uint64_t *words, uint32_t first, uint32_t count);
bool bits_any_set(const uint64_t *words, uint32_t first, uint32_t count);
/* Length, up to COUNT, of the run at FIRST in which both arrays keep the
 * values they have there. */
uint32_t bits_run(const uint64_t *present, const uint64_t *zero, uint32_t first, uint32_t count);
static inline bool bits_test(const uint64_t *words, uint32_t bit)
{
	return words[bit / 64] >> (bit % 64) & 1;
}

/* table.c: chunks, slots and their dirtiness. All _locked. */
struct chunk *leaf_chunk_find(struct leaf *leaf, uint64_t index);
/* The first chunk from INDEX on that has a slot, or NULL. */
struct chunk *leaf_chunk_from(struct leaf *leaf, uint64_t index);
/* Chunks, up to LIMIT, from INDEX on that have no slot; INDEX has none. */
uint64_t leaf_chunks_without_slot_locked(struct leaf *leaf, uint64_t index, uint64_t limit);
/* A new chunk in the lowest free slot: the blocks of a chunk that was in the
 * zero list are zero, others absent. NULL with *ERRNUM (-ENOSPC, -EAGAIN while
 * a block device may grow, -EFBIG). */
struct chunk *leaf_chunk_allocate_locked(struct leaf *leaf, uint64_t index, int *errnum);
/* The chunk at a known slot, when loading. NULL when the slot or the index is taken. */
struct chunk *leaf_chunk_load(struct leaf *leaf, uint64_t index, uint64_t slot);
/* Takes a chunk out again that was loaded. */
void leaf_chunk_unload(struct leaf *leaf, struct chunk *chunk);
void leaf_chunk_mark_dirty_locked(struct leaf *leaf, struct chunk *chunk);
void leaf_page_mark_dirty_locked(struct leaf *leaf, uint64_t slot);
/* What is dirty goes to TAKEN, which a commit writes; it comes back when that has
 * failed and the disk is as before. */
struct leaf_dirty {
	GArray *slots;	     /* uint64_t: of chunks */
	GArray *events;	     /* struct leaf_event */
	GArray *free_events; /* uint64_t */
};
void leaf_dirty_take_locked(struct leaf *leaf, struct leaf_dirty *taken);
void leaf_dirty_restore_locked(struct leaf *leaf, struct leaf_dirty *taken);
void leaf_dirty_clear(struct leaf_dirty *taken);
/* Takes the chunk out of the table; its slot is free after the next commit, or at
 * once when nothing on disk names it. */
void leaf_chunk_remove_locked(struct leaf *leaf, struct chunk *chunk);
/* The same for a chunk that the record of the commit under way drops: its slot
 * is free when that ends. */
void leaf_chunk_drop_locked(struct leaf *leaf, struct chunk *chunk);
/* The same where what named its slot, if anything, does not count any more. */
void leaf_chunk_return_locked(struct leaf *leaf, struct chunk *chunk);
/* A transfer ends. */
void leaf_chunk_put_locked(struct leaf *leaf, struct chunk *chunk, bool writer);
bool leaf_chunk_is_empty(const struct leaf *leaf, struct chunk *chunk);
bool leaf_chunk_is_zero(const struct leaf *leaf, struct chunk *chunk);
void leaf_event_locked(struct leaf *leaf, uint32_t type, uint64_t chunk, uint64_t count);
void leaf_table_init(struct leaf *leaf);
void leaf_table_clear(struct leaf *leaf);
/* Invariants 1 to 3; does nothing in a release build. Costs what the table has:
 * where a commit ends, or an image is closed. */
void leaf_table_assert_locked(struct leaf *leaf);
/* Page of SLOT. */
uint64_t leaf_page_of(const struct leaf *leaf, uint64_t slot);
/* What PAGE with EPOCH adds to the header's table_digest; epoch 0: nothing. */
uint64_t leaf_page_digest(uint64_t page, uint64_t epoch);

/* slots.c: who has a slot, and when it may be handed out again. All _locked. */
static inline struct slot *leaf_slot(const struct leaf *leaf, uint64_t slot)
{
	return &g_array_index(leaf->slots, struct slot, slot);
}
/* The chunk in SLOT, NULL: none. */
static inline struct chunk *leaf_slot_chunk(const struct leaf *leaf, uint64_t slot)
{
	return slot < leaf->slots->len ? leaf_slot(leaf, slot)->chunk : NULL;
}
/* A slot of the file for INDEX, without putting the chunk in the hash. NULL with
 * *ERRNUM as for leaf_chunk_allocate_locked(). */
struct chunk *leaf_slot_take_locked(struct leaf *leaf, uint64_t index, int *errnum);
/* The reserve has slots for a zero list of so many intervals MORE. Errors as
 * above. */
int leaf_spare_reserve_locked(struct leaf *leaf, unsigned more);
/* One of the reserve, for a checkpoint: NULL and -ENOSPC where there is none,
 * -EAGAIN when the file has to be extended. */
struct chunk *leaf_spare_take_locked(struct leaf *leaf, uint64_t index, int *errnum);
/* CHUNK goes, and nothing on disk names its slot. */
void leaf_spare_return_locked(struct leaf *leaf, struct chunk *chunk);
/* The reserve is no larger than it need be. */
void leaf_spare_trim_locked(struct leaf *leaf);
/* A record or a page that has CHUNK's slot is made, to be written. */
void leaf_slot_name_locked(struct leaf *leaf, const struct chunk *chunk);
/* None that has it counts (any more). */
void leaf_slot_unname_locked(struct leaf *leaf, const struct chunk *chunk);
static inline bool leaf_slot_is_named(const struct leaf *leaf, const struct chunk *chunk)
{
	return leaf_slot(leaf, chunk->slot)->state == SLOT_NAMED;
}
/* CHUNK loses its slot, which becomes STATE: FREED, FREEING, or FREE. */
void leaf_slot_release_locked(struct leaf *leaf, struct chunk *chunk, enum slot_state state);
/* The slot is not handed out before the last pin is gone. */
void leaf_slot_pin_locked(struct leaf *leaf, uint64_t slot);
void leaf_slot_unpin_locked(struct leaf *leaf, uint64_t slot);
/* What is FREED is told by the commit that begins; when it ends it is free, or
 * waits for the next. */
void leaf_slots_commit_begins_locked(struct leaf *leaf);
void leaf_slots_commit_ends_locked(struct leaf *leaf, bool durable);
/* Grows slots to have SLOT, found on disk. */
void leaf_slots_cover_locked(struct leaf *leaf, uint64_t slot);
/* CHUNK in its slot, found on disk, which has no owner. */
void leaf_slot_load(struct leaf *leaf, struct chunk *chunk);
void leaf_slot_unload(struct leaf *leaf, struct chunk *chunk);
/* After loading: slots with no owner become free, those of redo extents with
 * the next commit. */
void leaf_slots_find_free(struct leaf *leaf);
void leaf_slots_assert_locked(struct leaf *leaf);

/* table.c */
struct chunk *leaf_chunk_new(const struct leaf *leaf, uint64_t index, uint64_t slot);
/* Grows page_dirty, page_place and page_epoch to cover all slots. */
void leaf_pages_cover_locked(struct leaf *leaf);

/* format.c: encode, and validate before use. */
void leaf_header_seal(struct leaf_header_ondisk *header, unsigned copy);
/* NULL when the copy is valid, else why not (a literal). */
const char *leaf_header_damage(const struct leaf_header_ondisk *header, unsigned copy);
/* False and ERROR: a valid header that this version cannot or may not use. */
bool leaf_header_usable(const struct leaf_header_ondisk *header, const char *path, bool *read_only, GError **error);
void leaf_page_seal(struct leaf_page_ondisk *page, uint32_t magic, uint64_t position, uint64_t epoch, uint64_t first,
		    uint64_t image_id);
bool leaf_page_is_valid(const struct leaf_page_ondisk *page, uint32_t magic, uint64_t position, uint64_t max_epoch,
			uint64_t first, uint64_t image_id);
void leaf_record_seal(void *record, uint32_t bytes, uint64_t position, uint64_t epoch, uint64_t sequence,
		      uint64_t image_id, uint32_t entries, uint64_t slot_count);
/* AVAILABLE: bytes at RECORD. Returns the record's length, 0: not valid. */
uint32_t leaf_record_validate(const void *record, uint64_t available, uint64_t position, uint64_t epoch,
			      uint64_t sequence, uint64_t image_id);
void leaf_entry_encode(const struct leaf *leaf, struct chunk *chunk, le64 *out); /* index, presence, zero */

/* load.c: from disk to memory. REPORT collects damages; with report->finding
 * NULL the first one fails the load. */
struct leaf_report {
	image_finding finding;
	void *opaque;
	bool repairing;
	uint64_t damages;
	unsigned bad_copies; /* of the header: a crash can leave one */
	GError **error;
	const char *path;
	int64_t began_us; /* processor time of the thread, as the load began */
	uint64_t pages;	  /* of the table, found sound so far */
	bool gave_up;	  /* it took too long */
};
/* Always false, for "return leaf_damage(...)" in opening; in checking the
 * caller may go on. */
bool leaf_damage(struct leaf_report *report, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* False: there is damage enough, or the load has taken more of a processor than
 * any sound image's would. Asked at least once for each page that is read. */
bool leaf_load_goes_on(struct leaf_report *report);
struct leaf *leaf_load(int fd, const char *path, unsigned flags, struct leaf_report *report);
void leaf_free(struct leaf *leaf);

/* header.c: the two copies. All block. */
/* The copy that counts. False: neither does. */
bool leaf_header_read(struct image_file *file, struct leaf_header_ondisk *header, struct leaf_report *report);
/* What was read is made durable, and the copy that lags or is damaged is
 * written. Before the first write to an image that was loaded. 0 or -errno:
 * nothing may be written then. */
int leaf_header_level(struct image_file *file);
/* HEADER with its sequence raised: both copies, each flushed; they must be
 * level. 0 or -errno: they may no longer be. */
int leaf_header_write(struct image_file *file, struct leaf_header_ondisk *header);

/* journal.c */
/* Applies the journal to the table just loaded; sets journal_position and
 * journal_sequence. Returns the number of records, or -1 after damage. */
int64_t leaf_journal_replay(struct leaf *leaf, struct leaf_report *report);
/* Builds one record of all that is dirty, which goes to TAKEN. Returns its
 * length, 0: nothing to write, -1: does not fit. */
struct apply_plan;
int64_t leaf_journal_build_locked(struct leaf *leaf, struct apply_plan *plan, struct leaf_dirty *taken);
/* A record with one entry of TYPE and no values. */
int64_t leaf_journal_build_mark_locked(struct leaf *leaf, enum leaf_journal_type type);
/* What the entries of all that is dirty take in a record. */
uint64_t leaf_journal_waiting_bytes_locked(const struct leaf *leaf);
/* The memory that records are built in. */
bool leaf_record_allocate_locked(struct leaf *leaf);
/* Bytes that the journal has left. */
uint64_t leaf_journal_room(const struct leaf *leaf);
struct record_builder {
	uint8_t *record;
	uint64_t used;
	uint64_t room;
	uint32_t entries;
	bool overflow;
};
/* The values of a new entry, or NULL and builder->overflow. */
le64 *record_add(struct record_builder *builder, enum leaf_journal_type type, unsigned values);

/* commit.c */
void leaf_flush(struct image *image, struct image_op *op);
void leaf_apply(struct image *image, struct image_op *op);

/* redo.c: what a crash in the middle of a batch left owed. All block. */
/* After loading: in order of their blocks. Those that cannot be are damage. */
void leaf_redo_check(struct leaf *leaf, struct leaf_report *report);
/* Where the data of BLOCK is, whose own place is OFFSET: there, or in a redo
 * slot. *BLOCKS: cut to what is next to it. */
uint64_t leaf_redo_place(const struct leaf *leaf, uint64_t block, uint64_t offset, uint64_t *blocks);
/* Makes the copies; they are owed until a checkpoint is durable. 0 or -errno. */
int leaf_redo_copy(struct leaf *leaf);
/* Makes the copies and a checkpoint. 0 or -errno. */
int leaf_redo_finish(struct leaf *leaf);

/* plan.c */
/* Single-block extents of a batch that always fit a journal of that length. */
unsigned leaf_apply_extents_max(uint64_t journal_bytes);

/* checkpoint.c */
struct leaf_checkpoint;
struct leaf_resize;
/* What is to be written, as of now, with RESIZE unless NULL; what is dirty goes
 * to TAKEN. NULL with *ERRNUM when the zero list finds no slot. */
struct leaf_checkpoint *leaf_checkpoint_prepare_locked(struct leaf *leaf, const struct leaf_resize *resize,
						       struct leaf_dirty *taken, int *errnum);
/* Pages, flush, header. Blocks; any thread. 0 or -errno; *HEADER_TOUCHED: the
 * header may have changed on disk. */
int leaf_checkpoint_write(struct leaf *leaf, struct leaf_checkpoint *checkpoint, bool *header_touched);
void leaf_checkpoint_done_locked(struct leaf *leaf, struct leaf_checkpoint *checkpoint);
/* It was not written: the header on disk is as before. */
void leaf_checkpoint_undo_locked(struct leaf *leaf, struct leaf_checkpoint *checkpoint);
void leaf_checkpoint_free(struct leaf_checkpoint *checkpoint);
/* Slots that a zero list of so many intervals fills. */
uint64_t leaf_zero_list_slots(const struct leaf *leaf, uint64_t intervals);
/* Everything is to be written again. */
void leaf_dirty_everything_locked(struct leaf *leaf);
/* Writes all of the table back. While nobody else has the image; blocks. 0 or -errno. */
int leaf_checkpoint_everything(struct leaf *leaf);

/* io.c */
struct image_extent leaf_extent(struct image *image, uint64_t block, uint64_t blocks, bool may_block);
struct image_extent leaf_read(struct image_io *io);
int64_t leaf_write(struct image_io *io);

/* resize.c */
void leaf_resize(struct image *image, struct image_op *op);

/* discard.c */
void leaf_zero(struct image *image, struct image_op *op);
/* A run of blocks: a part of chunk HEAD, whole chunks, the start of TAIL. */
struct leaf_zero_parts {
	uint64_t head;
	uint32_t head_first;
	uint32_t head_blocks;
	struct interval whole;
	uint64_t tail;
	uint32_t tail_blocks;
};
/* Of the blocks [FIRST, END); the image's last, partial chunk counts as whole. */
struct leaf_zero_parts leaf_zero_parts(const struct leaf *leaf, uint64_t first, uint64_t end);
/* The same for an image that ends at IMAGE_END. */
struct leaf_zero_parts leaf_zero_parts_of(const struct leaf *leaf, uint64_t first, uint64_t end, uint64_t image_end);
/* Blocks from END on, which no durable table names any more, go and are punched.
 * Blocks. */
void leaf_zero_cut(struct leaf *leaf, uint64_t end);
/* Whether chunks in [FIRST, END) may join the zero list: errors as for
 * leaf_spare_reserve_locked(). */
int leaf_zero_reserve_locked(struct leaf *leaf, uint64_t first, uint64_t end);
/* What the durable record of the commit under way says is zero becomes so in
 * memory, and is punched. Block. */
void leaf_zero_recorded_part(struct leaf *leaf, struct chunk *chunk, uint32_t first, uint32_t count);
void leaf_zero_recorded_chunks(struct leaf *leaf, struct interval chunks, bool bottom);
/* leaf_chunk_put_locked() of a writer; a chunk that is all zeros then loses its
 * slot and joins the zero list. */
void leaf_zero_put_locked(struct leaf *leaf, struct chunk *chunk, bool bottom);

/* room.c */
/* Calls OP's done when it may be worth to try again, or with the error that kept
 * the file from being extended. */
void leaf_wait_room(struct image *image, struct image_op *op);
/* Whether the file reaches to the end of SLOT, and has the room for its page. */
bool leaf_room_covers_locked(const struct leaf *leaf, uint64_t slot);
/* True: the file is to be extended ahead of use: leaf_room_ahead() follows,
 * without the lock. */
bool leaf_room_ahead_locked(struct leaf *leaf);
void leaf_room_ahead(struct leaf *leaf);
/* Those that wait try again, or get RESULT. */
void leaf_room_came_locked(struct leaf *leaf, int result);
/* The same from a background thread that needs a slot to go on: lets the lock go
 * meanwhile. -EAGAIN: another extends the file, or a command the device. */
int leaf_room_extend_locked(struct leaf *leaf);
/* While nobody else has the image: extends the file for the next slot. Blocks. 0
 * or -errno. */
int leaf_room_extend(struct leaf *leaf);
/* Before the leaf is freed. Blocks, for the kernel only. */
void leaf_room_settle(struct leaf *leaf);

/* grow.c */
/* -EAGAIN when the device may grow (and starts that), else -ENOSPC. */
int leaf_no_room_locked(struct leaf *leaf);
/* The leaf is closed, whatever the command does. */
void leaf_grow_detach(struct leaf *leaf);

/* create.c */
bool leaf_create(int directory, const char *path, const struct image_create_options *options, GError **error);
bool leaf_set_parent(const char *path, const struct image_parent *parent, GError **error);
bool leaf_read_info(int fd, const char *path, struct image_info *info, GError **error);
void leaf_parent_encode(struct leaf_header_ondisk *header, const struct image_parent *parent);
void leaf_parent_decode(const struct leaf_header_ondisk *header, struct image_parent *parent);

/* check.c */
bool leaf_check(const char *path, bool repair, image_finding finding, void *opaque, struct image_check_result *result,
		GError **error);

#endif
