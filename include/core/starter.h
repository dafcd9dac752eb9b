/* A process beside this one that starts programs for it.
 *
 * It is forked before this one gives anything up or reads what others wrote, knows its
 * programs from then on, and is told only which of them to run and one argument more.
 * It ends with this process. */
#ifndef LEAFDISK_CORE_STARTER_H
#define LEAFDISK_CORE_STARTER_H

#include <glib.h>
#include <stdbool.h>

enum starter_program {
	STARTER_GROW,	 /* makes a device larger */
	STARTER_UNMOUNT, /* takes a mount of a user's down */
	STARTER_PROGRAMS,
};

/* Forks the process, if one of PROGRAMS (argument vectors; NULL: none) is to be had. QUIET: what a
 * program says to standard error is dropped. Before another thread runs. False and ERROR. */
bool starter_begin(const char *const *const programs[STARTER_PROGRAMS], bool quiet, GError **error);
/* The process ends; a program that runs goes on. */
void starter_end(void);

/* Any thread; does not block. */
bool starter_has(enum starter_program program);
/* Runs PROGRAM with ARGUMENT behind its own to its end, and kills it after SECONDS. False and ERROR: it
 * could not be started, failed, or was killed. Any number at once; any thread that may wait. Blocks. */
bool starter_run(enum starter_program program, const char *argument, unsigned seconds, GError **error);

#endif
