/* What the daemon may do once it has started. */
#ifndef LEAFDISK_FUSE_PRIVILEGES_H
#define LEAFDISK_FUSE_PRIVILEGES_H

/* Gives up for good whatever no part of a mount needs. Before any other thread starts: they inherit it; behind
 * core/starter.h's process, which keeps all. What the kernel refuses is logged. */
void privileges_give_up(void);

#endif
