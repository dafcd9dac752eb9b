/* What the daemon may do once it has started. */
#ifndef LEAFDISK_FUSE_PRIVILEGES_H
#define LEAFDISK_FUSE_PRIVILEGES_H

#include <stdbool.h>

/* Gives up for good whatever no part of a mount needs. STARTS_PROGRAMS: some are started later that may
 * need more, and get by exec what the user has. Before any other thread starts: they inherit it. What the
 * kernel refuses is logged. */
void privileges_give_up(bool starts_programs);

#endif
