/* Reading a pool's directory: which disks it makes, and what is broken. */
#ifndef LEAFDISK_DISK_SCAN_H
#define LEAFDISK_DISK_SCAN_H

#include "internal.h"

struct scan_options {
	char *glob; /* on shown names; NULL: all */
	bool read_only;
	GKeyFile *config; /* [disk NAME]; NULL: none */
	enum disk_mode mode;
};

struct scan_found {
	char *file; /* its name in the pool's directory; NULL: spelled */
	char *name; /* shown */
	bool writable;
	enum disk_mode mode;
	char *spelled;	  /* the configured stack, or NULL */
	GPtrArray *links; /* leaf first */
};

struct names;

/* What the last scan knows of each file; empty before the first. */
GHashTable *scan_known_new(void);

/* The disks of the pool (struct scan_found, free function set). An image that
 * cannot be read now is what KNOWN says of it. What cannot be
 * shown adds a line to BROKEN, what is shown under another name than expected one
 * to NOTES. NULL with ERROR when the directory cannot be read, or there are no
 * descriptors to look at its images with: nothing is known then. */
GPtrArray *scan_directory(const struct scan_options *options, const struct chain_roots *roots,
			  struct chain_cache *cache, struct names *names, GHashTable **known, GString *broken,
			  GString *notes, GError **error);

#endif
