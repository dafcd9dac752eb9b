/* Snapshots of running disks, forks, and the way back.
 *
 * Whatever takes a store's time is done while the guests run: the new leaves are made, opened and marked as
 * written, their shares and the other names of the images are there, before the gates close. Behind
 * them is what the disks' barriers take, and a rename for each. */
#include "pool/snapshot.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

#include "changers.h"
#include "children.h"
#include "core/error.h"
#include "core/fault.h"
#include "core/log.h"
#include "disk/change.h"
#include "disk/keeper.h"
#include "disk/saved.h"
#include "image/children.h"
#include "in_log.h"
#include "internal.h"
#include "layer/claim.h"
#include "layer/key.h"
#include "layer/seal.h"
#include "layer/share.h"
#include "refresh.h"
#include "removal.h"
#include "seal_names.h"
#include "succession.h"
#include "succession_failed.h"
#include "tags.h"
#include "target.h"

/* One of the disks. */
struct part {
	struct disk *disk;
	struct succession succession;
	char *sealed_path; /* absolute */
	char *path;	   /* of the new leaf */
	struct layer *leaf;
	GPtrArray *links;			      /* with it */
	struct chain_link *sealed;		      /* the old one, under its other name */
	struct target target;			      /* of a revert; */
	struct succession removal;		      /* and of what it has sealed */
	uint64_t size_bytes, generation, image_bytes; /* of the old one as the new one was made for it */
};

/* The disk is to stand on another snapshot, and what is sealed is deleted then. */
struct revert {
	const char *to; /* NULL: the newest */
	bool live;	/* although somebody has the disk open */
};

struct snapshot {
	struct disk_pool *pool;
	const char *tag;	     /* NULL: the first that is free of those made up for forks and reverts */
	const char *const *forks;    /* shown names of new disks on the first part; NULL: none */
	const struct revert *revert; /* NULL: what is sealed stays, and is what the disks stand on */
	struct part *parts;
	unsigned count;
	struct disk_change change;
	bool sealed; /* there is no way back */
};

/* ---- Ahead of the pause --------------------------------------------------------------- */

static void name_parts(const struct snapshot *snapshot, struct part *part)
{
	struct succession *succession = &part->succession;
	const char *from = pool_file_name(part->disk->leaf->link->path);
	g_autofree char *stem = pool_stem_of_file(from), *sealed = pool_sealed_name(from, snapshot->tag);
	bool leaf = part->disk->leaf->link->format == IMAGE_FORMAT_LEAF;

	succession->from = g_strdup(from);
	succession->sealed = g_strconcat(SEALED_DIRECTORY "/", sealed, NULL);
	succession->to = leaf ? g_strdup(from) : g_strconcat(stem, ".leaf", NULL);
	succession->staged = names_staged();
	image_make_uuid(succession->uuid);
	part->sealed_path = g_build_filename(disk_pool_path(snapshot->pool), succession->sealed, NULL);
	part->path = g_build_filename(disk_pool_path(snapshot->pool), succession->to, NULL);
}

/* Of the same size as the disk; not shown yet. */
static bool make_forks(struct snapshot *snapshot, struct part *part, const struct image_parent *parent, GError **error)
{
	struct image_create_options options = {
		.size_bytes = part->disk->size_bytes,
		.chunk_bytes = part->disk->leaf->image->chunk_bytes,
		.parent = parent,
	};

	for (guint i = 0; part->succession.forks && i < part->succession.forks->len; i++) {
		const struct succession_fork *fork = part->succession.forks->pdata[i];
		g_autofree char *staged = g_build_filename(disk_pool_path(snapshot->pool), fork->staged, NULL);

		options.uuid = fork->uuid;
		if (!image_create_in(pool_place(snapshot->pool)->fd, staged, IMAGE_FORMAT_LEAF, &options, error))
			return false;
	}
	return true;
}

/* The forks first: where the new leaf is whole after a crash, they are. */
static bool make_leaf(struct snapshot *snapshot, struct part *part, GError **error)
{
	const struct disk_pool *pool = snapshot->pool;
	const struct image *image = part->disk->leaf->image;
	g_autofree char *staged = g_build_filename(disk_pool_path(pool), part->succession.staged, NULL);
	struct image_parent parent = {
		.format = image->format,
		.path = part->succession.sealed,
		.size_bytes = image->size_bytes,
		.generation = image->generation,
	};
	struct image_create_options options = {
		.size_bytes = part->disk->size_bytes,
		.chunk_bytes = image->chunk_bytes,
		.parent = &parent,
		.uuid = part->succession.uuid,
	};

	memcpy(parent.uuid, image->uuid, IMAGE_UUID_BYTES);
	if (snapshot->revert) {
		options.parent = &part->target.parent;
		options.size_bytes = target_size_bytes(&part->target);
	}
	part->size_bytes = part->disk->size_bytes;
	part->generation = image->generation;
	part->image_bytes = image->size_bytes;
	return make_forks(snapshot, part, &parent, error) &&
	       image_create_in(pool_place(pool)->fd, staged, IMAGE_FORMAT_LEAF, &options, error);
}

static void link_chain(struct part *part, struct chain_link *link)
{
	const GPtrArray *target = part->target.links;
	g_autofree char *children = target ? NULL : image_children_of_one(part->succession.uuid, part->path);

	part->sealed = chain_link_moved(part->disk->leaf->link, part->sealed_path, part->disk->leaf->image, children);
	part->links = chain_links_new();
	g_ptr_array_add(part->links, link);
	if (!target)
		g_ptr_array_add(part->links, chain_link_ref(part->sealed));
	chain_links_add(part->links, target ? target : part->disk->links, target ? 0 : 1);
}

static bool open_leaf(const struct disk_pool *pool, struct part *part, GError **error)
{
	struct chain_link *link;
	struct stat st;
	int fd = place_find_at(pool_place(pool)->fd, part->succession.staged, &st);

	if (fd < 0)
		return error_set_errno(error, -fd, "%s: cannot be opened", part->path);
	link = chain_link_of_file(part->path, fd, IMAGE_FORMAT_LEAF, pool->roots, error);
	if (link) {
		link_chain(part, link);
		part->leaf = seal_new_leaf(part->disk->leaf, fd, link, part->succession.mark, error);
	}
	close(fd);
	return part->leaf;
}

static int at_step(const char *step, const struct part *part)
{
	return fault_hit(step, part->succession.from);
}

static bool fork_is_allowed(const struct snapshot *snapshot, const char *name, const char *stem, GError **error)
{
	for (const char *const *other = snapshot->forks; *other != name; other++)
		if (strcmp(*other, name) == 0)
			return error_set(error, EINVAL, "%s: is named twice", name);
	if (strlen(stem) + strlen(".leaf") > NAME_MAX)
		return error_set(error, ENAMETOOLONG, "%s: is longer than the name of an image can be", name);
	return pool_name_is_free(snapshot->pool, name, error);
}

static bool add_forks(struct snapshot *snapshot, struct part *part, GError **error)
{
	for (const char *const *name = snapshot->forks; name && *name; name++) {
		g_autofree char *stem = pool_stem_of(*name, error);

		if (!stem || !fork_is_allowed(snapshot, *name, stem, error))
			return false;
		succession_take_fork(&part->succession, g_strconcat(stem, ".leaf", NULL),
				     g_strdup_printf(".%08x-fork.leaf", g_random_int()));
	}
	return true;
}

/* What recovery knows it by: one without an identity of its own has another under its other name. */
static void note_identity(struct part *part)
{
	const struct layer *leaf = part->disk->leaf;
	struct chain_link *sealed = chain_link_moved(leaf->link, part->sealed_path, leaf->image, NULL);

	layer_identity_of(sealed, leaf->image, part->succession.identity);
	chain_link_unref(sealed);
}

static bool prepare(struct snapshot *snapshot, struct part *part, GError **error)
{
	struct disk_pool *pool = snapshot->pool;

	name_parts(snapshot, part);
	if (!add_forks(snapshot, part, error))
		return false;
	part->succession.parts = snapshot->count;
	if (snapshot->revert) {
		part->succession.reverts = true;
		note_identity(part);
	}
	part->succession.group = g_strdup(snapshot->parts[0].succession.staged);
	if (!seal_names_are_free(pool, part->disk, &part->succession, error) ||
	    !succession_write_mark(pool, &part->succession, error) ||
	    (snapshot->revert && !target_open(&part->target, part->disk, part->succession.uuid, part->path, error)) ||
	    !make_leaf(snapshot, part, error) || !open_leaf(pool, part, error))
		return false;
	if (at_step("snapshot.opened", part) < 0)
		return error_set(error, EIO, "%s: cannot be made", part->path);
	if (!claim_copy(part->disk->leaf, part->sealed_path, error) || !succession_link(pool, &part->succession, error))
		return false;
	return fsync(pool_place(pool)->fd) == 0 ||
	       error_set_errno(error, errno, "%s: cannot be flushed", disk_pool_path(pool));
}

static bool for_each(struct snapshot *snapshot,
		     bool (*step)(struct snapshot *snapshot, struct part *part, GError **error), GError **error)
{
	for (unsigned i = 0; i < snapshot->count; i++)
		if (!step(snapshot, &snapshot->parts[i], error))
			return false;
	return true;
}

/* ---- The pause ------------------------------------------------------------------------ */

/* Nothing that the new leaf was made for has changed meanwhile. */
static bool exchange(struct snapshot *snapshot, struct part *part, GError **error)
{
	const struct image *image = part->disk->leaf->image;

	if (part->disk->size_bytes != part->size_bytes || image->generation != part->generation ||
	    image->size_bytes != part->image_bytes)
		return error_set(error, EAGAIN, "%s: its size was changed meanwhile; try again", part->disk->name);
	if (!seal_has_its_name(snapshot->pool, part->disk, error))
		return false;
	if (part->succession.linked && succession_is_linked(snapshot->pool, &part->succession) != ANSWER_YES)
		return error_set(error, ESTALE, "%s: is not the image of %s any more", part->sealed_path,
				 part->disk->name);
	return succession_exchange(snapshot->pool, &part->succession, error);
}

/* Before the guests go on; what fails here is tried again after it. */
static void take_back_exchanged(struct snapshot *snapshot)
{
	for (unsigned i = snapshot->count; i-- > 0;)
		if (snapshot->parts[i].succession.exchanged)
			(void)succession_undo(snapshot->pool, &snapshot->parts[i].succession, NULL);
}

/* SEALED knows those that stand on it. */
static void note_forks(struct snapshot *snapshot, const struct part *part, struct layer *sealed)
{
	for (guint i = 0; part->succession.forks && i < part->succession.forks->len; i++) {
		const struct succession_fork *fork = part->succession.forks->pdata[i];
		g_autofree char *path = g_build_filename(disk_pool_path(snapshot->pool), fork->to, NULL);

		(void)seal_add_child(sealed, fork->uuid, path);
	}
}

static bool seal_all(struct snapshot *snapshot, GError **error)
{
	bool good;

	if (!disk_change_close(&snapshot->change, error))
		return false;
	good = for_each(snapshot, exchange, error);
	if (!good)
		take_back_exchanged(snapshot);
	for (unsigned i = 0; i < snapshot->count && good; i++) {
		struct part *part = &snapshot->parts[i];

		disk_change_leaf(&snapshot->change, i, g_steal_pointer(&part->leaf), g_steal_pointer(&part->links),
				 part->sealed, g_steal_pointer(&part->target.stack));
		note_forks(snapshot, part, snapshot->change.keepers[i]->leaf);
	}
	disk_change_open(&snapshot->change);
	snapshot->sealed = good;
	return good;
}

/* ---- After it ------------------------------------------------------------------------- */

/* What was sealed is durable, and known by its other name. False and ERROR: a crash may take it back, as long as
 * nothing else makes it durable. */
static bool settle(struct snapshot *snapshot, GError **error)
{
	int pool = succession_sync(snapshot->pool), cache = 0;

	for (unsigned i = 0; i < snapshot->count; i++) {
		const struct disk *keeper = snapshot->change.keepers[i];

		if (keeper->leaf->cached)
			cache_layer_rename(keeper->leaf->cached, keeper->leaf->link->path);
	}
	if (snapshot->pool->pool_cache)
		cache = cache_settle(snapshot->pool->pool_cache->cache);
	return (pool == 0 && cache == 0) ||
	       error_set_errno(
		       error, pool < 0 ? -pool : -cache,
		       "%s: it is made, and the disks run on it, but it cannot be flushed, so that a crash may take "
		       "it back",
		       pool < 0 ? disk_pool_path(snapshot->pool) : "cache");
}

static void look_at_names(struct snapshot *snapshot)
{
	g_autoptr(GPtrArray) names = g_ptr_array_new();
	struct scan_result *result;

	for (unsigned i = 0; i < snapshot->count; i++) {
		struct succession *succession = &snapshot->parts[i].succession;

		if (snapshot->sealed) {
			g_autoptr(GPtrArray) links = disk_get_links(snapshot->parts[i].disk);

			scan_note_replaced(snapshot->pool->known, succession->from, succession->to, links);
		}
		if (succession->from && !snapshot->sealed)
			g_ptr_array_add(names, succession->from);
		if (snapshot->sealed || g_strcmp0(succession->from, succession->to) != 0)
			g_ptr_array_add(names, succession->to);
		for (guint j = 0; succession->forks && j < succession->forks->len; j++)
			g_ptr_array_add(names, ((struct succession_fork *)succession->forks->pdata[j])->to);
	}
	g_ptr_array_add(names, NULL);
	result = pool_look_at_locked(snapshot->pool, (const char *const *)names->pdata);
	if (result)
		pool_show_locked(snapshot->pool, result);
}

/* Names for forks: the disk goes on whatever becomes of them. */
static bool show_forks(struct snapshot *snapshot, GError **error)
{
	bool good = true;

	for (unsigned i = 0; i < snapshot->count; i++)
		good = succession_show_forks(snapshot->pool, &snapshot->parts[i].succession, good ? error : NULL) &&
		       good;
	return good;
}

/* Before the mark of the new leaf, which says so too, may be removed. What fails is tried again in the end. */
static void begin_removal(struct snapshot *snapshot)
{
	struct part *part = &snapshot->parts[0];

	if (snapshot->revert)
		(void)removal_begin(snapshot->pool, part->succession.to, pool_file_name(part->succession.sealed),
				    part->succession.identity, &part->removal, NULL);
}

static bool seal(struct snapshot *snapshot, GError **error)
{
	bool good;

	if (!for_each(snapshot, prepare, error) || !seal_all(snapshot, error))
		return false;
	good = show_forks(snapshot, error);
	begin_removal(snapshot);
	good = settle(snapshot, good ? error : NULL) && good;
	look_at_names(snapshot);
	return good;
}

/* ---- On what does not change -------------------------------------------------------- */

/* The image below the disk's leaf, which has nothing, remembers its new children. */
static bool note_siblings(const struct snapshot *snapshot, const struct part *part, GError **error)
{
	struct layer *top = stack_layer(part->disk->stack, 0);

	for (guint i = 0; i < part->succession.forks->len; i++) {
		const struct succession_fork *fork = part->succession.forks->pdata[i];
		g_autofree char *path = g_build_filename(disk_pool_path(snapshot->pool), fork->to, NULL);

		if (!pool_add_child(top, top->link, fork->uuid, path, error))
			return false;
	}
	return true;
}

static bool begin_beside(struct snapshot *snapshot, struct part *part, GError **error)
{
	struct succession *succession = &part->succession;

	succession->beside = true;
	succession->from = g_strdup(pool_file_name(part->disk->leaf->link->path));
	succession->to = g_strdup(succession->from);
	succession->sealed = g_strconcat(SEALED_DIRECTORY "/", succession->from, NULL);
	succession->staged = names_staged();
	succession->group = g_strdup(succession->staged);
	succession->parts = 1;
	image_make_uuid(succession->uuid);
	return add_forks(snapshot, part, error) && succession_write_mark(snapshot->pool, succession, error);
}

/* What the disk shows now it shows for ever from there. */
static bool fork_beside(struct snapshot *snapshot, GError **error)
{
	struct part *part = &snapshot->parts[0];
	bool good = begin_beside(snapshot, part, error) &&
		    make_forks(snapshot, part, &part->disk->leaf->image->parent, error) &&
		    note_siblings(snapshot, part, error) && show_forks(snapshot, error);

	if (good && fsync(pool_place(snapshot->pool)->fd) < 0)
		good = error_set_errno(error, errno, "%s: cannot be flushed", disk_pool_path(snapshot->pool));
	if (good)
		succession_remove_mark(&part->succession);
	look_at_names(snapshot);
	return good;
}

static bool is_unchanged(struct disk *disk)
{
	return disk->stack && disk->leaf->image->parent.format != IMAGE_FORMAT_NONE &&
	       disk->size_bytes == stack_size_bytes(disk->stack) && disk_leaf_is_empty(disk);
}

/* ---- What fails ---------------------------------------------------------------------- */

static void close_new_leaf(struct part *part)
{
	if (!part->leaf)
		return;
	share_close(part->leaf, false);
	(void)layer_close_image(part->leaf);
	layer_unref(part->leaf);
	part->leaf = NULL;
}

/* What cannot be taken back now is kept. */
static void undo_locked(struct disk_pool *pool, struct part *part)
{
	g_autoptr(GError) error = NULL;

	lock_assert_mine(&pool->scanning);
	if (succession_undo(pool, &part->succession, &error))
		return;
	log_warning("%s: what was made for a snapshot of it that failed is not all removed yet: %s",
		    part->succession.from, error->message);
	pool_keep_failed_locked(pool, part->disk, &part->succession);
}

/* Of a revert: the leaf that was to stand there is gone. */
static void leave_target(struct disk_pool *pool, const struct part *part)
{
	if (part->target.stack && !part->succession.mark && part->succession.staged)
		pool_forget_child(pool, part->target.links->pdata[0], part->succession.uuid);
}

/* Before anybody else looks at the pool: what has the name of an image may be another one's. */
static void undo_all_locked(struct snapshot *snapshot)
{
	lock_assert_mine(&snapshot->pool->scanning);
	for (unsigned i = 0; i < snapshot->count; i++) {
		close_new_leaf(&snapshot->parts[i]);
		if (snapshot->parts[i].succession.mark)
			undo_locked(snapshot->pool, &snapshot->parts[i]);
		leave_target(snapshot->pool, &snapshot->parts[i]);
	}
}

/* Nothing of an earlier one that failed is left of these disks. */
static bool take_back_failed(struct snapshot *snapshot, GError **error)
{
	pool_take_back_failed_locked(snapshot->pool);
	for (unsigned i = 0; i < snapshot->count; i++)
		if (pool_has_failed_locked(snapshot->pool, snapshot->parts[i].disk))
			return error_set(error, EIO, "%s: an earlier snapshot that failed is not taken back yet",
					 snapshot->parts[i].disk->name);
	return true;
}

static bool may_go_back(const struct snapshot *snapshot, const struct part *part, GError **error)
{
	const struct disk *disk = part->disk;

	return disk->opens == disk->changers ||
	       disk_may_go_back(disk, snapshot->revert->live, target_size_bytes(&part->target), error);
}

/* LINKS are what a new leaf is to stand on. */
static bool takes_another(const GPtrArray *links, const char *name, GError **error)
{
	return links->len < CHAIN_DEPTH_MAX ||
	       error_set(error, EMLINK, "%s: its chain already has %u layers, which is the most that there can be",
			 name, links->len);
}

static bool check(struct snapshot *snapshot, struct part *part, GError **error)
{
	const char *name = part->disk->name;

	if (!seal_is_allowed(snapshot->pool, part->disk, error))
		return false;
	if (!snapshot->revert)
		return takes_another(part->disk->links, name, error);
	return target_find(snapshot->pool, part->disk, snapshot->revert->to, &part->target, error) &&
	       takes_another(part->target.links, name, error) && may_go_back(snapshot, part, error);
}

static bool make_locked(struct snapshot *snapshot, GError **error)
{
	g_autofree char *tag = NULL;

	lock_assert_mine(&snapshot->pool->scanning);
	if (!take_back_failed(snapshot, error) || !for_each(snapshot, check, error))
		return false;
	if (snapshot->forks && is_unchanged(snapshot->parts[0].disk))
		return fork_beside(snapshot, error);
	if (!snapshot->tag)
		snapshot->tag = tag = seal_free_tag(snapshot->pool, snapshot->parts[0].disk,
						    snapshot->revert ? "reverted" : "fork", error);
	return snapshot->tag && seal(snapshot, error);
}

static bool make(struct snapshot *snapshot, GError **error)
{
	bool good;

	LOCK_GUARD(&snapshot->pool->scanning);
	good = make_locked(snapshot, error);
	if (!good && !snapshot->sealed)
		undo_all_locked(snapshot);
	return good;
}

static void clear(struct snapshot *snapshot)
{
	for (unsigned i = 0; snapshot->parts && i < snapshot->count; i++) {
		struct part *part = &snapshot->parts[i];

		if (part->links)
			g_ptr_array_unref(part->links);
		chain_link_unref(part->sealed);
		target_clear(&part->target);
		succession_clear(&part->succession);
		succession_clear(&part->removal);
		g_free(part->sealed_path);
		g_free(part->path);
	}
	g_free(snapshot->parts);
	g_free(snapshot->change.disks);
}

/* What a revert has sealed was wanted for its making only. */
static bool drop_sealed(struct snapshot *snapshot, GError **error)
{
	struct part *part = &snapshot->parts[0];
	const char *name = pool_file_name(part->succession.sealed);
	g_autoptr(GError) inner = NULL;

	LOCK_GUARD(&snapshot->pool->scanning);
	return removal_run_locked(snapshot->pool, part->succession.to, name, &part->removal, snapshot->change.go_on,
				  snapshot->change.opaque, &inner) ||
	       error_to_errno(inner) == -ENOENT ||
	       error_set_errno(error, -error_to_errno(inner),
			       "%s: is reverted, but what it was is not removed, see leafctl snapshots: %s",
			       part->disk->name, inner->message);
}

static bool run(struct snapshot *snapshot, const char *const *names, bool (*go_on)(void *opaque), void *opaque,
		GError **error)
{
	struct disk_change *change = &snapshot->change;
	bool good, begun;

	snapshot->count = g_strv_length((char **)names);
	*change = (struct disk_change){.disks = g_new0(struct disk *, snapshot->count),
				       .count = snapshot->count,
				       .go_on = go_on,
				       .opaque = opaque};
	if (!pool_open_to_change(snapshot->pool, names, change->disks, error)) {
		clear(snapshot);
		return false;
	}
	snapshot->parts = g_new0(struct part, snapshot->count);
	for (unsigned i = 0; i < snapshot->count; i++)
		snapshot->parts[i].disk = change->disks[i];
	begun = disk_change_begin(change, error);
	good = begun && make(snapshot, error);
	if (begun)
		disk_change_end(change);
	if (snapshot->revert && snapshot->sealed)
		good = drop_sealed(snapshot, good ? error : NULL) && good;
	pool_close_changed(change->disks, snapshot->count);
	clear(snapshot);
	return good;
}

bool disk_pool_snapshot(struct disk_pool *pool, const char *const *names, const char *tag, bool (*go_on)(void *opaque),
			void *opaque, GError **error)
{
	struct snapshot snapshot = {.pool = pool, .tag = tag};
	bool in_log;

	if (!seal_tag_is_allowed(tag, error) || !pool_are_in_log(pool, names, &in_log, error))
		return false;
	return in_log ? pool_save(pool, names, tag, go_on, opaque, error) : run(&snapshot, names, go_on, opaque, error);
}

bool disk_pool_fork(struct disk_pool *pool, const char *name, const char *const *forks, bool (*go_on)(void *opaque),
		    void *opaque, GError **error)
{
	struct snapshot snapshot = {.pool = pool, .forks = forks};
	const char *const names[] = {name, NULL};
	bool in_log;

	if (!pool_are_in_log(pool, names, &in_log, error))
		return false;
	return in_log ? pool_fork_in_log(pool, name, forks, go_on, opaque, error)
		      : run(&snapshot, names, go_on, opaque, error);
}

bool disk_pool_revert(struct disk_pool *pool, const char *name, const char *tag, bool live, bool *reverted,
		      bool (*go_on)(void *opaque), void *opaque, GError **error)
{
	struct revert revert = {.to = tag, .live = live};
	struct snapshot snapshot = {.pool = pool, .revert = &revert};
	const char *const names[] = {name, NULL};
	struct disk *disk = disk_pool_find(pool, name);
	bool good;

	if (disk && disk->mode == DISK_MODE_EPHEMERAL)
		good = disk_go_back(disk, tag, live, go_on, opaque, error);
	else
		good = run(&snapshot, names, go_on, opaque, error);
	*reverted = good || snapshot.sealed;
	disk_unref(disk);
	return good;
}
