/* Nodes: the disks as the kernel knows them.
 *
 * A node gives a disk the inode number that it keeps for as long as it is in
 * the pool, and counts what the kernel and requests hold of it. Any thread. */
#ifndef LEAFDISK_FUSE_NODE_H
#define LEAFDISK_FUSE_NODE_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "disk/disk.h"

struct node;
struct node_table;

struct node_table *node_table_new(void);
/* Every pin must be back. NULL is allowed. */
void node_table_free(struct node_table *table);

/* The disk's node, made at need, pinned. */
struct node *node_for_disk(struct node_table *table, struct disk *disk);
/* The node with number INO, pinned; NULL when there is none. */
struct node *node_get(struct node_table *table, uint64_t ino);
/* Takes a pin back. NULL is allowed. */
void node_put(struct node_table *table, struct node *node);

uint64_t node_ino(const struct node *node);
/* A reference to the node's disk. */
struct disk *node_disk(struct node_table *table, struct node *node);

/* What the kernel holds: entries it was told of, and forgot. */
void node_add_lookup(struct node_table *table, struct node *node);
void node_forget(struct node_table *table, uint64_t ino, uint64_t count);

/* The disk is no longer in the pool: its node goes with the last who holds it. */
void node_mark_gone(struct node_table *table, struct disk *disk);
/* The same for every disk that is not in DISKS, a list of the whole pool. */
void node_sweep(struct node_table *table, GPtrArray *disks);
/* A rename has made FROM into TO: the number stays. */
void node_move(struct node_table *table, struct disk *from, struct disk *to);

/* An open by this front end, counted before the disk can be used and until the
 * kernel has given it back. ATTRIBUTES are the disk's, read while it is open.
 * Returns whether pages that the kernel has of the disk are still good. */
bool node_opened(struct node_table *table, struct node *node, bool write, const struct disk_attributes *attributes);
void node_closing(struct node_table *table, struct node *node, bool write);
/* Whether the disk is open, so that its attributes can be told from memory. */
bool node_is_open(struct node_table *table, struct node *node);
bool node_is_written(struct node_table *table, struct node *node);

/* ATTRIBUTES are the disk's now. True: it is open, and somebody else has changed it, so that the kernel's pages are not
 * good any more; said once. */
bool node_has_changed(struct node_table *table, struct node *node, const struct disk_attributes *attributes);

/* The sentence of the last command to the disk that failed; NULL: there was
 * none. g_free. */
void node_keep_refusal(struct node_table *table, struct node *node, const char *sentence);
char *node_last_refusal(struct node_table *table, struct node *node);

#endif
