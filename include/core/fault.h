/* Named fault points, compiled in with -DLEAFDISK_FAULTS (the tests' build).
 *
 * The environment variable LEAFDISK_FAULTS arms them:
 *
 *     POINT[/SUBJECT]:ACTION[@NTH][xCOUNT][%ODDS] [; ...]
 *
 * ACTION is an errno name (EIO, ENOSPC, EAGAIN, ...) or number (E524, which need
 * not be one that is known), "sweep" (errno 1 for the first one that fails, 2 for
 * the next, and so on), "short" (the point does half of its work), or "crash" (the
 * process ends at once with status 77).
 * NTH (1 by default) is the first occurrence that fails, COUNT (unlimited by
 * default) how many do, and ODDS that only one in so many of those does, by chance.
 * SUBJECT narrows a point to objects whose name ends with it, a file name for
 * example. While the file named by the environment variable LEAFDISK_FAULTS_GATE is
 * set and does not exist, no point fires and nothing is counted. The first that fires
 * makes the file named by LEAFDISK_FAULTS_FIRED. */
#ifndef LEAFDISK_CORE_FAULT_H
#define LEAFDISK_CORE_FAULT_H

#include <glib.h>
#include <stdbool.h>

#define FAULT_SHORT 1

#ifdef LEAFDISK_FAULTS
/* 0: go on. A negative errno: fail with it. FAULT_SHORT: do half.
 * SUBJECT may be NULL. Any thread. */
int fault_hit(const char *point, const char *subject);
/* Parses SPEC and replaces what is armed; called with the environment's value
 * on first use. False and ERROR set on bad syntax. */
bool fault_arm(const char *spec, GError **error);
#else
static inline int fault_hit(const char *point, const char *subject)
{
	(void)point;
	(void)subject;
	return 0;
}
#endif

#endif
