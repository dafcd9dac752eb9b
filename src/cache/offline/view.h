/* An unmounted cache, open for reading: what the offline tools begin with. */
#ifndef LEAFDISK_CACHE_OFFLINE_VIEW_H
#define LEAFDISK_CACHE_OFFLINE_VIEW_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "cache/offline.h"
#include "cache/index/index.h"
#include "cache/index/layers.h"
#include "cache/format/super.h"
#include "cache/recover.h"

struct cache_view {
	const char *path; /* the caller's */
	int fd;
	uint64_t file_bytes;
	struct cache_super_ondisk super;
	unsigned bad_copies;
	/* After cache_view_recover(). */
	struct index *index;
	struct layers *layers;
	struct cache_log_end end;
};

/* Opens and locks PATH against writers. False: view is closed. */
bool cache_view_open(struct cache_view *view, const char *path, GError **error);
void cache_view_close(struct cache_view *view);

/* Reads the superblock; anything but CACHE_SUPER_GOOD sets ERROR. */
enum cache_super_result cache_view_load(struct cache_view *view, GError **error);
/* Fills index, layers and end. What the file is too short for cannot be read. */
bool cache_view_recover(struct cache_view *view, GError **error);
/* All three. */
bool cache_view_open_recovered(struct cache_view *view, const char *path, GError **error);

/* What a layer holds. By id; free function set. */
GPtrArray *cache_view_layers(const struct cache_view *view);

#endif
