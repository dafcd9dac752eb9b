/* Finding the images of a chain, from their headers alone. */
#ifndef LEAFDISK_DISK_CHAIN_H
#define LEAFDISK_DISK_CHAIN_H

#include <glib.h>
#include <stdbool.h>
#include <sys/types.h>

#include "image/image.h"

/* Layers in a chain, with the leaf: a map names a layer in a byte. */
#define CHAIN_DEPTH_MAX 255

struct chain_link {
	char *path; /* absolute, links followed */
	enum image_format format;
	uint64_t base_offset;
	dev_t device;
	ino_t inode;
	struct image_info info;
};
void chain_link_free(struct chain_link *link);

/* Directories that parents may be in: absolute, links followed. */
struct chain_roots {
	char **directories;
};
/* FIRST, then LAYERS, DIR[:DIR] or NULL. ERROR when one is not a directory. */
bool chain_roots_init(struct chain_roots *roots, const char *first, const char *layers, GError **error);
void chain_roots_clear(struct chain_roots *roots);

/* PATH is absolute, links followed. */
bool chain_is_inside(const char *path, const struct chain_roots *roots);

/* Header contents by path and time stamps, so that 2,000 clones read their
 * base's header once. Not locked. */
struct chain_cache;
struct chain_cache *chain_cache_new(void);
void chain_cache_free(struct chain_cache *cache);

/* Appends PATH and its ancestors to LINKS (struct chain_link, leaf first),
 * checking the identity and size of each parent, depth, loops, and that it is
 * inside ROOTS. On false, LINKS holds what was found before. CACHE may be NULL. */
bool chain_resolve(const char *path, enum image_format format, const struct chain_roots *roots,
		   struct chain_cache *cache, GPtrArray *links, GError **error);

/* A stack spelled out: "base.raw@1048576; r1.leaf; w.leaf", base first; paths
 * relative to roots->directories[0]. */
bool chain_resolve_spelled(const char *layers, const struct chain_roots *roots, GPtrArray *links, GError **error);

GPtrArray *chain_links_new(void);

#endif
