/* Names of a command line that are in another order than the verb wants. */
#ifndef LEAFDISK_CTL_ORDER_H
#define LEAFDISK_CTL_ORDER_H

#include "ctl.h"

/* The command as it was certainly meant, where the names that were given are in another order than the verb wants:
 * what comes first for it is not first, and is among the others, or a name is missing. NULL: there is none. Blocks;
 * g_free. */
char *order_meant(const struct ctl_arguments *arguments);

#endif
