/* The layer table: ids, identities, stamps, counts and zero ranges.
 *
 * An id names a layer in records and in the index, and is never used again
 * while the log may speak of it. Blocks in the index whose id is not in the
 * table are garbage; so dropping a layer is forgetting its id.
 *
 * Not locked: the cache's lock is held. */
#ifndef LEAFDISK_CACHE_INDEX_LAYERS_H
#define LEAFDISK_CACHE_INDEX_LAYERS_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "cache/layer.h"
#include "core/intervals.h"
#include "core/list.h"
#include "epochs.h"
#include "format/cache.h"

/* Separate zero ranges of one layer. */
#define LAYER_ZERO_RANGES_MAX 32768

struct cache_layer {
	/* Constant. */
	struct cache *cache;
	uint8_t identity[CACHE_ID_BYTES]; /* zeros: volatile */
	char *name;			  /* changes under the lock; */
	char *former_name;		  /* who reads it without finds this: there as long as the layer, or NULL */
	bool is_volatile;

	uint32_t id; /* a new one each time that the layer is dropped and begins anew */
	uint64_t size_bytes;
	uint64_t stamp;		       /* as recorded or to be recorded; 0: not known good */
	uint64_t generation;	       /* of the ownership under which its blocks are good; 0: none */
	uint8_t nonce[CACHE_ID_BYTES]; /* of the claim under which they are dirty; zeros: none */
	bool orphan;		       /* its image has another owner; known by its id only */
	enum cache_orphan_reason orphan_reason;
	uint64_t orphan_time_ns; /* since the epoch; 0: not known */
	bool writable;
	struct epochs *epochs;	   /* of a layer that is written back: its pinned blocks are dirty; or NULL */
	uint64_t barrier_sequence; /* of the record with the last barrier */
	unsigned dirty_puts;	   /* reserved and not published */
	uint64_t closed_ns;	   /* since when nobody has it open, on the clock of loop_now_ns() */
	bool stuck;		   /* its image does not take what is dirty */
	unsigned opens;
	bool declared;		    /* a LAYER entry of ID is in the log */
	bool outdated;		    /* which does not say how it is: the next entry of ID waits for another */
	uint64_t declared_segment;  /* and there is the latest */
	uint64_t declared_sequence; /* in this mount */
	bool declared_once;	    /* and nowhere else, though whose dirty blocks they are hangs on it */
	uint64_t reached;     /* the highest order that the log knows of what is, or was, dirty of its claim; 0: none */
	uint64_t last_change; /* sequence of the last record that changed it; 0: none */
	struct list changed;  /* log.changed, unless nothing has changed it */
	struct list orphans;  /* the table's, where it is one */
	/* The log has lost changes of it, or may have: what is there is not to be taken for it. */
	bool incomplete;
	bool loss_declared;   /* the log says so */
	uint64_t missing;     /* sequence of the last record that had some; 0: that is not known */
	uint64_t live_blocks; /* clean and pinned */
	uint64_t pinned_blocks;
	struct intervals *zeros; /* pinned or dirty, where no LIVE block hides them; NULL: none */
	uint32_t drop_id;	 /* DEGRADED: the id whose DROP is to be logged; 0: none */
	struct cache_layer_status status;
};

/* What the log says of LAYER in a LAYER entry; how many words that is. */
struct layer_words {
	struct cache_layer_ondisk fixed;
	char name[CACHE_LAYER_NAME_BYTES];
};
unsigned layer_get_words(const struct cache_layer *layer, struct layer_words *words);
/* Why an incomplete LAYER is that: the rest of a sentence about it. g_free. */
char *layer_loss_text(const struct cache_layer *layer);
/* Why an orphan is one, for people. */
const char *layer_orphan_text(const struct cache_layer *layer);

struct layers;

struct layers *layers_new(struct cache *cache);
/* Closes them all; none is open. */
void layers_free(struct layers *layers);
uint64_t layers_memory_bytes(const struct layers *layers);

struct cache_layer *layers_by_id(struct layers *layers, uint32_t id);
struct cache_layer *layers_by_identity(struct layers *layers, const uint8_t identity[CACHE_ID_BYTES]);
/* A new layer with a new id. IDENTITY NULL: volatile. NULL when ids have run out. */
struct cache_layer *layers_add(struct layers *layers, const uint8_t *identity, const char *name);
/* With the id that a record gives it; used by recovery. Neither the id nor the
 * identity is in the table. */
struct cache_layer *layers_add_recovered(struct layers *layers, uint32_t id, const struct cache_layer_ondisk *ondisk,
					 const char *name);
/* LAYER is not found by its identity any more, for REASON. */
void layers_make_orphan(struct layers *layers, struct cache_layer *layer, enum cache_orphan_reason reason);
/* Gives LAYER a new id and no content. False when ids have run out. */
bool layers_renew(struct layers *layers, struct cache_layer *layer);
/* Frees it; its id is forgotten. */
void layers_remove(struct layers *layers, struct cache_layer *layer);
/* Ids up to ID are in use or were; recovery tells of each it meets. */
void layers_see_id(struct layers *layers, uint32_t id);
/* The newest orphan of an image, or NULL. */
struct cache_layer *layers_newest_orphan(struct layers *layers, const uint8_t identity[CACHE_ID_BYTES]);
/* EACH may remove its layer. */
void layers_foreach(struct layers *layers, void (*each)(void *opaque, struct cache_layer *layer), void *opaque);

#endif
