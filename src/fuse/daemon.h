/* The process: into the background, its signals, its place in the system. */
#ifndef LEAFDISK_FUSE_DAEMON_H
#define LEAFDISK_FUSE_DAEMON_H

#include <glib.h>
#include <stdbool.h>

/* Returns in a child process; the caller's process waits until daemon_ready()
 * or the end of the child, and exits with 0 or the child's status. Messages of
 * the child up to then go to the caller's standard error. Other descriptors than those
 * of the standard files and KEPT (-1: none) are closed. No thread may run. */
bool daemon_start(int kept, GError **error);

/* The mount is there: leaves the caller's session and lets the waiting process go. From then
 * on standard input, output and error are /dev/null and messages go to syslog, with those
 * that were said before. */
void daemon_ready(void);

/* Marks the process as one that storage depends on. Before any other thread
 * starts: they inherit it. What the kernel refuses is left. */
void daemon_protect(void);

/* Blocks the signals that stop the daemon in this thread, and those it starts,
 * and returns a signalfd for them; -1 with ERROR. SIGPIPE is ignored. */
int daemon_signal_fd(GError **error);
/* The next signal's name, or NULL when there is none. */
const char *daemon_next_signal(int fd);

#endif
