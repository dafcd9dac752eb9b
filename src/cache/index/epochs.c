/* Dirty zero ranges and barriers of one layer. */
#include "epochs.h"

#include "core/bisect.h"

/* Closer barriers are one: blocks put between them. */
#define BARRIER_DISTANCE 64
/* To tell whether an epoch ends. */
#define EVENTS_LOOKED_AT 256

struct epochs *epochs_new(void)
{
	struct epochs *epochs = g_new0(struct epochs, 1);

	epochs->events = g_array_new(FALSE, FALSE, sizeof(struct epoch_event));
	return epochs;
}

void epochs_free(struct epochs *epochs)
{
	if (!epochs)
		return;
	g_array_free(epochs->events, TRUE);
	g_free(epochs);
}

uint64_t epochs_memory_bytes(const struct epochs *epochs)
{
	return sizeof(*epochs) + epochs->events->len * sizeof(struct epoch_event);
}

unsigned epochs_length(const struct epochs *epochs)
{
	return epochs->events->len;
}

const struct epoch_event *epochs_get(const struct epochs *epochs, unsigned position)
{
	return &g_array_index(epochs->events, struct epoch_event, position);
}

struct epoch_event *epochs_at(struct epochs *epochs, unsigned position)
{
	return &g_array_index(epochs->events, struct epoch_event, position);
}

bool epochs_is_empty(const struct epochs *epochs)
{
	return epochs->dirty == 0 && epochs->zeros == 0;
}

bool epochs_is_open(const struct epochs *epochs)
{
	const struct epoch_event *last = epochs->events->len ? epochs_get(epochs, epochs->events->len - 1) : NULL;

	if (!last)
		return !epochs_is_empty(epochs);
	return !epoch_event_is_barrier(last) || last->put != epochs->put;
}

uint64_t epochs_open_blocks(const struct epochs *epochs)
{
	for (unsigned i = epochs->events->len; i-- > 0;)
		if (epoch_event_is_barrier(epochs_get(epochs, i)))
			return epochs->put - epochs_get(epochs, i)->put;
	return epochs->put - epochs->done;
}

bool epochs_has_barrier(const struct epochs *epochs)
{
	for (unsigned i = 0; i < epochs->events->len; i++)
		if (epoch_event_is_barrier(epochs_get(epochs, i)))
			return true;
	return false;
}

uint64_t epochs_count(const struct epochs *epochs)
{
	uint64_t count = epochs_is_open(epochs) ? 1 : 0;

	for (unsigned i = 0; i < epochs->events->len; i++)
		count += epochs_get(epochs, i)->barriers;
	return count;
}

static struct intervals *all_zeros(const struct epochs *epochs)
{
	struct intervals *zeros = intervals_new();

	for (unsigned i = 0; i < epochs->events->len; i++) {
		const struct epoch_event *event = epochs_get(epochs, i);

		if (!epoch_event_is_barrier(event))
			intervals_add(zeros, event->block, event->blocks);
	}
	return zeros;
}

static void add_common(struct intervals *common, const struct intervals *set, struct interval range)
{
	uint64_t run;

	for (; range.count > 0; range.first += run, range.count -= run)
		if (intervals_contains(set, range.first, range.count, &run))
			intervals_add(common, range.first, run);
}

struct intervals *epochs_keep_zeros(const struct epochs *epochs, struct intervals *zeros)
{
	struct intervals *kept = epochs->zeros && zeros ? intervals_new() : NULL;
	struct intervals *dirty = kept ? all_zeros(epochs) : NULL;

	for (unsigned i = 0; kept && i < intervals_length(zeros); i++)
		add_common(kept, dirty, intervals_get(zeros, i));
	intervals_free(dirty);
	intervals_free(zeros);
	return kept;
}

static void begin(struct epochs *epochs, uint32_t slot, uint64_t now_ns)
{
	if (!epochs->any)
		epochs->first = slot;
	epochs->any = true;
	if (!epochs->oldest_ns)
		epochs->oldest_ns = now_ns;
}

void epochs_add_blocks(struct epochs *epochs, uint32_t slot, unsigned blocks, uint64_t now_ns)
{
	begin(epochs, slot, now_ns);
	epochs->dirty += blocks;
	epochs->put += blocks;
}

void epochs_add_zero(struct epochs *epochs, struct epoch_place place, uint64_t block, uint64_t blocks, uint64_t now_ns)
{
	struct epoch_event event = {
		.place = place, .put = ++epochs->put, .block = block, .blocks = blocks, .first = place.order};

	begin(epochs, place.slot, now_ns);
	epochs->zeros++;
	g_array_append_val(epochs->events, event);
}

/* Where the barrier before the last event stands. */
static uint64_t put_before_last(const struct epochs *epochs)
{
	return epochs->events->len > 1 ? epochs_get(epochs, epochs->events->len - 2)->put : epochs->done;
}

/* A batch that may be under way goes on to end at an event. */
static bool is_extendable(const struct epochs *epochs, const struct epoch_event *last)
{
	return epoch_event_is_barrier(last) && !last->moved &&
	       epochs->put - put_before_last(epochs) < BARRIER_DISTANCE &&
	       !(epochs->begun && epoch_place_equal(epochs->begun_place, last->place));
}

static struct epoch_event barrier(const struct epochs *epochs, struct epoch_place place, uint64_t now_ns)
{
	return (struct epoch_event){
		.place = place, .put = epochs->put, .oldest_ns = now_ns, .barriers = 1, .first = place.order};
}

void epochs_add_barrier(struct epochs *epochs, struct epoch_place place, uint64_t now_ns)
{
	struct epoch_event event = barrier(epochs, place, now_ns);
	struct epoch_event *last = NULL;

	if (epochs->events->len)
		last = &g_array_index(epochs->events, struct epoch_event, epochs->events->len - 1);
	if (last && is_extendable(epochs, last)) {
		event.barriers += last->barriers;
		event.first = last->first;
		*last = event;
		return;
	}
	g_array_append_val(epochs->events, event);
}

void epochs_note_moved(struct epochs *epochs)
{
	struct epoch_event *last = epochs_at(epochs, epochs->events->len - 1);

	last->moved = true;
	epochs_scatter(epochs, last->place.order);
}

void epochs_add_moved_barrier(struct epochs *epochs, struct epoch_place place, uint64_t now_ns)
{
	struct epoch_event event = barrier(epochs, place, now_ns);

	g_array_append_val(epochs->events, event);
	epochs_note_moved(epochs);
}

static int compare_events(const void *left, const void *right)
{
	const struct epoch_event *a = left, *b = right;

	return (a->place.order > b->place.order) - (a->place.order < b->place.order);
}

void epochs_sort(struct epochs *epochs)
{
	uint64_t first = UINT64_MAX;

	g_array_sort(epochs->events, compare_events); /* stable */
	for (unsigned i = epochs->events->len; i-- > 0;) {
		struct epoch_event *event = epochs_at(epochs, i);

		first = event->first = MIN(event->first, first);
		event->put = 0;
	}
	epochs->put = 0;
}

void epochs_count_block(struct epochs *epochs, uint64_t order)
{
	unsigned position = epochs_find(epochs, order);

	if (position < epochs->events->len)
		epochs_at(epochs, position)->put++;
	else
		epochs->put++;
}

/* Its record is in the log still. */
static bool is_twice(const struct epochs *epochs, const struct epoch_event *event)
{
	return event->moved && !epochs_get(epochs, epochs_find(epochs, event->place.order))->moved;
}

void epochs_end_count(struct epochs *epochs)
{
	uint64_t put = 0;

	for (unsigned i = 0; i < epochs->events->len; i++) {
		struct epoch_event *event = epochs_at(epochs, i);

		put += event->put + (epoch_event_is_barrier(event) || is_twice(epochs, event) ? 0 : 1);
		event->put = put;
	}
	epochs->put += put;
}

void epochs_scatter(struct epochs *epochs, uint64_t order)
{
	epochs->scattered = MAX(epochs->scattered, order);
}

static bool is_before(const void *epochs, unsigned position, uint64_t order)
{
	return epochs_get(epochs, position)->place.order < order;
}

unsigned epochs_find(const struct epochs *epochs, uint64_t order)
{
	return bisect(epochs, epochs->events->len, is_before, order);
}

bool epochs_is_one_epoch(const struct epochs *epochs, uint64_t older, uint64_t newer)
{
	unsigned found = epochs_find(epochs, older);

	for (unsigned i = found; i < epochs->events->len && i < found + EVENTS_LOOKED_AT; i++) {
		const struct epoch_event *event = epochs_get(epochs, i);

		if (event->first >= newer)
			return true;
		if (epoch_event_is_barrier(event) || event->place.order >= newer)
			return false;
	}
	return epochs->events->len <= found + EVENTS_LOOKED_AT;
}

void epochs_remove(struct epochs *epochs, unsigned count, uint64_t slots, struct epoch_place end, uint64_t put)
{
	uint64_t now_ns = 0;

	for (unsigned i = 0; i < count; i++) {
		const struct epoch_event *event = epochs_get(epochs, i);

		if (epoch_event_is_barrier(event))
			now_ns = event->oldest_ns;
		else
			epochs->zeros--;
	}
	if (count)
		g_array_remove_range(epochs->events, 0, count);
	epochs->dirty -= slots;
	epochs->done = put;
	epochs->first = end.slot;
	epochs->begun = false;
	if (epochs->scattered <= end.order)
		epochs->scattered = 0;
	if (now_ns)
		epochs->oldest_ns = now_ns;
	if (epochs_is_empty(epochs)) {
		epochs->any = false;
		epochs->scattered = 0;
		epochs->oldest_ns = 0;
	}
}
