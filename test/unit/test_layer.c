/* Layers: each invariant of layer/layer.h is broken, one at a time, and the check of the
 * tests' build sees which; states follow each other as the table says, and not otherwise;
 * those below a leaf are opened once. */
#include "layer/layer.h"

#include <fcntl.h>
#include <glib/gstdio.h>
#include <string.h>
#include <unistd.h>

#include "image/format.h"
#include "layer/backlog_locked.h"
#include "layer/pool_cache.h"
#include "layer/share.h"

#ifdef LEAFDISK_FAULTS

struct rig {
	char *directory;
	char *path;
	struct chain_roots *roots;
	GPtrArray *links;
	struct pool_cache pool_cache;
};

static void rig_init(struct rig *rig)
{
	struct image_create_options create = {.size_bytes = 1 << 20};
	struct cache_options options = {.size_bytes = 64 << 20};
	g_autofree char *cache = NULL;
	GError *error = NULL;

	*rig = (struct rig){.directory = g_dir_make_tmp("leafdisk-layer-XXXXXX", NULL)};
	rig->path = g_build_filename(rig->directory, "a.leaf", NULL);
	cache = g_build_filename(rig->directory, "cache", NULL);
	rig->roots = chain_roots_new(rig->directory, NULL, &error);
	g_assert_no_error(error);
	g_assert_true(image_create(rig->path, IMAGE_FORMAT_LEAF, &create, &error));
	rig->links = chain_links_new();
	g_assert_true(chain_resolve(rig->path, IMAGE_FORMAT_LEAF, rig->roots, NULL, rig->links, &error));
	options.path = cache;
	options.pool_path = rig->directory;
	rig->pool_cache.cache = cache_open(&options, &error);
	g_assert_no_error(error);
	g_assert_true(cache_start(rig->pool_cache.cache, &error));
	fetches_init(&rig->pool_cache.fetches);
	backlogs_init(&rig->pool_cache.backlogs);
}

static void rig_clear(struct rig *rig)
{
	g_autofree char *cache = g_build_filename(rig->directory, "cache", NULL);

	backlogs_clear(&rig->pool_cache.backlogs);
	fetches_clear(&rig->pool_cache.fetches);
	g_assert_cmpint(cache_close(rig->pool_cache.cache), ==, 0);
	g_ptr_array_unref(rig->links);
	chain_roots_unref(rig->roots);
	unlink(cache);
	unlink(rig->path);
	rmdir(rig->directory);
	g_free(rig->path);
	g_free(rig->directory);
}

/* A leaf whose share is dirty, on the list. */
static struct layer *new_dirty(struct rig *rig)
{
	struct layer *layer = layer_new("a.img", &rig->pool_cache, rig->roots);
	const struct owner_last none = {0};
	struct owner_claim claim = {.generation = 1};
	GError *error = NULL;

	layer_set_link(layer, rig->links->pdata[0]);
	g_assert_true(layer_open_image(layer, IMAGE_WRITABLE, &error));
	g_assert_true(share_open_dirty(layer, &none, &claim, &error));
	layer->claim = claim;
	backlog_attach(layer);
	g_assert_cmpstr(layer_find_breach(layer), ==, NULL);
	return layer;
}

static void free_dirty(struct layer *layer)
{
	(void)backlog_detach(layer);
	share_close(layer, false);
	layer_unref(layer);
}

static void assert_broken(struct layer *layer, const char *number)
{
	const char *breach = layer_find_breach(layer);

	g_assert_nonnull(breach);
	g_assert_cmpint(breach[0], ==, number[0]);
}

/* Broken by NEW in PLACE, and whole again with what was there. */
#define ASSERT_BREAKS(layer, number, place, new)                                                                       \
	do {                                                                                                           \
		__auto_type was = (place);                                                                             \
                                                                                                                       \
		(place) = (new);                                                                                       \
		assert_broken(layer, number);                                                                          \
		(place) = was;                                                                                         \
		g_assert_cmpstr(layer_find_breach(layer), ==, NULL);                                                   \
	} while (0)

static void test_breaches_are_seen(void)
{
	struct rig rig;
	struct layer *layer;
	struct backlog *backlog;

	rig_init(&rig);
	layer = new_dirty(&rig);
	backlog = &layer->backlog;
	ASSERT_BREAKS(layer, "1", layer->share, SHARE_NONE);
	ASSERT_BREAKS(layer, "1", layer->cached, NULL);
	ASSERT_BREAKS(layer, "2", layer->share, SHARE_PINNED);
	ASSERT_BREAKS(layer, "2", layer->image, NULL);
	ASSERT_BREAKS(layer, "5", layer->share, SHARE_MIRRORED);
	ASSERT_BREAKS(layer, "5", backlog->state, LAYER_CLEAN);
	ASSERT_BREAKS(layer, "5", backlog->state, LAYER_AWAY);
	ASSERT_BREAKS(layer, "6", backlog->state, LAYER_RETRYING);
	ASSERT_BREAKS(layer, "6", backlog->failures, 1);
	ASSERT_BREAKS(layer, "7", backlog->state, LAYER_LOST);
	ASSERT_BREAKS(layer, "7", backlog->state, LAYER_FAILED);
	list_remove(&backlog->link);
	assert_broken(layer, "4");
	list_append(&rig.pool_cache.backlogs.layers, &backlog->link);
	lock_take(&rig.pool_cache.backlogs.lock);
	backlog_set_reason_locked(backlog, "for a test");
	lock_let_go(&rig.pool_cache.backlogs.lock);
	backlog->state = LAYER_FAILED;
	ASSERT_BREAKS(layer, "8", backlog->work, BACKLOG_MOVING);
	free_dirty(layer);
	layer = layer_new("a.img", &rig.pool_cache, rig.roots);
	g_assert_cmpstr(layer_find_breach(layer), ==, NULL);
	ASSERT_BREAKS(layer, "3", layer->claim.generation, 1);
	layer_unref(layer);
	rig_clear(&rig);
}

static void test_a_breach_ends_it(void)
{
	if (g_test_subprocess()) {
		struct rig rig;
		struct layer *layer;

		rig_init(&rig);
		layer = new_dirty(&rig);
		layer->backlog.failures = 1;
		layer_check(layer);
		return;
	}
	g_test_trap_subprocess(NULL, 0, 0);
	g_test_trap_assert_failed();
	g_test_trap_assert_stderr("*invariant 6*");
}

static const bool follows[6][6] = {
	/* to          CLEAN  DIRTY  RETRY  AWAY   LOST   FAILED */
	[LAYER_CLEAN] = {true, true, false, true, false, false},
	[LAYER_DIRTY] = {true, true, true, true, true, true},
	[LAYER_RETRYING] = {true, true, true, true, true, true},
	[LAYER_AWAY] = {true, true, true, true, false, false},
	[LAYER_LOST] = {false, true, false, true, true, false},
	[LAYER_FAILED] = {false, true, false, true, false, true},
};

/* Of a layer that is nothing else. */
static void step(enum layer_state from, enum layer_state to)
{
	struct pool_cache pool_cache = {0};
	struct layer layer = {.pool_cache = &pool_cache, .backlog.state = from};

	backlogs_init(&pool_cache.backlogs);
	lock_take(&pool_cache.backlogs.lock);
	backlog_set_state_locked(&layer.backlog, to);
	lock_let_go(&pool_cache.backlogs.lock);
	g_assert_cmpint(layer.backlog.state, ==, to);
	backlogs_clear(&pool_cache.backlogs);
}

static void test_states_that_follow(void)
{
	for (enum layer_state from = LAYER_CLEAN; from <= LAYER_FAILED; from++)
		for (enum layer_state to = LAYER_CLEAN; to <= LAYER_FAILED; to++)
			if (follows[from][to])
				step(from, to);
}

/* One subprocess each: the first wrong step ends it. */
static void test_state_that_does_not_follow(const void *data)
{
	unsigned pair = GPOINTER_TO_UINT(data);

	if (g_test_subprocess()) {
		step(pair / 6, pair % 6);
		return;
	}
	g_test_trap_subprocess(NULL, 0, 0);
	g_test_trap_assert_failed();
	g_test_trap_assert_stderr("*may_follow*");
}

static void test_below_a_leaf_is_opened_once(void)
{
	struct layer *first, *second, *plain;
	GError *error = NULL;
	struct rig rig;

	rig_init(&rig);
	first = layer_get(rig.links->pdata[0], &rig.pool_cache, true, &error);
	g_assert_no_error(error);
	second = layer_get(rig.links->pdata[0], &rig.pool_cache, true, &error);
	g_assert_true(first == second);
	g_assert_cmpint(first->share, ==, SHARE_CLEAN);
	plain = layer_get(rig.links->pdata[0], &rig.pool_cache, false, &error);
	g_assert_true(plain != first);
	g_assert_cmpint(plain->share, ==, SHARE_NONE);
	layer_put(plain);
	layer_put(first);
	g_assert_nonnull(second->image);
	layer_put(second);
	rig_clear(&rig);
}

static void test_what_cannot_be_opened_leaves_nothing(void)
{
	GError *error = NULL;
	struct layer *layer;
	struct rig rig;

	rig_init(&rig);
	g_assert_cmpint(g_chmod(rig.path, 0600), ==, 0);
	g_assert_cmpint(truncate(rig.path, 0), ==, 0);
	g_assert_null(layer_get(rig.links->pdata[0], &rig.pool_cache, true, &error));
	g_assert_nonnull(error);
	g_clear_error(&error);
	g_assert_null(layer_get(rig.links->pdata[0], &rig.pool_cache, true, &error));
	g_clear_error(&error);
	layer = layer_new("a.img", &rig.pool_cache, rig.roots);
	layer_unref(layer);
	rig_clear(&rig);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/layer/breaches", test_breaches_are_seen);
	g_test_add_func("/layer/a-breach-ends-it", test_a_breach_ends_it);
	g_test_add_func("/layer/states-that-follow", test_states_that_follow);
	for (unsigned pair = 0; pair < 36; pair++)
		if (!follows[pair / 6][pair % 6]) {
			g_autofree char *path = g_strdup_printf("/layer/does-not-follow/%u-%u", pair / 6, pair % 6);

			g_test_add_data_func(path, GUINT_TO_POINTER(pair), test_state_that_does_not_follow);
		}
	g_test_add_func("/layer/opened-once", test_below_a_leaf_is_opened_once);
	g_test_add_func("/layer/cannot-be-opened", test_what_cannot_be_opened_leaves_nothing);
	return g_test_run();
}

#else

int main(void)
{
	return 0;
}

#endif
