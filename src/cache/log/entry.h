/* Entries of the log without data. False: no room for it now. */
#ifndef LEAFDISK_CACHE_LOG_ENTRY_H
#define LEAFDISK_CACHE_LOG_ENTRY_H

#include "cache/internal.h"

/* LAYER as it is now. */
bool log_declare_locked(struct cache *cache, enum log_purpose purpose, struct cache_layer *layer);
/* Before any other entry of LAYER: the log knows it as it is. */
bool log_declare_if_needed_locked(struct cache *cache, enum log_purpose purpose, struct cache_layer *layer);
/* With its zero ranges, which are nowhere else; again when that is not in the
 * log as a whole. */
bool log_declare_orphan_locked(struct cache *cache, enum log_purpose purpose, struct cache_layer *layer);
bool log_forget_locked(struct cache_layer *layer, uint64_t block, uint64_t blocks);
bool log_drop_locked(struct cache *cache, uint32_t id);
/* *PLACE: where the entry is. */
bool log_zero_locked(struct cache_layer *layer, uint64_t block, uint64_t blocks, struct epoch_place *place);
/* The caller closes the record: nothing of the next epoch is in it. */
bool log_barrier_locked(struct cache_layer *layer, enum log_purpose purpose, struct epoch_place *place);
/* EVENT of LAYER, a zero range or a barrier, at another place with the order that it has:
 * *SLOT is that of its record. */
bool log_event_moved_locked(struct cache_layer *layer, const struct epoch_event *event, uint32_t *slot);
/* KIND: CACHE_ENTRY_MIGRATE or _MIGRATED, of the barrier at PLACE. */
bool log_migrate_locked(struct cache_layer *layer, enum log_purpose purpose, enum cache_entry_kind kind,
			struct epoch_place place);

#endif
