/* What the log holds: index and layers from its records.
 *
 * A layer's latest declaration can stand behind its blocks, so blocks enter the
 * index as they come, in log order. At the end those go whose layer is not
 * known (volatile, dropped) or whose image may have changed (neither stamp nor
 * generation, clean), and the rest are counted. The zero ranges and barriers of
 * an id are kept aside likewise; what was migrated of them goes. */
#include "recover.h"

#include <string.h>

#include "core/loop.h"
#include "cache/format/format.h"
#include "cache/index/index.h"
#include "cache/index/layers.h"

/* What the log says of an id apart from its declaration. */
struct id_state {
	bool dropped;		 /* whatever follows is not looked at */
	struct intervals *zeros; /* where nothing came later */
	struct epochs *epochs;
	bool migrated; /* up to this barrier */
	struct epoch_place migrated_place;
	uint64_t migrated_slots;
};

struct recovery {
	struct index *index;
	struct layers *layers;
	GHashTable *ids; /* id -> struct id_state */
	uint64_t tail_slot;
	uint64_t ring_segments;
	uint32_t counted_id;
	struct cache_layer *counted;
};

static void id_state_free(void *opaque)
{
	struct id_state *state = opaque;

	intervals_free(state->zeros);
	epochs_free(state->epochs);
	g_free(state);
}

static struct id_state *state_of(struct recovery *recovery, uint32_t id)
{
	struct id_state *state = g_hash_table_lookup(recovery->ids, GUINT_TO_POINTER(id));

	if (state)
		return state;
	state = g_new0(struct id_state, 1);
	state->zeros = intervals_new();
	state->epochs = epochs_new();
	g_hash_table_insert(recovery->ids, GUINT_TO_POINTER(id), state);
	layers_see_id(recovery->layers, id);
	return state;
}

/* Of what stands behind PLACE, in slots from the tail. */
static uint64_t place_distance(const struct recovery *recovery, struct epoch_place place)
{
	return cache_slot_distance(recovery->tail_slot, place.slot, recovery->ring_segments) + 1 + place.blocks;
}

/* ---- Entries ------------------------------------------------------------- */

static void apply_data(struct recovery *recovery, struct id_state *state, const struct cache_entry *entry,
		       uint64_t record_slot)
{
	uint64_t slot = record_slot + 1 + entry->first_data;

	if (entry->kind == CACHE_ENTRY_DIRTY)
		epochs_add_blocks(state->epochs, (uint32_t)slot, (unsigned)entry->blocks, loop_now_ns());
	if (intervals_length(state->zeros))
		intervals_remove(state->zeros, entry->block, entry->blocks);
	for (unsigned i = 0; i < entry->blocks; i++) {
		struct index_entry block = {
			.layer = entry->layer,
			.block = entry->block + i,
			.flags = entry->kind == CACHE_ENTRY_DIRTY ? INDEX_PINNED : 0,
			.checksum = cache_checksum_short(le64_get(entry->words[i])),
		};

		index_insert(recovery->index, (uint32_t)(slot + i), &block);
	}
}

static void ignore_removed(void *opaque, uint32_t slot, const struct index_entry *entry)
{
	(void)opaque;
	(void)slot;
	(void)entry;
}

static void forget(struct recovery *recovery, struct id_state *state, const struct cache_entry *entry)
{
	intervals_remove(state->zeros, entry->block, entry->blocks);
	index_remove_range(recovery->index, entry->layer, entry->block, entry->blocks, ignore_removed, NULL);
}

static void drop(struct recovery *recovery, struct id_state *state, uint32_t id)
{
	struct cache_layer *layer = layers_by_id(recovery->layers, id);

	state->dropped = true;
	if (layer)
		layers_remove(recovery->layers, layer);
}

/* An identity has one id, the one declared last. */
static void declare(struct recovery *recovery, const struct cache_entry *entry, uint64_t record_slot)
{
	const struct cache_layer_ondisk *ondisk = (const struct cache_layer_ondisk *)entry->words;
	g_autofree char *name = g_strndup((const char *)(ondisk + 1), le32_get(ondisk->name_bytes));
	struct cache_layer *layer = layers_by_id(recovery->layers, entry->layer);

	if (layer)
		layers_remove(recovery->layers, layer);
	layer = layers_by_identity(recovery->layers, ondisk->identity);
	if (layer && !(le32_get(ondisk->flags) & CACHE_LAYER_ORPHAN))
		layers_remove(recovery->layers, layer);
	layer = layers_add_recovered(recovery->layers, entry->layer, ondisk, name);
	layer->declared_segment = record_slot / CACHE_SEGMENT_BLOCKS;
}

/* What an entry names may be reclaimed by now, and its slot in use again. */
static void migrate(struct recovery *recovery, struct id_state *state, const struct cache_entry *entry,
		    uint64_t record_slot)
{
	struct epoch_place place = {(uint32_t)le64_get(entry->words[0]), (uint32_t)le64_get(entry->words[1])};
	uint64_t slots = recovery->ring_segments * CACHE_SEGMENT_BLOCKS;

	if (place.slot >= slots ||
	    cache_slot_distance(recovery->tail_slot, place.slot, recovery->ring_segments) >
		    cache_slot_distance(recovery->tail_slot, record_slot, recovery->ring_segments))
		return;
	if (entry->kind == CACHE_ENTRY_MIGRATED) {
		state->migrated = true;
		state->migrated_place = place;
	} else {
		state->epochs->begun = true;
		state->epochs->begun_logged = true;
		state->epochs->begun_place = place;
	}
}

static void apply_entry(struct recovery *recovery, const struct cache_entry *entry, unsigned data_before,
			uint64_t record_slot)
{
	struct epoch_place place = {(uint32_t)record_slot, data_before};
	struct id_state *state = state_of(recovery, entry->layer);

	if (state->dropped)
		return;
	switch (entry->kind) {
	case CACHE_ENTRY_CLEAN:
	case CACHE_ENTRY_DIRTY:
		apply_data(recovery, state, entry, record_slot);
		break;
	case CACHE_ENTRY_ZERO:
		forget(recovery, state, entry);
		intervals_add(state->zeros, entry->block, entry->blocks);
		epochs_add_zero(state->epochs, place, entry->block, entry->blocks, loop_now_ns());
		break;
	case CACHE_ENTRY_FORGET:
		forget(recovery, state, entry);
		break;
	case CACHE_ENTRY_LAYER:
		declare(recovery, entry, record_slot);
		break;
	case CACHE_ENTRY_DROP:
		drop(recovery, state, entry->layer);
		break;
	case CACHE_ENTRY_BARRIER:
		epochs_add_barrier(state->epochs, place, loop_now_ns());
		break;
	case CACHE_ENTRY_MIGRATE:
	case CACHE_ENTRY_MIGRATED:
		migrate(recovery, state, entry, record_slot);
		break;
	}
}

static void apply_record(void *opaque, const struct cache_record_ondisk *record, uint64_t slot)
{
	struct cache_cursor cursor = {0};
	struct cache_entry entry;

	while (cache_record_next(record, &cursor, &entry))
		apply_entry(opaque, &entry, cursor.data, slot);
}

/* ---- Afterwards ---------------------------------------------------------- */

static struct cache_layer *layer_of(struct recovery *recovery, uint32_t id)
{
	if (id != recovery->counted_id) {
		recovery->counted_id = id;
		recovery->counted = layers_by_id(recovery->layers, id);
	}
	return recovery->counted;
}

/* Whether the image has what is in SLOT. */
static bool is_migrated(struct recovery *recovery, const struct index_entry *entry, uint32_t slot)
{
	struct id_state *state = state_of(recovery, entry->layer);

	if (!state->migrated || cache_slot_distance(recovery->tail_slot, slot, recovery->ring_segments) >=
					place_distance(recovery, state->migrated_place))
		return false;
	state->migrated_slots++;
	return true;
}

static void keep_or_remove(struct recovery *recovery, uint32_t slot)
{
	struct index_entry entry;
	struct cache_layer *layer;

	index_get(recovery->index, slot, &entry);
	if (!(entry.flags & INDEX_DATA))
		return;
	layer = layer_of(recovery, entry.layer);
	if (layer && (entry.flags & INDEX_PINNED) && is_migrated(recovery, &entry, slot)) {
		index_set_flags(recovery->index, slot, 0, INDEX_PINNED);
		entry.flags &= ~(unsigned)INDEX_PINNED;
	}
	if (!(entry.flags & INDEX_LIVE))
		return;
	if (!layer || (layer->stamp == 0 && layer->generation == 0 && !(entry.flags & INDEX_PINNED))) {
		index_remove(recovery->index, entry.layer, entry.block);
		return;
	}
	layer->live_blocks++;
	layer->pinned_blocks += (entry.flags & INDEX_PINNED) != 0;
}

static void drop_migrated(struct recovery *recovery, struct id_state *state)
{
	uint64_t zeros = state->epochs->zeros;
	struct epochs *epochs = state->epochs;
	uint64_t put = epochs->done, end;
	unsigned count = 0;
	bool begun;

	if (!state->migrated)
		return;
	end = place_distance(recovery, state->migrated_place);
	while (count < epochs_length(epochs) && place_distance(recovery, epochs_get(epochs, count)->place) <= end)
		put = epochs_get(epochs, count++)->put;
	begun = epochs->begun && place_distance(recovery, epochs->begun_place) > end;
	epochs_remove(epochs, count, state->migrated_slots, state->migrated_place, put);
	epochs->begun = begun;
	if (epochs->zeros != zeros)
		state->zeros = epochs_keep_zeros(epochs, state->zeros);
}

static void keep_zeros(struct recovery *recovery)
{
	GHashTableIter iter;
	void *id, *value;

	g_hash_table_iter_init(&iter, recovery->ids);
	while (g_hash_table_iter_next(&iter, &id, &value)) {
		struct id_state *state = value;
		struct cache_layer *layer = layers_by_id(recovery->layers, GPOINTER_TO_UINT(id));

		drop_migrated(recovery, state);
		if (!layer)
			continue;
		if (state->zeros && intervals_length(state->zeros))
			layer->zeros = g_steal_pointer(&state->zeros);
		if (!layer->orphan && !epochs_is_empty(state->epochs))
			layer->epochs = g_steal_pointer(&state->epochs);
	}
}

bool cache_recover(int fd, const char *path, const struct cache_super_ondisk *super, struct index *index,
		   struct layers *layers, struct cache_log_end *end, GError **error)
{
	g_autoptr(GHashTable) ids = g_hash_table_new_full(NULL, NULL, NULL, id_state_free);
	struct recovery recovery = {
		.index = index,
		.layers = layers,
		.ids = ids,
		.tail_slot = le64_get(super->tail_segment) * CACHE_SEGMENT_BLOCKS,
		.ring_segments = le64_get(super->ring_segments),
	};
	struct cache_log_reader reader = {.record = apply_record, .opaque = &recovery};
	uint64_t slots = le64_get(super->ring_segments) * CACHE_SEGMENT_BLOCKS;

	if (!cache_log_read(fd, path, super, &reader, end, error))
		return false;
	for (uint64_t slot = 0; slot < slots; slot++)
		keep_or_remove(&recovery, (uint32_t)slot);
	keep_zeros(&recovery);
	return true;
}
