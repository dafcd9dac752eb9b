/* The jobs of a migrator: which there are, who may begin another, and what their batches take
 * of memory. */
#ifndef LEAFDISK_MIGRATE_JOBS_H
#define LEAFDISK_MIGRATE_JOBS_H

#include "policy.h"

struct job {
	struct layer *layer;
	struct disk *disk; /* whose leaf it was when the job was begun */
	dev_t store;	   /* the layer's, which may be gone before the job is */
	enum work work;
	bool cut;
	bool hangs; /* longer than a store takes that answers */
	uint64_t begun_ns;
	uint64_t bytes; /* memory of its batch */
	struct list link;
};

/* Under the backlogs' lock. */
struct jobs {
	struct backlogs *backlogs;
	struct list queued; /* struct job: nobody does it yet */
	struct list begun;  /* the others */
};

/* How many are done at once by stores that answer. */
#define JOBS_ANSWERING_MAX 4

void jobs_init(struct jobs *jobs, struct backlogs *backlogs);

/* Whether WORK may begin on LAYER, on which nobody works; if not, and time alone changes that, LOOK
 * knows when. */
bool jobs_allow_locked(struct jobs *jobs, struct look *look, const struct layer *layer, enum work work);
/* What is on its way to a store that hangs is stuck like what a store refuses. */
void jobs_note_hanging(struct jobs *jobs, struct look *look);
/* JOB has done its work: its layer is free for the next. */
void jobs_release_locked(struct jobs *jobs, struct job *job);

/* What the next batch is to have of memory at most, where that can be chosen: in bytes. */
uint64_t jobs_offer_memory(struct jobs *jobs);
/* JOB's batch takes BYTES. False: they are not there, and its layer begins no other until they
 * may be. */
bool jobs_take_memory(struct jobs *jobs, struct job *job, uint64_t bytes);

#endif
