/* struct stat of a disk and of the top directory. */
#ifndef LEAFDISK_FUSE_ATTRIBUTES_H
#define LEAFDISK_FUSE_ATTRIBUTES_H

#include <sys/stat.h>

#include "session.h"

/* How long the kernel may use an entry, or attributes, without asking. */
#define ATTRIBUTES_SECONDS 1.0

/* 0 or a negative errno. Blocks, unless the disk is open. */
int attributes_of_node(struct session *session, struct node *node, struct stat *st);
/* The same from memory, of a disk that is open. False: there are none yet. Does
 * not block. */
bool attributes_recall(struct session *session, struct node *node, struct stat *st);
/* The same two for the top directory. */
int attributes_of_root(struct session *session, struct stat *st);
bool attributes_recall_root(struct session *session, struct stat *st);

#endif
