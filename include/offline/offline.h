/* Images without a mount: what leafctl does. All of it blocks.
 *
 * LAYERS in each call is DIR[:DIR], where parents may be besides the image's
 * own directory and what is below it; NULL: nowhere else. FORMAT NONE: told
 * by name and magic. */
#ifndef LEAFDISK_OFFLINE_OFFLINE_H
#define LEAFDISK_OFFLINE_OFFLINE_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "disk/disk.h"
#include "image/format.h"

struct offline_create_options {
	enum image_format format;	 /* NONE: by the new name (.leaf; .raw, .img) */
	uint64_t size_bytes;		 /* 0 with a parent: the parent's size */
	uint32_t chunk_bytes;		 /* 0: the default */
	const char *parent;		 /* path as a shell sees it; NULL: none */
	enum image_format parent_format; /* NONE: by name and magic */
	const char *layers;
	bool force; /* overwrites a block device */
};
/* The parent is stored relative to the new image's directory. The parent, and
 * the chain below it, must open; the parent is marked as one. *NOTE (g_free): NULL, or a sentence to say that
 * its store does not take the mark. */
bool offline_create(const char *path, const struct offline_create_options *options, char **note, GError **error);

/* PARENT forgets CHILD, a path or a name that it remembers; NULL: all of them. Refused (EBUSY)
 * for one that stands on it still, or of which that cannot be told, unless FORCE. */
bool offline_forget_child(const char *parent, enum image_format format, const char *child, bool force, GError **error);
/* The image at PATH takes its parent as it is now for what it was made of. *NOTE: as for
 * offline_create(). */
bool offline_accept_parent(const char *path, const char *layers, char **note, GError **error);

/* One layer of an image's chain. */
struct offline_layer {
	char *path;
	enum image_format format;
	uint64_t size_bytes;
	uint64_t allocated_bytes;
	uint32_t chunk_bytes; /* 0: none */
	uint64_t generation;
	uint8_t uuid[IMAGE_UUID_BYTES];
	bool has_uuid;
	/* Of the leaf, where it can be opened; zeros and 0: none. */
	uint8_t claim[IMAGE_CLAIM_BYTES];
	uint64_t progress;
	char *parent;	/* as stored, NULL: none */
	char *children; /* those that it remembers, as a text; NULL: it is no parent */
};
/* Leaf first, base last (GPtrArray of struct offline_layer *, free function
 * set). When a parent cannot be opened, the layers above it are returned and
 * ERROR is set too; NULL when the image itself cannot be read. */
GPtrArray *offline_info(const char *path, enum image_format format, const char *layers, GError **error);

/* Calls EXTENT for each run, in order; adjacent equal runs are joined. */
bool offline_map(const char *path, enum image_format format, const char *layers,
		 void (*extent)(void *opaque, const struct disk_extent *extent, const char *layer_path), void *opaque,
		 GError **error);

/* Checks the image alone (image_check), then that its chain opens (a broken
 * chain is a finding). False and ERROR: it cannot be told whether there is damage, besides what was found. */
bool offline_check(const char *path, enum image_format format, const char *layers, bool repair,
		   void (*finding)(void *opaque, bool repaired, const char *sentence), void *opaque,
		   struct image_check_result *result, GError **error);

/* WHY an image cannot be opened is wrong with it or its chain; otherwise it only could not be looked at. */
bool offline_is_damage(const GError *why);

/* Progress of long work; return false to stop (the destination is removed). */
typedef bool (*offline_progress)(void *opaque, uint64_t done_bytes, uint64_t total_bytes);

struct offline_convert_options {
	enum image_format format; /* of the new image; NONE: by its name */
	const char *layers;
	bool force; /* overwrites a block device */
	offline_progress progress;
	void *opaque;
};
/* The chain's merged content into one new image; zeros stay holes. Killed at any moment it leaves no image
 * that lacks a part, but on a device. */
bool offline_convert(const char *source, enum image_format source_format, const char *destination,
		     const struct offline_convert_options *options, GError **error);

/* EACH gets the path of each file, that is not hidden, of the directory where POOL's sealed images are, in no order.
 * False and ERROR: it cannot be told which there are. */
bool offline_foreach_sealed(const char *pool, void (*each)(void *opaque, const char *path), void *opaque,
			    GError **error);

/* Files that commands which were killed have left in DIRECTORY: names, hidden ones (g_free). None where that
 * cannot be told. */
GPtrArray *offline_left(const char *directory);

/* The disk PATH may have a size of BYTES. False and ERROR. */
bool offline_size_is_allowed(const char *path, uint64_t bytes, GError **error);

/* Shrinking only when SHRINK. */
bool offline_resize(const char *path, enum image_format format, const char *layers, uint64_t size_bytes, bool shrink,
		    GError **error);

/* The sentence to warn with when the image at PATH is owned in writeback mode,
 * so that newer content may be in the owner's cache, or nobody can tell; NULL otherwise.
 * g_free. */
char *offline_owner_warning(const char *path);
/* Those of the image at PATH and of the sealed ones that it stands on, as far as its chain is found (array of char *,
 * free function set). */
GPtrArray *offline_owner_warnings(const char *path, enum image_format format, const char *layers);

/* Gives the image free that POOL shows as NAME, or whose file NAME is: writes an
 * owner record that names nobody. Without FORCE only where nothing can be lost:
 * not while another process has the image open, nor when its newest changes may
 * be only in a cache. What was done, as a sentence (g_free), or NULL with
 * ERROR. */
char *offline_unlock(const char *pool, const char *name, bool force, GError **error);

#endif
