/* Which system calls the daemon may make while it serves. */
#ifndef LEAFDISK_FUSE_SYSCALLS_H
#define LEAFDISK_FUSE_SYSCALLS_H

/* From now on every thread of the process, and those to come, may make the calls of the table alone, and no
 * program that it starts gains privileges. Once the mount is there. What the kernel refuses is logged. */
void syscalls_limit(void);

/* Readable when there is something to log; -1: never. */
int syscalls_fd(void);
/* Logs each call that was refused, once. One thread. */
void syscalls_log_refused(void);

#endif
