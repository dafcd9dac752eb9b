/* A disk as a person sees it at a glance: how much each layer has of it, and where. */
#ifndef LEAFDISK_CTL_PICTURE_H
#define LEAFDISK_CTL_PICTURE_H

#include <glib.h>

#include "disk/disk.h"

struct picture;

struct picture *picture_new(uint64_t size_bytes);
void picture_free(struct picture *picture);
/* In the order of the disk. LAYER_PATH NULL: no layer has it. */
void picture_add(struct picture *picture, const struct disk_extent *extent, const char *layer_path);
/* To standard output: a table of the layers, and a field of signs. */
void picture_print(const struct picture *picture);

#endif
