/* Refusals: the sentence that says why a request or a command failed. */
#ifndef LEAFDISK_FUSE_REFUSAL_H
#define LEAFDISK_FUSE_REFUSAL_H

#include <glib.h>

#include "session.h"

/* Logs a refused request's sentence, once while it repeats, and returns its
 * negative errno. Any thread. */
int refusal_log(const GError *error);

/* The sentence of the last command of the control tree that failed: of those to
 * NODE's disk, or with NULL to the mount; NULL: there was none. g_free. Any
 * thread. */
void refusal_keep(struct session *session, struct node *node, const char *sentence);
char *refusal_last(struct session *session, struct node *node);

#endif
