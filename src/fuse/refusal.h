/* Refusals: the sentence that says why a request or a command failed. */
#ifndef LEAFDISK_FUSE_REFUSAL_H
#define LEAFDISK_FUSE_REFUSAL_H

#include <glib.h>

#include "session.h"

/* Logs a refused request's sentence, once while it repeats, and returns its
 * negative errno. Any thread. */
int refusal_log(const GError *error);
/* The same of one about DISK. */
int refusal_log_disk(const struct disk *disk, const GError *error);

/* A transfer of NODE's disk, WHAT, has failed with RESULT, a negative errno, for want of room or
 * by its store: logged once a minute, and kept as below. Any thread. */
void refusal_note_failure(struct session *session, struct node *node, const char *what, int result);

/* The sentence of the last open, transfer or command of the control tree that failed: of
 * those of NODE's disk, or with NULL of the mount; NULL: there was none. g_free. Any
 * thread. */
void refusal_keep(struct session *session, struct node *node, const char *sentence);
char *refusal_last(struct session *session, struct node *node);

#endif
