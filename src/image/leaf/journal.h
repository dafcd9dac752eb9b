/* The journal: records are built here, and replayed. */
#ifndef LEAFDISK_IMAGE_LEAF_JOURNAL_H
#define LEAFDISK_IMAGE_LEAF_JOURNAL_H

#include "dirty.h"
#include "report.h"

/* Applies the journal to the table just loaded; sets journal_position and
 * journal_sequence. Returns the number of records, or -1 after damage. */
int64_t leaf_journal_replay(struct leaf *leaf, struct leaf_report *report);

struct apply_plan;
struct record_builder {
	uint8_t *record;
	uint64_t used;
	uint64_t room;
	uint32_t entries;
	bool overflow;
};
/* The values of a new entry, or NULL and builder->overflow. */
le64 *record_add(struct record_builder *builder, enum leaf_journal_type type, unsigned values);

/* Adds the entries of a batch. */
typedef void leaf_plan_adder(const struct apply_plan *plan, struct record_builder *builder);
/* Builds one record of all that is dirty, which goes to TAKEN, and of PLAN unless that
 * is NULL. Returns its length, 0: nothing to write, -1: does not fit. */
int64_t leaf_journal_build_locked(struct leaf *leaf, const struct apply_plan *plan, leaf_plan_adder *add,
				  struct leaf_dirty *taken);
/* A record with one entry of TYPE and no values. */
int64_t leaf_journal_build_mark_locked(struct leaf *leaf, enum leaf_journal_type type);
/* What the entries of all that is dirty take in a record. */
uint64_t leaf_journal_waiting_bytes_locked(const struct leaf *leaf);
/* The memory that records are built in. */
bool leaf_record_allocate_locked(struct leaf *leaf);
/* Bytes that the journal has left. */
uint64_t leaf_journal_room(const struct leaf *leaf);

#endif
