/* Finding the images of a chain, from their headers alone. */
#ifndef LEAFDISK_LAYER_CHAIN_H
#define LEAFDISK_LAYER_CHAIN_H

#include <glib.h>
#include <stdbool.h>
#include <sys/types.h>
#include <time.h>

#include "core/answer.h"
#include "image/format.h"
#include "layer/roots.h"

/* Layers in a chain, with the leaf: a map names a layer in a byte. */
#define CHAIN_DEPTH_MAX 255

/* In a directory with images: those that were leaves there and are sealed. Their parents are found from the
 * directory above, or else from this one. */
#define SEALED_DIRECTORY "snapshots"
/* PATH is that of one. */
bool chain_is_sealed_name(const char *path);
/* From where the parent of the image at PATH is named: its directory, or of a sealed one the one above. g_free. */
char *chain_directory_of(const char *path);
/* Where the parent is that the image at PATH, absolute and without links, names as STORED: one path or two; the second
 * counts where nothing is at the first. g_strfreev. */
char **chain_parent_paths(const char *path, const char *stored);

/* Constant once it is found; shared by references. */
struct chain_link {
	_Atomic unsigned references;
	enum image_format format;
	char *path; /* absolute; of a disk of the pool its name there, which may be a link; else as REAL */
	char *real; /* absolute, links followed; PATH itself where that is the same */
	uint64_t base_offset;
	dev_t device;
	dev_t store; /* the file system that it is on, or the block device that it is */
	ino_t inode;
	off_t file_bytes;
	uint64_t allocated_bytes;
	struct timespec changed; /* the file's ctime */
	bool settled;		 /* it was old enough then that a later change shows in it */
	bool linked;		 /* its name was a link, or behind one, which may lead elsewhere later */
	bool block_device;
	bool outside; /* of the pool, and not named so by the configuration: never written */
	struct chain_roots *roots;
	struct image_info info;
	char *untold; /* absolute: its parent, of which the store did not tell, or that has changed; NULL otherwise */
};
struct chain_link *chain_link_ref(const struct chain_link *link);
/* NULL is allowed. */
void chain_link_unref(struct chain_link *link);

/* The image that FD is open on, which has, or is to have, the name PATH in the pool. NULL and ERROR. Blocks. */
struct chain_link *chain_link_of_file(const char *path, int fd, enum image_format format,
				      const struct chain_roots *roots, GError **error);
/* LINK's image, which IMAGE is open on, where it is called PATH, with the mark CHILDREN. */
struct chain_link *chain_link_moved(const struct chain_link *link, const char *path, const struct image *image,
				    const char *children);
/* Whether the file is where LINK was found: NO when its name is gone or has another
 * file, UNKNOWN with WHY when the store does not tell. Blocks. */
enum answer chain_link_is_there(const struct chain_link *link, GError **why);
/* Whether nothing about the file has changed since, as far as ST tells, nor about what its
 * name leads to. */
bool chain_link_is_same(const struct chain_link *link, const struct stat *st);
/* The file that LINK told of, found again: -ESTALE when its name has another
 * now. Blocks. */
bool chain_link_find(const struct chain_link *link, struct chain_file *file, GError **error);
/* That file's image: as image_open(). -EROFS for IMAGE_WRITABLE when it is
 * outside. Blocks. */
struct image *chain_link_open(const struct chain_link *link, unsigned flags, GError **error);
/* Another open of the image that IMAGE, which has failed, is open on: as
 * image_reopen(). Blocks. */
struct image *chain_link_reopen(const struct chain_link *link, struct image *image, GError **error);
/* What its headers say now, and in ST (NULL: not wanted) its file. Blocks. */
bool chain_link_read_info(const struct chain_link *link, struct image_info *info, struct stat *st, GError **error);

/* Whether a change from now on gives a file, or a directory, another time than
 * TIME. */
bool chain_time_is_settled(const struct timespec *time);

/* Header contents by path and time stamps, so that 2,000 clones read their
 * base's header once; and which files a store has been asked about and does not
 * answer, so that 2,000 clones of a base that hangs wait for it once. Any thread;
 * shared by references. */
struct chain_cache;
struct chain_cache *chain_cache_new(void);
struct chain_cache *chain_cache_ref(struct chain_cache *cache);
void chain_cache_unref(struct chain_cache *cache);

/* How long a store may take about a file before others do without the answer. */
#define CHAIN_PATIENCE_NS (UINT64_C(2) * 1000 * 1000 * 1000)
/* Before a store is asked about PATH, and after. False with ERROR (-ETIMEDOUT): somebody
 * has been waiting for its answer for CHAIN_PATIENCE_NS. */
bool chain_cache_ask(struct chain_cache *cache, const char *path, GError **error);
void chain_cache_answered(struct chain_cache *cache, const char *path);

/* What FILE, found at PATH, is: as image_probe_fd(). */
enum image_format chain_probe(const char *path, const struct chain_file *file, struct chain_cache *cache,
			      GError **error);

/* Appends PATH and its ancestors to LINKS (struct chain_link, leaf first),
 * checking the identity and size of each parent, depth, loops, and that it is
 * inside ROOTS. On false, LINKS holds what was found before. CACHE may be NULL:
 * every answer of the store is waited for. */
bool chain_resolve(const char *path, enum image_format format, const struct chain_roots *roots,
		   struct chain_cache *cache, GPtrArray *links, GError **error);
/* The same of the FILE that PATH was found to be, a regular file; PATH has answered
 * before its ancestors are asked about. */
bool chain_resolve_file(const char *path, const struct chain_file *file, enum image_format format,
			const struct chain_roots *roots, struct chain_cache *cache, GPtrArray *links, GError **error);

/* A stack spelled out: "base.raw@1048576; r1.leaf; w.leaf", base first; paths
 * relative to the pool. */
bool chain_resolve_spelled(const char *layers, const struct chain_roots *roots, struct chain_cache *cache,
			   GPtrArray *links, GError **error);

GPtrArray *chain_links_new(void);
/* LINKS has those of MORE from FIRST on as well. */
void chain_links_add(GPtrArray *links, const GPtrArray *more, guint first);

#endif
