/* Where the images of a pool may be, and how they are reached. */
#ifndef LEAFDISK_LAYER_ROOTS_H
#define LEAFDISK_LAYER_ROOTS_H

#include <glib.h>
#include <stdbool.h>
#include <sys/stat.h>

#include "core/place.h"

/* The pool, or the directory of an image that a tool was given, and the
 * directories named by layers=. Constant but for their descriptors, which are
 * renewed in place; shared by references, any thread. */
struct chain_roots;
/* FIRST is the pool; LAYERS is DIR[:DIR] or NULL. NULL with ERROR when one is
 * not a usable directory. */
struct chain_roots *chain_roots_new(const char *first, const char *layers, GError **error);
struct chain_roots *chain_roots_ref(const struct chain_roots *roots);
void chain_roots_unref(struct chain_roots *roots);

/* The file of the mount's cache, which is no image whatever it is called. Before ROOTS are
 * shared. */
void chain_roots_set_cache(struct chain_roots *roots, const struct stat *cache);

struct place *chain_roots_pool(const struct chain_roots *roots);

/* PATH is absolute, links followed. */
bool chain_is_inside(const char *path, const struct chain_roots *roots);

/* A file that was found: FD (O_PATH) is what ST tells of. */
struct chain_file {
	char *real; /* its path, absolute, links followed */
	int fd;
	struct stat st;
	bool in_pool; /* or in a layers= directory only */
};
/* PATH is absolute; links in it are followed as long as they end below one of
 * ROOTS. WHAT goes before PATH in a message ("a.leaf: its parent "). False with
 * ERROR: -ENOENT, -ELOOP (exchanged all the time), -ETXTBSY (the mount's cache), -EPERM (outside, or a file
 * that whoever can write to its directory may have brought there from
 * elsewhere) or what the store says; FILE is then empty. Blocks. */
bool chain_file_find(struct chain_file *file, const char *what, const char *path, const struct chain_roots *roots,
		     GError **error);
/* What is at PATH, absolute and below one of ROOTS; its last name is not followed.
 * 0 or -errno. For a comparison with what was found there: the way to it is not
 * held to any rule. Blocks. */
int chain_file_stat(const char *path, const struct chain_roots *roots, struct stat *st);
/* Of an empty one too. */
void chain_file_clear(struct chain_file *file);

#endif
