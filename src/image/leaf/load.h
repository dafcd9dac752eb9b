/* From disk to memory. */
#ifndef LEAFDISK_IMAGE_LEAF_LOAD_H
#define LEAFDISK_IMAGE_LEAF_LOAD_H

#include "leaf.h"
#include "report.h"

/* REPORT collects damages; with report->finding NULL the first one fails the load. */
struct leaf *leaf_load(int fd, const char *path, unsigned flags, struct leaf_report *report);
void leaf_free(struct leaf *leaf);

#endif
