/* Reading a pool's directory: which disks it makes, and what is broken. */
#ifndef LEAFDISK_POOL_SCAN_H
#define LEAFDISK_POOL_SCAN_H

#include "disk/object.h"

struct scan_options {
	char *glob; /* on shown names; NULL: all */
	bool read_only;
	GKeyFile *config; /* [disk NAME]; NULL: none */
	enum disk_mode mode;
	GHashTable *withheld; /* name of a file -> why it is not shown now, whatever it is; may change between looks */
};

/* Its strings are others'. */
struct scan_found {
	const char *file; /* its name in the pool's directory; NULL: spelled */
	const char *name; /* shown */
	bool writable;
	bool parent; /* of another image, in any mode */
	enum disk_mode mode;
	const char *spelled;	   /* the configured stack, or NULL */
	GPtrArray *links;	   /* leaf first */
	const struct known *known; /* all of it; scan.c's */
};

struct names;
struct known;

/* What looks at a pool have found so far; one of a pool at a time uses it. */
struct scan_known;
struct scan_known *scan_known_new(void);
void scan_known_free(struct scan_known *known);

/* Only good until the next look. */
struct scan_result {
	GPtrArray *found; /* struct scan_found: the disks, in no order */
	GString *broken;  /* lines: what cannot be shown */
	GString *foreign; /* lines: what is of another format, or looks like it */
	GString *notes;	  /* lines: what is shown under another name than expected */
};

/* What a look asks about: files that the directory's listing tells to be new, or all. */
enum scan_extent { SCAN_NEW, SCAN_ALL, SCAN_EXTENTS };

/* Looks at the pool's directory. An image that cannot be read now is what KNOWN says of it.
 * NULL with ERROR when the directory cannot be read, or there are no descriptors to look at
 * its images with: nothing is known then. Blocks on the store. */
struct scan_result *scan_look(const struct scan_options *options, const struct chain_roots *roots,
			      struct scan_known *known, enum scan_extent extent, GError **error);
/* The same of the files CHANGED (NULL-terminated) alone: whoever changed just these knows it. */
struct scan_result *scan_look_at(const struct scan_options *options, const struct chain_roots *roots,
				 struct scan_known *known, const char *const *changed, GError **error);

/* The image FILE, which is not there any more, has been replaced by one with the name NEW_FILE, often the same, of the
 * chain LINKS: so it is known where the store does not tell. */
void scan_note_replaced(struct scan_known *known, const char *file, const char *new_file, GPtrArray *links);

/* Whether the configuration spells the layers of a disk that is to have NAME. Does not block. */
bool scan_is_configured(const struct scan_options *options, const char *name);

/* Whether all that is KNOWN is still so: what is to be asked, which others may look
 * meanwhile. g_ptr_array_unref. */
GPtrArray *scan_begin_check(const struct scan_known *known);
/* Asks. Others may use KNOWN. Blocks on the store. */
void scan_check(const GPtrArray *items, const struct chain_roots *roots, const struct scan_known *known);
/* Takes the answers, of what nobody has looked at meanwhile; ITEMS are used up. *RESULT: as of a look;
 * NULL: nothing has changed. False with ERROR: as of a look. Does not block. */
bool scan_end_check(const struct scan_options *options, const struct chain_roots *roots, struct scan_known *known,
		    GPtrArray *items, struct scan_result **result, GError **error);

/* Whether an image that could not be told may be told now, or for another reason not: its
 * file may change without the directory. Looks at these alone. Blocks on the store. */
bool scan_may_differ(const struct scan_known *known, const struct chain_roots *roots);
/* Gives the disks their names and rights, and drops those that have none. Does not
 * block; once, and until then the disks have no names. */
void scan_settle(struct scan_result *result, struct names *names);
void scan_result_free(struct scan_result *result);

#endif
