/* A layer's backlog: what is dirty in the cache and not on its image yet.
 *
 * Here is what requests, opens and drains say and ask; the migrator works it off. */
#ifndef LEAFDISK_LAYER_BACKLOG_H
#define LEAFDISK_LAYER_BACKLOG_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "core/list.h"
#include "core/lock.h"
#include "core/loop.h"

struct layer;

/* How a layer's dirty blocks fare. Which may follow which, and by whom: backlog.c. */
enum layer_state {
	LAYER_CLEAN,	/* nothing of it is dirty, nor becomes so as it is now */
	LAYER_DIRTY,	/* what is written to it may be dirty */
	LAYER_RETRYING, /* so, and its image or its record did not take the last try */
	LAYER_AWAY,	/* the cache fails: what is written goes to the image until that is over */
	LAYER_LOST,	/* another has its image; until it is opened anew */
	LAYER_FAILED,	/* the cache has lost some of what was dirty; until it is opened anew */
};

/* What the migrator does with it. */
enum backlog_work {
	BACKLOG_IDLE,
	BACKLOG_CHANGING, /* its state, or who stands on it */
	BACKLOG_MOVING,	  /* a batch: image and share stay as they are */
};

/* Somebody waits until nothing of a layer is dirty. */
struct drain {
	struct loop *loop;
	struct loop_task task; /* posted once */
	int result;	       /* 0, or why that will take long: -errno */
	struct list link;
};

/* Under the lock of the pool's backlogs. */
struct backlog {
	struct list link; /* on the pool's list */
	enum layer_state state;
	enum backlog_work work;
	struct list waiters; /* struct drain */
	unsigned urged;	     /* who wants all of it written back */
	unsigned held;	     /* who wants no batch of it to begin */

	uint64_t batch_needs; /* memory that the last batch did not get; 0: none did not */
	unsigned batch_max;   /* blocks; less than is tuned while the store is full */
	bool in_pieces;	      /* the batch has discards that are to make room for the rest of it */
	bool lent;	      /* see backlog_lend_image() */
	struct layer *after;  /* the sealed layer below it, which goes first while it is dirty; NULL: none */
	bool wanted;	      /* so that another one above it can go */
	uint64_t owned_at_ns; /* when its owner record was read; 0: it is to be read (migrate/owned.c) */
	unsigned looks;	      /* how often that was asked for */

	unsigned failures; /* in a row */
	int error;	   /* of the last one: -errno */
	uint64_t retry_at_ns;
	char *reason;	       /* NULL: none; freed with the layer */
	struct timespec since; /* when that became so */
};

/* Those of a pool. The lock guards the list and every layer's struct backlog; it is
 * taken inside open_lock. */
struct backlogs {
	struct lock lock;
	struct condition changed; /* nobody works on a layer any more */
	struct list layers;	  /* by backlog.link */
};
void backlogs_init(struct backlogs *backlogs);
void backlogs_clear(struct backlogs *backlogs);

void backlog_init(struct backlog *backlog);

/* LAYER's share is DIRTY from now on, until it is detached; blocks until no batch is
 * under way. Detaching again, or what was never attached, has no effect. Returns what
 * it was while it was attached. */
void backlog_attach(struct layer *layer);
/* LAYER, which has no share, is AWAY from now on, for REASON; as for the rest. */
void backlog_attach_away(struct layer *layer, const char *reason);
enum layer_state backlog_detach(struct layer *layer);

/* Posts DRAIN's task once nothing of LAYER is dirty, or it failed for a while. */
void backlog_drain(struct layer *layer, struct drain *drain);
/* Requests that wait for the migrator are woken, with -EAGAIN for a result: the
 * gate is being closed. */
void backlog_send_back(struct layer *layer);
/* All of LAYER is wanted on its image (+1), or no longer (-1). */
void backlog_urge(struct layer *layer, int change);
/* No batch of LAYER begins until it is let go; one that is under way is waited for, while GO_ON says so, which is asked
 * several times a second. False: it did not, and nothing is held. Nobody else has to do with LAYER's claim
 * meanwhile, for who has its disk's open_lock. */
bool backlog_hold(struct layer *layer, bool (*go_on)(void *opaque), void *opaque);
void backlog_let_go(struct layer *layer);
/* Who waits for LAYER to be clean with its disk's open_lock, behind its closed gate,
 * lends the image meanwhile: one that failed can be exchanged, which needs both. */
void backlog_lend_image(struct layer *layer, bool lent);
/* 0: nothing has failed lately, nor of what goes first; otherwise -errno and a sentence (g_free). */
int backlog_get_error(struct layer *layer, char **reason);

/* What of LAYER is dirty goes after all that is of AFTER, a sealed layer below it; NULL: at once. The one that it went
 * after before, or NULL: the reference is the caller's. */
struct layer *backlog_put_after(struct layer *layer, struct layer *after);

enum layer_state backlog_get_state(struct layer *layer);
/* For good, until it is opened anew. */
static inline bool layer_state_is_final(enum layer_state state)
{
	return state == LAYER_LOST || state == LAYER_FAILED;
}
/* Something of LAYER is dirty, so that it has to stay open. */
bool backlog_is_needed(struct layer *layer);
/* Nothing is, but the log has too little room to say so of each layer by itself: it does
 * soon, and LAYER can be closed then. */
bool backlog_is_owed(struct layer *layer);

struct backlog_status {
	enum layer_state state;
	uint64_t dirty_blocks; /* and zero ranges */
	uint64_t oldest_ns;    /* loop_now_ns() when the oldest came; 0: nothing is dirty */
	char reason[2048];
	struct timespec since;
};
/* Of one that is not attached: CLEAN. */
void backlog_get_status(struct layer *layer, struct backlog_status *status);

#endif
