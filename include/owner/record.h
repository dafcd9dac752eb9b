/* Owner records: the files POOL/.leafdisk/owners/NAME. All of it blocks. */
#ifndef LEAFDISK_OWNER_RECORD_H
#define LEAFDISK_OWNER_RECORD_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/answer.h"

#define OWNER_ID_BYTES 16

struct owner_record {
	char *host;
	char *boot_id;
	uint8_t machine_id[OWNER_ID_BYTES]; /* zeros: not known */
	int64_t pid;			    /* 0: none */
	uint64_t pid_start, pid_space;	    /* see struct owner_self */
	uint8_t mount_id[OWNER_ID_BYTES];   /* one for each daemon */
	uint8_t cache_id[OWNER_ID_BYTES];   /* zeros: none */
	char *cache_path;		    /* as seen on HOST; empty: none */
	uint64_t cache_generation;	    /* that the cache's log had then; 0: not known */
	uint64_t generation;		    /* raised by each claim */
	uint8_t nonce[OWNER_ID_BYTES];	    /* of the claim; zeros: it has none */
	uint8_t ended[OWNER_ID_BYTES];	    /* of the last other one; zeros: not known */
	uint64_t inode;			    /* of the image; 0: not known */
	uint64_t born_ns;		    /* of its file, realtime; 0: not known */
	bool unmarked;			    /* the image took no identity before the claim, so perhaps no claim */
	char *mode;			    /* a disk's mode, or "none" */
	bool clean;			    /* all that the owner took is in the image */
	char *since;			    /* ISO 8601, UTC */
};
void owner_record_clear(struct owner_record *record);

/* False: ENOENT when there is none; EINVAL when what is there is no record,
 * with a sentence that says why; another errno when it cannot be read. RECORD
 * is then empty. */
bool owner_read(const char *pool, const char *name, struct owner_record *record, GError **error);
/* The same, NO when there is none. UNKNOWN and ERROR: what is there is no record, or cannot be read. */
enum answer owner_find(const char *pool, const char *name, struct owner_record *record, GError **error);
/* The names of all records. NULL and ERROR: they cannot be listed; ENOENT: the pool never had
 * any. g_ptr_array_unref. */
GPtrArray *owner_list(const char *pool, GError **error);
/* Replaces the record atomically and durably, making the directories that are
 * missing. SINCE is set to now where it is NULL. */
bool owner_write(const char *pool, const char *name, struct owner_record *record, GError **error);
/* True also when there is none. */
bool owner_remove(const char *pool, const char *name, GError **error);

/* Removes the temporary files of daemons that were killed. */
void owner_sweep(const char *pool);

#endif
