/* The end of a mount takes no longer than it may. */
#ifndef LEAFDISK_FUSE_END_H
#define LEAFDISK_FUSE_END_H

#include <glib.h>
#include <stdbool.h>

struct session;
struct end;

/* What the watch does to its session; any thread, any number of times. */
struct end_actions {
	void (*stop)(struct session *session);	  /* it begins to end */
	void (*cut_off)(struct session *session); /* nobody waits at the mount any more */
};

/* Starts the thread that takes the signals and watches SESSION's end; one that
 * comes before SESSION serves gives its start up. ACTIONS stays. NULL and ERROR. */
struct end *end_new(struct session *session, const struct end_actions *actions, GError **error);
/* SESSION serves from now on, unless a signal has ended it. */
void end_serve(struct end *end);
/* SESSION has ended. NULL is allowed. */
void end_free(struct end *end);

/* SESSION begins to end. Any thread. */
void end_begin(struct end *end);
/* There was another signal: nobody is to wait any longer for what can stay. */
bool end_is_given_up(const struct end *end);
/* The end gets on. Any thread. */
void end_note_progress(struct end *end);

#endif
