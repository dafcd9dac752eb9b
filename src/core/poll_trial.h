/* Whether polling before a sleep pays, found out by trying.
 *
 * Pure: the caller brings the clock. */
#ifndef LEAFDISK_CORE_POLL_TRIAL_H
#define LEAFDISK_CORE_POLL_TRIAL_H

#include <stdbool.h>
#include <stdint.h>

struct poll_trial {
	bool pays;	   /* the last verdict */
	unsigned slice;	   /* where in the cycle */
	uint64_t start_ns; /* of the slice */
	uint64_t events;   /* in the slice */
	double rate;	   /* events per ns of the way that `pays` says */
};

/* A zeroed trial is one that begins. To be called whenever there is nothing
 * left to do: EVENTS have been handled since the last call. Returns whether to
 * poll now. */
bool poll_trial_step(struct poll_trial *trial, uint64_t now_ns, unsigned events);

#endif
