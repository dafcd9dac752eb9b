/* Snapshots and forks of ephemeral disks. */
#include "disk/saved.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include "core/error.h"
#include "core/loop.h"
#include "core/thread.h"
#include "core/time.h"
#include "disk/change.h"
#include "disk/route.h"
#include "layer/chain.h"
#include "layer/share.h"

#define END_PATIENCE_NS NS_PER_S

/* ---- What is saved ----------------------------------------------------------------- */

static void free_saved(void *data)
{
	struct disk_saved *saved = data;

	logs_unref(saved->logs);
	g_free(saved->tag);
	g_free(saved);
}

static struct disk_saved *copy_of(const struct disk_saved *saved)
{
	struct disk_saved *copy = g_memdup2(saved, sizeof(*saved));

	copy->tag = g_strdup(saved->tag);
	copy->logs = logs_ref(saved->logs);
	return copy;
}

static struct disk_saved *find_locked(struct disk *disk, const char *tag)
{
	lock_assert_mine(&disk->lock);
	for (guint i = 0; disk->saved && i < disk->saved->len; i++) {
		struct disk_saved *saved = disk->saved->pdata[i];

		if (strcmp(saved->tag, tag) == 0)
			return saved;
	}
	return NULL;
}

static bool is_saved(struct disk *disk, const char *tag)
{
	LOCK_GUARD(&disk->lock);
	return find_locked(disk, tag);
}

/* A copy, or NULL with ERROR. */
static struct disk_saved *find(struct disk *disk, const char *tag, GError **error)
{
	struct disk_saved *saved;

	lock_take(&disk->lock);
	saved = find_locked(disk, tag);
	if (saved)
		saved = copy_of(saved);
	lock_let_go(&disk->lock);
	if (!saved)
		error_set(error, ENOENT, "%s: has no snapshot %s that was made of it in this mount", disk->name, tag);
	return saved;
}

static void save_as(struct disk *disk, const char *tag)
{
	struct disk_saved *saved = g_new0(struct disk_saved, 1);
	uint64_t zeros;

	saved->tag = g_strdup(tag);
	saved->logs = logs_ref(disk->logs);
	saved->size_bytes = disk->size_bytes;
	saved->made_on = disk->made_on;
	saved->taken_s = time(NULL);
	if (saved->logs)
		cache_layer_get_pinned(logs_top(saved->logs)->cached, &saved->blocks, &zeros);
	LOCK_GUARD(&disk->lock);
	if (!disk->saved)
		disk->saved = g_ptr_array_new_with_free_func(free_saved);
	g_ptr_array_add(disk->saved, saved);
}

GPtrArray *disk_get_saved(struct disk *disk)
{
	GPtrArray *list = g_ptr_array_new_with_free_func(free_saved);

	LOCK_GUARD(&disk->lock);
	for (guint i = disk->saved ? disk->saved->len : 0; i-- > 0;) {
		struct disk_saved *saved = copy_of(disk->saved->pdata[i]);

		saved->below = logs_have(disk->logs, saved->logs);
		g_ptr_array_add(list, saved);
	}
	return list;
}

bool disk_has_own(struct disk *disk)
{
	LOCK_GUARD(&disk->lock);
	return disk->stays || (disk->saved && disk->saved->len > 0);
}

/* ---- To seal ------------------------------------------------------------------------ */

static bool may_be_saved(struct disk *disk, const char *tag, GError **error)
{
	if (disk->route != &route_ephemeral)
		return error_set(error, EAGAIN, "%s: has another mode now", disk->name);
	if (tag && is_saved(disk, tag))
		return error_set(error, EEXIST, "%s: has a snapshot %s; name it otherwise", disk->name, tag);
	return true;
}

static struct layer *new_log_layer(struct disk *disk, GError **error)
{
	struct layer *layer = disk_new_leaf(disk, disk->links->pdata[0]);

	if (!disk->open || share_open_pinned(layer, error))
		return layer;
	layer_unref(layer);
	return NULL;
}

/* It can be shared as it is. */
static bool has_nothing(const struct disk *disk)
{
	uint64_t blocks, zeros;

	cache_layer_get_pinned(disk->leaf->cached, &blocks, &zeros);
	return blocks + zeros == 0 && !disk->leaf->overflow;
}

/* Behind the gate: so long nothing comes. */
static bool has_room(const struct disk_change *change, GError **error)
{
	for (unsigned i = 0; i < change->count; i++) {
		const struct disk *disk = change->disks[i];
		unsigned layers = disk->links->len + logs_depth(disk->logs) + 1;

		if (layers >= CHAIN_DEPTH_MAX && !has_nothing(disk))
			return error_set(error, EMLINK,
					 "%s: its chain already has %u layers, which is the most that there can be",
					 disk->name, layers);
	}
	return true;
}

static void set_logs(struct disk *disk, struct logs *logs)
{
	LOCK_GUARD(&disk->lock);
	disk->logs = logs;
}

/* LAYER is taken over. */
static void seal(struct disk_change *change, unsigned index, struct layer *layer)
{
	struct disk *disk = change->disks[index];
	uint64_t size_bytes = disk->size_bytes;

	if (has_nothing(disk)) {
		layer_unref(layer);
		return;
	}
	set_logs(disk, logs_seal(disk->leaf, size_bytes, disk->logs));
	disk_change_log(change, index, layer, stack_on(layer_use(disk->leaf), disk->stack), size_bytes);
}

/* One for each disk: an array, the layers' references the array's. NULL and ERROR. */
static GPtrArray *prepare(const struct disk_change *change, const char *tag, GError **error)
{
	g_autoptr(GPtrArray) layers = g_ptr_array_new_with_free_func((GDestroyNotify)layer_unref);

	for (unsigned i = 0; i < change->count; i++) {
		struct layer *layer =
			may_be_saved(change->disks[i], tag, error) ? new_log_layer(change->disks[i], error) : NULL;

		if (!layer)
			return NULL;
		g_ptr_array_add(layers, layer);
	}
	return g_steal_pointer(&layers);
}

static void take_after(struct disk *fork, const struct disk *disk)
{
	fork->logs = logs_ref(disk->logs);
	fork->size_bytes = disk->size_bytes;
	fork->made_on = disk->made_on;
	fork->given = true;
	fork->stays = true;
}

/* For whom disks are sealed. */
struct heirs {
	const char *tag;	   /* NULL: no snapshot */
	struct disk *const *forks; /* of the first disk */
	unsigned count;
};

static bool seal_all(struct disk_change *change, const struct heirs *heirs, GError **error)
{
	g_autoptr(GPtrArray) layers = prepare(change, heirs->tag, error);

	if (!layers || !disk_change_close(change, error))
		return false;
	if (!has_room(change, error)) {
		disk_change_open(change);
		return false;
	}
	for (unsigned i = 0; i < change->count; i++) {
		seal(change, i, layer_ref(layers->pdata[i]));
		if (heirs->tag)
			save_as(change->disks[i], heirs->tag);
	}
	for (unsigned i = 0; i < heirs->count; i++)
		take_after(heirs->forks[i], change->disks[0]);
	disk_change_open(change);
	return true;
}

static bool save(struct disk_change *change, const struct heirs *heirs, GError **error)
{
	bool good;

	thread_assert_may_wait();
	if (!disk_change_begin(change, error))
		return false;
	good = seal_all(change, heirs, error);
	disk_change_end(change);
	return good;
}

bool disk_save(struct disk **disks, unsigned count, const char *tag, bool (*go_on)(void *opaque), void *opaque,
	       GError **error)
{
	struct disk_change change = {.disks = disks, .count = count, .go_on = go_on, .opaque = opaque};

	return save(&change, &(struct heirs){.tag = tag}, error);
}

bool disk_fork(struct disk *disk, struct disk *const *forks, unsigned count, bool (*go_on)(void *opaque), void *opaque,
	       GError **error)
{
	struct disk_change change = {.disks = &disk, .count = 1, .go_on = go_on, .opaque = opaque};

	return save(&change, &(struct heirs){.forks = forks, .count = count}, error);
}

/* ---- To go back ---------------------------------------------------------------------- */

/* Where a disk is to be. */
struct goal {
	const struct disk_saved *saved; /* NULL: its image alone */
	bool live;
	struct layer *layer;
	struct stack *stack; /* of a disk that is open */
	uint64_t size_bytes;
};

static bool is_of_its_images(const struct disk *disk, const struct disk_saved *saved, GError **error)
{
	return !disk->open || !saved || saved->made_on == disk->made_on ||
	       error_set(error, ESTALE, "%s: %s was made on another image than it has now", disk->name, saved->tag);
}

/* Of a disk that is open those that it has, whatever its store does now. */
static void take_images(struct disk *disk, struct goal *goal)
{
	const struct chain_link *link = disk->links->pdata[0];

	if (disk->open)
		goal->stack = stack_use(stack_under(disk->stack, logs_depth(disk->logs)));
	goal->size_bytes = disk->open ? stack_size_bytes(goal->stack)
				      : link->info.size_bytes - MIN(link->info.size_bytes, link->base_offset);
}

static bool prepare_goal(struct disk *disk, struct goal *goal, GError **error)
{
	if (disk->mode != DISK_MODE_EPHEMERAL)
		return error_set(error, EAGAIN, "%s: has another mode now", disk->name);
	if (!is_of_its_images(disk, goal->saved, error))
		return false;
	take_images(disk, goal);
	if (goal->saved) {
		goal->size_bytes = goal->saved->size_bytes;
		goal->stack = disk->open ? logs_stack(goal->saved->logs, goal->stack) : NULL;
	}
	if (disk_open_count(disk) > 0 && !disk_may_go_back(disk, goal->live, goal->size_bytes, error))
		return false;
	goal->layer = new_log_layer(disk, error);
	return goal->layer;
}

/* What DISK had goes, where nobody else has it. */
static void put_there(struct disk_change *change, struct goal *goal)
{
	struct disk *disk = change->disks[0];
	const struct disk_saved *saved = goal->saved;
	struct stack *stack = disk->stack;
	struct logs *logs = disk->logs;

	disk_change_log(change, 0, g_steal_pointer(&goal->layer), g_steal_pointer(&goal->stack), goal->size_bytes);
	set_logs(disk, saved ? logs_ref(saved->logs) : NULL);
	disk->given = saved || disk->opens > 0;
	disk->stays = saved || disk->open;
	if (saved)
		disk->made_on = saved->made_on;
	disk_change_open(change);
	stack_put(stack);
	logs_unref(logs);
}

static bool go_to(struct disk_change *change, struct goal *goal, GError **error)
{
	bool good = prepare_goal(change->disks[0], goal, error) && disk_change_close(change, error);

	if (good)
		put_there(change, goal);
	stack_put(goal->stack);
	if (goal->layer)
		layer_unref(goal->layer);
	return good;
}

bool disk_go_back(struct disk *disk, const char *tag, bool live, bool (*go_on)(void *opaque), void *opaque,
		  GError **error)
{
	struct disk_change change = {
		.disks = &disk, .count = 1, .may_be_closed = true, .go_on = go_on, .opaque = opaque};
	struct disk_saved *saved = tag ? find(disk, tag, error) : NULL;
	struct goal goal = {.saved = saved, .live = live};
	bool good = false;

	thread_assert_may_wait();
	if (tag && !saved)
		return false;
	if (disk_change_begin(&change, error)) {
		good = go_to(&change, &goal, error);
		disk_change_end(&change);
	}
	if (saved)
		free_saved(saved);
	return good;
}

bool disk_forget_saved(struct disk *disk, const char *tag, GError **error)
{
	struct disk_saved *saved;
	guint index;

	thread_assert_may_wait();
	lock_take(&disk->lock);
	saved = find_locked(disk, tag);
	if (saved && g_ptr_array_find(disk->saved, saved, &index))
		(void)g_ptr_array_steal_index(disk->saved, index);
	lock_let_go(&disk->lock);
	if (!saved)
		return error_set(error, ENOENT, "%s: has no snapshot %s that was made of it in this mount", disk->name,
				 tag);
	free_saved(saved);
	return true;
}

/* ---- A fork goes ----------------------------------------------------------------------- */

/* Who looks at it has its lock for a moment. */
struct patience {
	uint64_t until_ns;
	bool (*go_on)(void *opaque);
	void *opaque;
};

static bool is_patient(void *opaque)
{
	const struct patience *patience = opaque;

	return loop_now_ns() < patience->until_ns && (!patience->go_on || patience->go_on(patience->opaque));
}

static bool may_end(struct disk *fork, GError **error)
{
	if (fork->ended)
		return error_set(error, ENOENT, "%s: is removed already", fork->name);
	return fork->opens == 0 || error_set(error, EBUSY, "%s: is open", fork->name);
}

static GPtrArray *take_saved(struct disk *disk)
{
	LOCK_GUARD(&disk->lock);
	return g_steal_pointer(&disk->saved);
}

static bool end_fork(struct disk_change *change, GError **error)
{
	struct disk *fork = change->disks[0];
	struct goal goal = {0};

	if (!may_end(fork, error) || !go_to(change, &goal, error))
		return false;
	fork->ended = true;
	return true;
}

bool disk_end_fork(struct disk *fork, bool (*go_on)(void *opaque), void *opaque, GError **error)
{
	struct patience patience = {loop_now_ns() + END_PATIENCE_NS, go_on, opaque};
	struct disk_change change = {
		.disks = &fork, .count = 1, .may_be_closed = true, .go_on = is_patient, .opaque = &patience};
	g_autoptr(GPtrArray) saved = NULL;
	bool good;

	thread_assert_may_wait();
	if (!disk_change_begin(&change, NULL))
		return error_set(error, EBUSY, "%s: is being opened, closed or changed; try again", fork->name);
	good = end_fork(&change, error);
	if (good)
		saved = take_saved(fork);
	disk_change_end(&change);
	return good;
}
