/* Dynamic thresholds: who may hold how many of a number of slots.
 *
 * What a user may hold depends on what is free (Choudhury and Hahne, Dynamic queue
 * length thresholds for shared-memory packet switches, 1998), and here on its square:
 *
 *     held <= 2 * free * free / slots
 *
 * One alone gets half of all. N that never give theirs back leave some slots / 2N for
 * others even if they came one after the other; `held <= free` would leave slots / 2^N
 * then. What a user may not begin yet waits in a list of its own: in
 * order of arrival within one, by turns among several.
 *
 * Users may be of groups, such as the files of a store. Then that is the rule within a group,
 * with GROUP_SLOTS, and among the groups, with all slots: however many users of a group never
 * give theirs back, they have no more than it has alone.
 *
 * The owner has the lock, if any. A user is a pointer that nobody follows, but GROUP_OF. */
#ifndef LEAFDISK_CORE_SHARES_H
#define LEAFDISK_CORE_SHARES_H

#include <stdbool.h>
#include <stdint.h>

#include "core/list.h"

#define SHARES_BUCKETS 64

/* That rule alone: who holds HELD of SLOTS, of which TAKEN are held by anybody, may have
 * one more. SLOTS is below 2^32. */
static inline bool shares_allow(uint64_t held, uint64_t taken, uint64_t slots)
{
	return taken < slots && held * slots / 2 <= (slots - taken) * (slots - taken);
}

struct share_group {
	uint64_t name;
	unsigned held;
	unsigned users; /* with a share */
	struct share_group *next;
};

/* Of a user that holds a slot or has something waiting. */
struct share {
	const void *user;
	struct share_group *group; /* NULL: there are none */
	unsigned held;
	struct list waiting;
	struct list turn;   /* on shares->turns while something waits */
	struct share *next; /* in its bucket, or among the spare ones */
};

struct shares {
	unsigned slots; /* the owner's, who may change it */
	unsigned held;
	struct list turns;
	struct share *spare;
	struct share *buckets[SHARES_BUCKETS];
	unsigned group_slots;			/* the owner's, who may change it */
	uint64_t (*group_of)(const void *user); /* NULL: no groups */
	struct share_group *spare_groups;
	struct share_group *groups[SHARES_BUCKETS];
};

#define SHARES_INIT(name, count)                                                                                       \
	{                                                                                                              \
		.slots = (count), .turns = LIST_INIT((name).turns)                                                     \
	}

#define SHARES_INIT_GROUPS(name, count, count_of_group, groups)                                                        \
	{                                                                                                              \
		.slots = (count), .turns = LIST_INIT((name).turns), .group_slots = (count_of_group),                   \
		.group_of = (groups)                                                                                   \
	}

/* Room for ROOM users at once is made here; more of them allocate. */
void shares_init(struct shares *shares, unsigned slots, unsigned room);
/* GROUP_OF tells the group of a user that begins something or waits. Before the first does. */
void shares_set_groups(struct shares *shares, unsigned slots, uint64_t (*group_of)(const void *user));
/* Nobody holds a slot or waits. */
void shares_clear(struct shares *shares);

/* USER may begin something: it holds few enough slots, and nothing of its own waits. */
bool shares_may_begin(const struct shares *shares, const void *user);
/* A slot for USER, who may have one. To be given back by shares_put(). */
struct share *shares_take(struct shares *shares, const void *user);
void shares_put(struct shares *shares, struct share *share);

/* NODE, on no list, waits behind what else of USER does. It may be removed from
 * the list again, and after that shares_tidy() called. */
void shares_wait(struct shares *shares, const void *user, struct list *node);
/* The next that waits and may have a slot now, off the list, and in *USER whose
 * it is; NULL: none. */
struct list *shares_next(struct shares *shares, const void **user);
/* Whether there is a next. */
bool shares_has_next(const struct shares *shares);
static inline bool shares_somebody_waits(const struct shares *shares)
{
	return !list_is_empty(&shares->turns);
}
/* Forgets who has nothing left, after nodes of waiting lists were removed. */
void shares_tidy(struct shares *shares);

#endif
