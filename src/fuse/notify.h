/* What the service manager is told of a mount in the foreground: the protocol of sd_notify(3). */
#ifndef LEAFDISK_FUSE_NOTIFY_H
#define LEAFDISK_FUSE_NOTIFY_H

/* The pool is mounted. From here on, if $NOTIFY_SOCKET names the manager, it is told
 * the rest. Called once, by the thread that ends the mount. */
void notify_ready(void);

/* Any thread; they wait no longer than for the manager to take a datagram. */
void notify_stopping(void);
/* One line for `systemctl status`. */
void notify_status(const char *line);

#endif
