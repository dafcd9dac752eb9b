/* Reading a pool's directory: which disks it makes, and what is broken. */
#ifndef LEAFDISK_POOL_SCAN_H
#define LEAFDISK_POOL_SCAN_H

#include "disk/object.h"

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
	bool parent; /* of another image, in any mode */
	enum disk_mode mode;
	char *spelled;	  /* the configured stack, or NULL */
	GPtrArray *links; /* leaf first */
};

struct names;

/* What looks at a pool have found so far; one of a pool at a time uses it. */
struct scan_known;
struct scan_known *scan_known_new(void);
void scan_known_free(struct scan_known *known);

struct scan_result {
	GPtrArray *found; /* struct scan_found: the disks */
	GString *broken;  /* lines: what cannot be shown */
	GString *foreign; /* lines: what is of another format, or looks like it */
	GString *notes;	  /* lines: what is shown under another name than expected */
};

/* Looks at the pool's directory; at the files CHANGED (NULL-terminated) alone when it is
 * given: whoever changed just these knows it. An image that cannot be read now is
 * what KNOWN says of it. NULL with ERROR when the directory cannot be read, or
 * there are no descriptors to look at its images with: nothing is known then.
 * Blocks on the store. */
struct scan_result *scan_look(const struct scan_options *options, const struct chain_roots *roots,
			      struct scan_known *known, const char *const *changed, GError **error);
/* Whether an image that could not be told may be told now, or for another reason not: its
 * file may change without the directory. Looks at these alone. Blocks on the store. */
bool scan_may_differ(const struct scan_known *known, const struct chain_roots *roots);
/* Gives the disks their names and rights, and drops those that have none. Does not
 * block; once, and until then the disks have no names. */
void scan_settle(struct scan_result *result, struct names *names);
void scan_result_free(struct scan_result *result);

#endif
