/* The process: its first descriptors and its limits. */
#ifndef LEAFDISK_CORE_PROCESS_H
#define LEAFDISK_CORE_PROCESS_H

#include <glib.h>
#include <stdbool.h>

/* The first thing that a program does, before it opens anything:
 *
 *   - descriptors 0 to 2 are open, on /dev/null where the caller closed them, so
 *     that no other file can get these numbers and what is printed to them
 *   - as many files as the caller allows (the hard limit) can be open
 *   - a write past the limit for the size of files fails with EFBIG, as the
 *     signal would end the program */
void process_begin(void);
/* In a child, before it runs a program of the caller's: the limit and the signal are what they
 * were. */
void process_restore(void);

/* Whether there are descriptors and memory to open another disk, and enough is
 * left for the work for those that are open: records of who owns them are read and
 * written when they close, which all can do at once. False: EMFILE or ENOMEM, with
 * a sentence that is the same for all disks. Any thread. */
bool process_has_room(GError **error);

#endif
