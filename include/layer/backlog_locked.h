/* A layer's backlog for those who hold the lock of the pool's: the migrator. */
#ifndef LEAFDISK_LAYER_BACKLOG_LOCKED_H
#define LEAFDISK_LAYER_BACKLOG_LOCKED_H

#include "layer/backlog.h"

struct cache_dirty;

struct layer *backlog_layer(struct list *node);

/* Who waits for a drain is told of failure after so many. */
#define BACKLOG_FAILURES_TOLD 3
/* STATE follows, or is as it was. */
void backlog_set_state_locked(struct backlog *backlog, enum layer_state state);
bool backlog_is_attached_locked(const struct backlog *backlog);
/* Who waits for a drain is told RESULT: 0 or -errno. */
void backlog_answer_drains_locked(struct backlog *backlog, int result);
/* What is dirty of a layer. Away or lost it has nothing. */
void backlog_get_dirty_locked(struct layer *layer, struct cache_dirty *dirty);
/* Of those below, the one that is dirty and goes first; NULL: none. */
struct layer *backlog_waits_for_locked(const struct backlog *backlog);
/* As backlog_get_error(); the sentence is the layer's. */
int backlog_get_error_locked(const struct backlog *backlog, const char **reason);
/* What `state` says from now on; "": nothing. */
void backlog_set_reason_locked(struct backlog *backlog, const char *reason);

#endif
