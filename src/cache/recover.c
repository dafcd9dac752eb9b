/* What the log holds: index and layers from its records.
 *
 * A layer's latest declaration can stand behind its blocks, so blocks enter the
 * index as they come, in log order. At the end those go whose layer is not
 * known (volatile, dropped) or whose image may have changed (neither stamp nor
 * generation, clean), and the rest are counted. The zero ranges and barriers of
 * an id are kept aside likewise; what was migrated of them goes.
 *
 * What was moved to a later place has its order still, and hides nothing newer.
 *
 * Records that are missing, a hole, have changed those layers whose first LAST behind it
 * names a record in it. A record whose LASTs go back far enough proves that nobody else was
 * changed there; without such a record, and for who is not mentioned behind the hole, nobody
 * knows. What a layer has lost is no loss where the image is known to have all up to there:
 * what is older in the cache goes then, as the image may have something newer. */
#include "recover.h"

#include <string.h>

#include "core/loop.h"
#include "core/ranges.h"
#include "cache/format/format.h"
#include "cache/index/index.h"
#include "cache/index/layers.h"
#include "cache/places.h"

/* What the log says of an id apart from its declaration. */
struct id_state {
	bool dropped;		 /* whatever follows is not looked at */
	struct intervals *zeros; /* where nothing came later */
	struct ranges *orders;	 /* of the zero ranges */
	struct epochs *epochs;
	bool known;		/* by LAST: it is not volatile */
	uint64_t last_change;	/* sequence */
	unsigned holes_settled; /* of which it is known whether they had changes of it */
	uint64_t missing;	/* sequence of the last record with changes that is in a hole */
	uint64_t doubtful;	/* the last sequence of holes that may have had some */
	uint64_t closed;	/* sequence of the LAYER that says that its image has all */
	uint64_t oldest;	/* order of what is dirty; 0: nothing but zeros is */
	uint64_t newest;	/* likewise */
	uint64_t migrated;	/* up to the barrier of this order; 0: nothing */
	uint64_t migrated_slots;
};

struct hole_state {
	struct cache_hole hole;
	bool witnessed; /* who is not mentioned behind it was not changed in it */
};

struct recovery {
	struct index *index;
	struct layers *layers;
	GHashTable *ids; /* id -> struct id_state */
	GArray *holes;	 /* struct hole_state, in log order */
	struct places places;
	uint64_t slots; /* that records have, and none behind */
	uint32_t counted_id;
	struct cache_layer *counted;
};

static void id_state_free(void *opaque)
{
	struct id_state *state = opaque;

	intervals_free(state->zeros);
	ranges_free(state->orders);
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
	state->orders = ranges_new();
	state->epochs = epochs_new();
	g_hash_table_insert(recovery->ids, GUINT_TO_POINTER(id), state);
	layers_see_id(recovery->layers, id);
	return state;
}

/* ---- Entries ------------------------------------------------------------- */

static bool is_dirty_kind(enum cache_entry_kind kind)
{
	return kind == CACHE_ENTRY_DIRTY || kind == CACHE_ENTRY_MOVED;
}

/* Of the zero range that BLOCK is in; 0: it is in none. */
static uint64_t zero_order(const struct id_state *state, uint64_t block)
{
	return intervals_contains(state->zeros, block, 1, NULL) ? ranges_rank(state->orders, block) : 0;
}

/* Whether the log has something newer than BLOCK, which was moved. */
static bool is_hidden(struct recovery *recovery, const struct id_state *state, const struct index_entry *block)
{
	uint32_t slot = index_find(recovery->index, block->layer, block->block);
	struct index_entry present;

	if (slot == INDEX_NO_SLOT)
		return zero_order(state, block->block) > block->order;
	index_get(recovery->index, slot, &present);
	return present.order > block->order;
}

static void apply_data(struct recovery *recovery, struct id_state *state, const struct cache_entry *entry,
		       uint64_t record_slot)
{
	uint64_t slot = record_slot + 1 + entry->first_data;

	if (is_dirty_kind(entry->kind))
		epochs_add_blocks(state->epochs, (uint32_t)slot, (unsigned)entry->blocks, loop_now_ns());
	if (entry->kind == CACHE_ENTRY_MOVED)
		epochs_scatter(state->epochs, entry->order);
	if (entry->kind != CACHE_ENTRY_MOVED && intervals_length(state->zeros))
		intervals_remove(state->zeros, entry->block, entry->blocks);
	for (unsigned i = 0; i < entry->blocks; i++) {
		struct index_entry block = {
			.layer = entry->layer,
			.block = entry->block + i,
			.flags = (is_dirty_kind(entry->kind) ? INDEX_PINNED : 0) | (entry->damaged ? INDEX_LOST : 0),
			.checksum = cache_checksum_short(le64_get(entry->checksums[i])),
			.order = entry->order,
		};

		if (entry->superseded || (entry->kind == CACHE_ENTRY_MOVED && is_hidden(recovery, state, &block))) {
			index_insert_superseded(recovery->index, (uint32_t)(slot + i), &block);
			continue;
		}
		index_insert(recovery->index, (uint32_t)(slot + i), &block);
		if (entry->kind == CACHE_ENTRY_MOVED)
			intervals_remove(state->zeros, block.block, 1);
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

/* False: BLOCK is newer than ORDER. */
static bool remove_older(struct recovery *recovery, uint32_t layer, uint64_t block, uint64_t order)
{
	struct index_entry present;

	index_get(recovery->index, index_find(recovery->index, layer, block), &present);
	if (present.order >= order)
		return false;
	index_remove(recovery->index, layer, block);
	return true;
}

/* Blocks that are newer stay. */
static void apply_moved_zero(struct recovery *recovery, struct id_state *state, const struct cache_entry *entry,
			     struct epoch_place place)
{
	g_autoptr(GArray) present = index_list(recovery->index, entry->layer, entry->block, entry->blocks);
	uint64_t from = entry->block;

	ranges_raise(state->orders, entry->block, entry->blocks, entry->order);
	epochs_add_zero(state->epochs, place, entry->block, entry->blocks, loop_now_ns());
	epochs_note_moved(state->epochs);
	for (guint i = 0; i < present->len; i++) {
		uint64_t block = g_array_index(present, uint64_t, i);

		if (remove_older(recovery, entry->layer, block, entry->order))
			continue;
		intervals_add(state->zeros, from, block - from);
		from = block + 1;
	}
	intervals_add(state->zeros, from, entry->block + entry->blocks - from);
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
	struct cache_layer_ondisk ondisk;
	g_autofree char *name = cache_entry_layer(entry, &ondisk);
	struct cache_layer *layer = layers_by_id(recovery->layers, entry->layer);

	if (layer)
		layers_remove(recovery->layers, layer);
	layer = layers_by_identity(recovery->layers, ondisk.identity);
	if (layer && !(le32_get(ondisk.flags) & CACHE_LAYER_ORPHAN))
		layers_remove(recovery->layers, layer);
	layer = layers_add_recovered(recovery->layers, entry->layer, &ondisk, name);
	layer->declared_segment = record_slot / CACHE_SEGMENT_BLOCKS;
	if (layer->stamp != 0 && layer->generation == 0 && !layer->orphan)
		state_of(recovery, entry->layer)->closed = entry->order;
}

static void migrate(struct recovery *recovery, struct id_state *state, const struct cache_entry *entry,
		    uint64_t record_slot)
{
	const struct places *places = &recovery->places;
	uint64_t order = entry->version_1 ? places_sequence_at(places, le64_get(entry->words[0])) : entry->order;

	if (order == 0 || order > places_last_sequence(places))
		return;
	if (entry->kind == CACHE_ENTRY_MIGRATED) {
		state->migrated = MAX(state->migrated, order);
	} else {
		state->epochs->begun = true;
		state->epochs->begun_logged = true;
		state->epochs->begun_segment = record_slot / CACHE_SEGMENT_BLOCKS;
		state->epochs->begun_place = places_of(places, order);
	}
}

/* ---- Holes --------------------------------------------------------------- */

static struct hole_state *hole_at(const struct recovery *recovery, unsigned position)
{
	return &g_array_index(recovery->holes, struct hole_state, position);
}

/* The record of SEQUENCE was the last one that changed the layer. What is behind a hole and
 * does not say who changed it before is of version 1. */
static void settle_hole(struct id_state *state, const struct cache_hole *hole, uint64_t sequence)
{
	if (sequence >= hole->end)
		state->doubtful = hole->end - 1;
	else if (sequence >= hole->first)
		state->missing = sequence;
}

static void apply_last(struct recovery *recovery, struct id_state *state, uint64_t sequence)
{
	for (unsigned i = state->holes_settled; i < recovery->holes->len; i++)
		settle_hole(state, &hole_at(recovery, i)->hole, sequence);
	state->last_change = MAX(state->last_change, sequence);
	state->holes_settled = recovery->holes->len;
	state->known = true;
}

/* HEADER names whoever was changed by so many records before it. */
static void witness(struct recovery *recovery, const struct cache_record_ondisk *header)
{
	uint64_t sequence = le64_get(header->sequence), depth = le32_get(header->depth);

	for (unsigned i = recovery->holes->len; i-- > 0 && !hole_at(recovery, i)->witnessed;)
		hole_at(recovery, i)->witnessed =
			depth == UINT32_MAX || sequence - MIN(depth, sequence) <= hole_at(recovery, i)->hole.first;
}

static void add_hole(void *opaque, const struct cache_hole *hole)
{
	struct recovery *recovery = opaque;
	struct hole_state state = {.hole = *hole};

	g_array_append_val(recovery->holes, state);
}

/* A block of a record that nobody knows to have been durable cannot be read. */
static void mark_lost(void *opaque, const struct cache_record_ondisk *record, uint64_t slot, unsigned index)
{
	struct recovery *recovery = opaque;

	(void)record;
	index_set_flags(recovery->index, (uint32_t)(slot + 1 + index), INDEX_LOST, 0);
}

/* ---- Records --------------------------------------------------------------- */

static void apply_entry(struct recovery *recovery, const struct cache_entry *entry, unsigned data_before,
			uint64_t record_slot)
{
	struct epoch_place place = {(uint32_t)record_slot, data_before, entry->order};
	struct id_state *state = state_of(recovery, entry->layer);

	if (state->dropped)
		return;
	switch (entry->kind) {
	case CACHE_ENTRY_CLEAN:
	case CACHE_ENTRY_DIRTY:
	case CACHE_ENTRY_MOVED:
		apply_data(recovery, state, entry, record_slot);
		break;
	case CACHE_ENTRY_ZERO:
		forget(recovery, state, entry);
		intervals_add(state->zeros, entry->block, entry->blocks);
		ranges_raise(state->orders, entry->block, entry->blocks, entry->order);
		epochs_add_zero(state->epochs, place, entry->block, entry->blocks, loop_now_ns());
		break;
	case CACHE_ENTRY_MOVED_ZERO:
		apply_moved_zero(recovery, state, entry, place);
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
	case CACHE_ENTRY_MOVED_BARRIER:
		epochs_add_moved_barrier(state->epochs, place, loop_now_ns());
		break;
	case CACHE_ENTRY_MIGRATE:
	case CACHE_ENTRY_MIGRATED:
		migrate(recovery, state, entry, record_slot);
		break;
	case CACHE_ENTRY_LAST:
		apply_last(recovery, state, entry->block);
		break;
	}
}

static void apply_record(void *opaque, const struct cache_record_ondisk *header, uint64_t slot)
{
	uint64_t sequence = le64_get(header->sequence);
	struct recovery *recovery = opaque;
	struct cache_cursor cursor = {0};
	struct cache_entry entry;

	places_add(&recovery->places, sequence, slot, le32_get(header->blocks));
	recovery->slots = MAX(recovery->slots, slot + 1 + le32_get(header->blocks));
	if (le32_get(header->magic) == CACHE_RECORD_MAGIC)
		witness(recovery, header);
	while (cache_record_next(header, &cursor, &entry)) {
		apply_entry(recovery, &entry, cursor.data, slot);
		if (cache_entry_is_change(&entry))
			state_of(recovery, entry.layer)->last_change = sequence;
	}
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

/* Whether the image has what is in ENTRY's slot. */
static bool is_migrated(struct recovery *recovery, const struct index_entry *entry)
{
	struct id_state *state = state_of(recovery, entry->layer);

	if (entry->order > state->migrated) {
		state->oldest = state->oldest ? MIN(state->oldest, entry->order) : entry->order;
		state->newest = MAX(state->newest, entry->order);
		return false;
	}
	state->migrated_slots++;
	return true;
}

/* The last sequence that had changes of it, or may have had, and is missing; 0: none. */
static uint64_t lost_of(const struct id_state *state)
{
	return MAX(state->missing, state->doubtful);
}

/* The image may have something newer, which was in a hole. */
static bool is_stale(struct recovery *recovery, const struct index_entry *entry)
{
	const struct id_state *state;

	if (recovery->holes->len == 0)
		return false;
	state = state_of(recovery, entry->layer);
	return !(entry->flags & INDEX_PINNED) && entry->order <= lost_of(state);
}

/* What was moved is in the log twice until its first place is reclaimed: the LIVE one counts. */
static bool is_twice(const struct recovery *recovery, const struct index_entry *entry)
{
	uint32_t live = index_find(recovery->index, entry->layer, entry->block);
	struct index_entry other;

	if ((entry->flags & INDEX_LIVE) || live == INDEX_NO_SLOT)
		return false;
	index_get(recovery->index, live, &other);
	return other.order == entry->order && (other.flags & INDEX_PINNED);
}

/* Whether ENTRY is dirty. */
static bool count_dirty(struct recovery *recovery, const struct index_entry *entry)
{
	struct epochs *epochs = state_of(recovery, entry->layer)->epochs;

	if (is_migrated(recovery, entry))
		return false;
	if (!epochs->scattered)
		return true;
	if (is_twice(recovery, entry)) {
		epochs->dirty--;
		return false;
	}
	epochs_count_block(epochs, entry->order);
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
	if (layer && (entry.flags & INDEX_PINNED) && !count_dirty(recovery, &entry)) {
		index_set_flags(recovery->index, slot, 0, INDEX_PINNED);
		entry.flags &= ~(unsigned)INDEX_PINNED;
	}
	if (!(entry.flags & INDEX_LIVE))
		return;
	if (!layer || (layer->stamp == 0 && layer->generation == 0 && !(entry.flags & INDEX_PINNED)) ||
	    is_stale(recovery, &entry)) {
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
	uint64_t put = epochs->done;
	unsigned count = 0;
	bool begun;

	if (epochs->scattered)
		epochs_end_count(epochs);
	if (!state->migrated)
		return;
	while (count < epochs_length(epochs) && epochs_get(epochs, count)->place.order <= state->migrated)
		put = epochs_get(epochs, count++)->put;
	begun = epochs->begun && epochs->begun_place.order > state->migrated;
	epochs_remove(epochs, count, state->migrated_slots, places_of(&recovery->places, state->migrated), put);
	epochs->begun = begun;
	if (epochs->zeros != zeros)
		state->zeros = epochs_keep_zeros(epochs, state->zeros);
}

/* The image may have nothing that is dirty still. */
static bool is_over(const struct id_state *state)
{
	uint64_t begun = state->epochs->begun_place.order;

	return (!state->oldest || state->oldest > begun) &&
	       (!epochs_length(state->epochs) || epochs_get(state->epochs, 0)->place.order > begun);
}

/* What the log has lost, and the image does not have for sure. */
static bool is_incomplete(const struct id_state *state, const struct cache_layer *layer)
{
	bool written_back = layer->generation != 0 || layer->orphan || !epochs_is_empty(state->epochs) ||
			    !buffer_is_zero(layer->nonce, sizeof(layer->nonce));

	return written_back && lost_of(state) > state->migrated;
}

/* Before what is over is forgotten. */
static uint64_t reached_by(const struct id_state *state)
{
	const struct epochs *epochs = state->epochs;
	unsigned events = epochs_length(epochs);
	uint64_t last = events ? epochs_get(epochs, events - 1)->place.order : 0;

	if (epochs->begun)
		last = MAX(last, epochs->begun_place.order);
	return MAX(last, MAX(state->migrated, state->newest));
}

static void keep_zeros(struct recovery *recovery)
{
	GHashTableIter iter;
	void *id, *value;

	g_hash_table_iter_init(&iter, recovery->ids);
	while (g_hash_table_iter_next(&iter, &id, &value)) {
		struct id_state *state = value;
		struct cache_layer *layer = layers_by_id(recovery->layers, GPOINTER_TO_UINT(id));

		uint64_t reached;

		drop_migrated(recovery, state);
		reached = reached_by(state);
		state->epochs->begun &= !is_over(state);
		if (!layer)
			continue;
		layer->reached = reached;
		/* Who asks later finds it in the hole again. */
		layer->last_change = MAX(state->last_change, state->doubtful);
		layer->incomplete |= is_incomplete(state, layer);
		layer->missing = state->missing;
		if (state->zeros && intervals_length(state->zeros))
			layer->zeros = g_steal_pointer(&state->zeros);
		if (!layer->orphan && !epochs_is_empty(state->epochs))
			layer->epochs = g_steal_pointer(&state->epochs);
	}
}

/* Of the holes that were not settled by who was mentioned behind them. */
static void settle_holes(struct recovery *recovery)
{
	GHashTableIter iter;
	void *value;

	g_hash_table_iter_init(&iter, recovery->ids);
	while (g_hash_table_iter_next(&iter, NULL, &value)) {
		struct id_state *state = value;

		for (unsigned i = state->holes_settled; i < recovery->holes->len; i++)
			if (!hole_at(recovery, i)->witnessed)
				state->doubtful = hole_at(recovery, i)->hole.end - 1;
		if (lost_of(state) > 0 && state->closed > lost_of(state))
			state->migrated = MAX(state->migrated, state->closed);
	}
}

/* The declaration of an id is missing: whose image it is, nobody knows. How many there are. */
static unsigned add_nameless(struct recovery *recovery)
{
	struct cache_layer_ondisk ondisk = {
		.flags = le32_of(CACHE_LAYER_ORPHAN),
		.orphan_reason = le32_of(CACHE_ORPHAN_NAMELESS),
		.size_bytes = le64_of(INT64_MAX),
	};
	unsigned count = 0;
	GHashTableIter iter;
	void *key, *value;

	memset(ondisk.identity, 0xff, sizeof(ondisk.identity));
	g_hash_table_iter_init(&iter, recovery->ids);
	while (recovery->holes->len && g_hash_table_iter_next(&iter, &key, &value)) {
		const struct id_state *state = value;
		uint32_t id = GPOINTER_TO_UINT(key);
		g_autofree char *name = g_strdup_printf("layer-%u", id);

		if (!state->known || state->dropped || layers_by_id(recovery->layers, id) ||
		    (!state->missing && epochs_is_empty(state->epochs)))
			continue;
		layers_add_recovered(recovery->layers, id, &ondisk, name);
		count++;
	}
	return count;
}

static void sort_epochs(struct recovery *recovery)
{
	GHashTableIter iter;
	void *value;

	g_hash_table_iter_init(&iter, recovery->ids);
	while (g_hash_table_iter_next(&iter, NULL, &value)) {
		struct id_state *state = value;

		if (state->epochs->scattered)
			epochs_sort(state->epochs);
	}
}

static bool has_unwitnessed_hole(const struct recovery *recovery)
{
	for (unsigned i = 0; i < recovery->holes->len; i++)
		if (!hole_at(recovery, i)->witnessed)
			return true;
	return false;
}

void cache_recover(int fd, const struct cache_super_ondisk *super, struct index *index, struct layers *layers,
		   struct cache_log_end *end)
{
	g_autoptr(GHashTable) ids = g_hash_table_new_full(NULL, NULL, NULL, id_state_free);
	g_autoptr(GArray) holes = g_array_new(FALSE, FALSE, sizeof(struct hole_state));
	struct recovery recovery = {
		.index = index,
		.layers = layers,
		.ids = ids,
		.holes = holes,
	};
	struct cache_log_reader reader = {
		.record = apply_record,
		.damage = mark_lost,
		.hole = add_hole,
		.opaque = &recovery,
	};
	places_init(&recovery.places, super);
	cache_log_read(fd, super, &reader, end);
	settle_holes(&recovery);
	end->unknown = add_nameless(&recovery) > 0 || has_unwitnessed_hole(&recovery);
	sort_epochs(&recovery);
	for (uint64_t slot = 0; slot < recovery.slots; slot++)
		keep_or_remove(&recovery, (uint32_t)slot);
	keep_zeros(&recovery);
	places_clear(&recovery.places);
}
