/* What the service manager is told of a mount in the foreground: the protocol of sd_notify(3). */
#ifndef LEAFDISK_FUSE_NOTIFY_H
#define LEAFDISK_FUSE_NOTIFY_H

/* From here on, if $NOTIFY_SOCKET names the manager, it is told the rest. Before any other thread runs. */
void notify_begin(void);
/* The pool is not mounted yet, and the line says why: it gets a minute more from now on. */
void notify_waits(const char *line);
/* The pool is mounted. */
void notify_ready(void);

/* Any thread; they wait no longer than for the manager to take a datagram. */
void notify_stopping(void);
/* One line for `systemctl status`. */
void notify_status(const char *line);

#endif
