/* Reading a cache: its superblocks and what the log holds. Used by mounting
 * and by the offline tools; writes nothing. */
#ifndef LEAFDISK_CACHE_RECOVER_H
#define LEAFDISK_CACHE_RECOVER_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "cache/format/format.h"

enum cache_super_result {
	CACHE_SUPER_GOOD,
	CACHE_SUPER_BLANK,   /* zeros, or an empty file: may be formatted */
	CACHE_SUPER_FOREIGN, /* something else is there, or both copies are damaged: ERROR set */
};
/* The copy that counts. BAD_COPIES may be NULL. */
enum cache_super_result cache_super_read(int fd, const char *path, uint64_t file_bytes,
					 struct cache_super_ondisk *super, unsigned *bad_copies, GError **error);
/* Both copies, the older one first, each made durable before the next; SUPER's
 * sequence rises with each. 0 or -errno: then call it again to try again. */
int cache_super_write(int fd, const char *path, struct cache_super_ondisk *super);

/* Sets ERROR: PATH, WHY it is not used, and the command that resets it. False. */
bool cache_refuse(GError **error, const char *path, const char *why);
/* Likewise: its log cannot be read, for RESULT, a -errno. */
bool cache_refuse_unreadable(GError **error, const char *path, int result);

/* Where the log ends. */
struct cache_log_end {
	uint64_t slot;	   /* of the next record */
	uint64_t sequence; /* of the next record */
	uint64_t previous; /* checksum of the last one, or the superblock's tail_previous */
	uint64_t generation;
	uint64_t durable; /* sequence up to which records were known durable */
	uint64_t records;
	uint64_t blocks;
};
/* Reads record headers from the tail forward, several segments at once, and
 * calls RECORD for each valid one in log order. The data of the records past
 * the last one known durable is checked too: the first that fails is the end
 * of the log. ALL_DATA checks the data of every record and calls DAMAGE for
 * each block that fails without ending the log (DAMAGE may be NULL otherwise).
 * False and ERROR only when the file cannot be read. */
struct cache_log_reader {
	void (*record)(void *opaque, const struct cache_record_ondisk *record, uint64_t slot);
	void (*damage)(void *opaque, const struct cache_record_ondisk *record, uint64_t slot, unsigned index);
	void *opaque;
	bool all_data;
};
bool cache_log_read(int fd, const char *path, const struct cache_super_ondisk *super,
		    const struct cache_log_reader *reader, struct cache_log_end *end, GError **error);

struct index;
struct layers;
/* Fills INDEX and LAYERS from the log: clean blocks of layers with a stamp or a
 * generation, dirty blocks and zero ranges that were not migrated. */
bool cache_recover(int fd, const char *path, const struct cache_super_ondisk *super, struct index *index,
		   struct layers *layers, struct cache_log_end *end, GError **error);

#endif
