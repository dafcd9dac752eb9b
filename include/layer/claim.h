/* A layer's claim of its image, by its owner record. All of it blocks, and is called by
 * who may change the layer. */
#ifndef LEAFDISK_LAYER_CLAIM_H
#define LEAFDISK_LAYER_CLAIM_H

#include "layer/layer.h"
#include "owner/owner.h"

/* As owner_allows(): before the image is opened to be written, and in the hope of the
 * lock. */
bool claim_allows(const struct layer *layer, GError **error);
/* What LAYER's open image says of its last claim. */
struct owner_image claim_image(const struct layer *layer);
/* As owner_has_newer(), of the image of LINK, which is LAYER's or was. Any thread. */
enum answer claim_has_newer(const struct layer *layer, const struct chain_link *link, GError **why);
/* As owner_has_newer_as(), of LAYER's image, which IMAGE is open on. */
enum answer claim_has_newer_as(const struct layer *layer, const struct image *image, GError **why);
/* With the image open, and before it is begun under the claim's nonce; MODE is what the
 * record says. PREPARE: see struct owner_want, called with LAYER. */
bool claim_take(struct layer *layer, const char *mode,
		bool (*prepare)(void *opaque, const struct owner_last *last, struct owner_claim *claim, GError **error),
		GError **error);
/* Calls LOOK with LAYER and what a claim would find, as owner_look(). */
bool claim_look(struct layer *layer, bool (*look)(void *opaque, const struct owner_last *last, GError **error),
		GError **error);
/* Before a claim: an image that can have an identity of its own has one. A raw image that
 * is a copy of another has that one's, and gets a new one while nothing is dirty. True:
 * it changed, and layer_identity_of() with it. */
bool claim_identify(struct layer *layer);
/* The claim of a leaf that was put on another is in the owner record, CLEAN or not, from now on; see seal.h. That
 * of any other is there already. NO: the record is of neither. UNKNOWN and WHY: not now. */
enum answer claim_record(struct layer *layer, bool clean, GError **why);
/* The file that says that there is a succession; NULL: none. */
void claim_remove_mark(const char *mark);
/* It is recorded, here or elsewhere: the mark of the succession goes. */
void claim_settle(struct layer *layer);
/* The object is freed: the mark stays. */
void claim_forget(struct layer *layer);
/* The record at the name of LAYER's image, which is new, goes: it is of one that had the name before. False and ERROR:
 * it cannot, or that one's owner may still want it. */
bool claim_forget_former(const struct layer *layer, GError **error);
/* LAYER's claim, which succeeds to one at another name, is recorded before its image has its name: whoever finds it
 * there finds whose it is. Its succession goes on. False and ERROR. */
bool claim_announce(struct layer *layer, GError **error);
/* What is recorded of LAYER's claim is for PATH, another name that its image is to have, too. */
bool claim_copy(const struct layer *layer, const char *path, GError **error);
/* As owner_check(), of LAYER's claim, which is recorded first. */
enum answer claim_check(struct layer *layer, GError **why);
/* What its owner record says now; owner_record_clear(). As owner_find(). */
enum answer claim_read(const struct layer *layer, struct owner_record *record, GError **error);
/* When all is on the image, before its lock is let go. False: another has taken the image
 * over, and may have written it. */
bool claim_release(struct layer *layer);
/* A command has ended whoever's claim of the image of LINK, which is LAYER's or was, and with
 * it what caches have of that. */
bool claim_is_given_up(const struct layer *layer, const struct chain_link *link);
/* That command. g_free. */
char *claim_unlock_command(const struct layer *layer, const struct chain_link *link);
/* ERROR says that the image is locked: adds by whom. */
void claim_explain_lock(const struct layer *layer, GError **error);
/* Who may write the image of LINK, which is LAYER's or was: "this mount", "host ...",
 * "none", or why that cannot be told. g_free. Any thread. */
char *claim_describe(const struct layer *layer, const struct chain_link *link);
/* The same in one word: CLAIM_HERE, the host's name, CLAIM_NOBODY or "unknown". */
#define CLAIM_HERE "here"
#define CLAIM_NOBODY "none"
char *claim_owner_word(const struct layer *layer, const struct chain_link *link);

#endif
