/* Hidden files of a pool that a snapshot is to give their names.
 *
 * Each has a mark in POOL/.leafdisk/changes before it is made, until it has its name or is removed
 * (pool/succession.h): by the mount that makes the snapshot, or by the next one. */
#ifndef LEAFDISK_OFFLINE_AWAITED_H
#define LEAFDISK_OFFLINE_AWAITED_H

#include <glib.h>

/* Removes from NAMES those that a mark of DIRECTORY, open, tells of, or may tell of. Names that were read before
 * this are never of a snapshot that has begun since. Blocks. */
void awaited_leave_out(int directory, GPtrArray *names);

#endif
