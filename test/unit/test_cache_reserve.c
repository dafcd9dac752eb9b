/* What a mount must write to go on, in a log that is full: however many layers are dirty,
 * and however often they are opened, none of it waits for room that only they can make;
 * and wherever in that the process dies, nothing is lost and nothing older comes back. */
#include <string.h>
#include <unistd.h>

#include "cache_disk.h"

#define LAYERS 900
#define LAYER_BLOCKS 8
#define LOG_BYTES (SMALL + (4u << 20))

/* Many images: what the pool says of each and has of it, and what was put; shared with
 * children that die. */
struct many {
	unsigned first; /* identity */
	uint64_t version;
	uint64_t owned[LAYERS];
	uint64_t put[LAYERS][LAYER_BLOCKS]; /* versions */
	uint64_t sure[LAYERS][LAYER_BLOCKS];
	uint64_t image[LAYERS][LAYER_BLOCKS];
	struct cache *cache;
	struct cache_layer *layers[LAYERS];
};

static struct many *many_new(unsigned first)
{
	struct many *many = shared_memory(sizeof(*many));

	many->first = first;
	return many;
}

static void many_free(struct many *many)
{
	munmap(many, sizeof(*many));
}

/* ---- Opening --------------------------------------------------------------- */

static int try_open_one(struct many *many, unsigned number, bool goes_on)
{
	g_autofree char *name = g_strdup_printf("%u", number);
	struct cache_layer_key key = {
		.stamp = 77, .size_bytes = 1 << 20, .name = name, .owned = many->owned[number], .goes_on = goes_on};
	uint64_t generation = many->owned[number] + 1;
	unsigned identity = many->first + number;
	int result = 0;

	memcpy(key.identity, &identity, sizeof(identity));
	many->layers[number] = cache_layer_open_dirty(many->cache, &key, &generation, NULL, &result);
	if (!many->layers[number])
		return result;
	many->owned[number] = generation;
	return 0;
}

static void open_all(struct many *many, bool goes_on)
{
	for (unsigned i = 0; i < LAYERS; i++)
		g_assert_cmpint(try_open_one(many, i, goes_on), ==, 0);
}

static void close_all(struct many *many)
{
	for (unsigned i = 0; i < LAYERS; i++) {
		cache_layer_close(many->layers[i], 0);
		many->layers[i] = NULL;
	}
}

static void mount_again(struct many *many, const char *path)
{
	close_all(many);
	g_assert_cmpint(cache_close(many->cache), ==, 0);
	assert_sound(path);
	many->cache = open_cache(path, 0);
}

/* ---- Filling and emptying -------------------------------------------------- */

/* Each has a block in turn, and so an epoch of its own of it, until the log takes no more. */
static void fill_log(struct many *many, uint64_t version)
{
	g_autofree uint8_t *data = g_malloc(BLOCK_SIZE);
	unsigned i = 0;

	do {
		for (;; i++) {
			unsigned number = i % LAYERS, block = i / LAYERS % LAYER_BLOCKS;

			fill(data, number, block, version);
			many->put[number][block] = version;
			if (cache_put(many->layers[number], block, 1, data, true) != 1) {
				many->put[number][block] = many->sure[number][block];
				break;
			}
			cache_end_epoch(many->layers[number]);
		}
	} while (!is_full(many->cache));
	g_assert_cmpint(cache_sync(many->cache), ==, 0);
	memcpy(many->sure, many->put, sizeof(many->put));
}

/* The same with larger epochs, of the first COUNT, until they have all that they may. */
static void fill_by_epochs(struct many *many, unsigned count, unsigned epoch_blocks)
{
	g_autofree uint8_t *data = g_malloc0(epoch_blocks * BLOCK_SIZE);
	struct cache_status status;
	unsigned i = 0, before;

	do {
		before = i;
		while (cache_put(many->layers[i % count], LAYER_BLOCKS + i / count * epoch_blocks, epoch_blocks, data,
				 true) == epoch_blocks)
			cache_end_epoch(many->layers[i++ % count]);
		await_settled(many->cache, &status);
	} while (i > before);
}

/* What is left is for what makes room. */
static void use_up_room(struct many *many)
{
	while (cache_forget(many->layers[0], UINT64_C(1) << 30, 1) == 0)
		g_assert_cmpint(cache_sync(many->cache), ==, 0);
}

static void begin_full(struct many *many, const char *path, uint64_t bytes)
{
	many->cache = open_cache(path, bytes);
	open_all(many, false);
	fill_log(many, 1);
}

static void apply(struct many *many, unsigned number, const struct cache_batch *batch)
{
	for (unsigned i = 0; i < batch->extent_count; i++)
		for (uint64_t j = 0; j < batch->extents[i].blocks; j++) {
			const uint8_t *data = batch->extents[i].data + j * BLOCK_SIZE;

			if (batch->extents[i].block + j >= LAYER_BLOCKS)
				continue;
			g_assert_true(is_filled(data, number, batch->extents[i].block + j, version_of(data)));
			many->image[number][batch->extents[i].block + j] = version_of(data);
		}
}

static unsigned migrate_each(struct many *many)
{
	struct cache_batch_limits limits = {.data_blocks = 4096, .extents = 4096, .cut = true};
	unsigned batches = 0;

	for (unsigned i = LAYERS; i-- > 0;) {
		struct cache_batch *batch;

		if (!many->layers[i])
			continue;
		g_assert_cmpint(cache_batch_take(many->layers[i], &limits, &batch, NULL, NULL), ==, 0);
		if (!batch)
			continue;
		apply(many, i, batch);
		cache_batch_done(batch);
		batches++;
	}
	return batches;
}

/* Until nothing of those that are open is dirty. Room for the next batch may be what
 * the reclaim thread has yet to make. */
static void migrate_all(struct many *many)
{
	gint64 last = g_get_monotonic_time();
	uint64_t dirty;

	do {
		if (migrate_each(many) > 0)
			last = g_get_monotonic_time();
		else
			g_usleep(1000);
		dirty = 0;
		for (unsigned i = 0; i < LAYERS; i++) {
			struct cache_dirty one = {0};

			if (many->layers[i])
				cache_layer_get_dirty(many->layers[i], &one);
			dirty += one.slots;
		}
	} while (dirty > 0 && g_get_monotonic_time() < last + PATIENCE_S * G_USEC_PER_SEC);
	g_assert_cmpuint(dirty, ==, 0);
}

static void end_empty(struct many *many, const char *path)
{
	migrate_all(many);
	g_assert_cmpmem(many->image, sizeof(many->image), many->put, sizeof(many->put));
	close_all(many);
	g_assert_cmpint(cache_close(many->cache), ==, 0);
	assert_sound(path);
	many_free(many);
}

/* ---- Openings need no room ------------------------------------------------- */

/* Mount after mount, in which nothing can be written back. */
static void test_mounts(void)
{
	g_autofree char *path = new_path();
	struct many *many = many_new(1);
	struct cache_status status;

	begin_full(many, path, LOG_BYTES);
	for (unsigned i = 0; i < 20; i++) {
		mount_again(many, path);
		open_all(many, true);
	}
	cache_get_status(many->cache, &status);
	g_assert_cmpuint(status.free_segments, >=, 2);
	end_empty(many, path);
}

/* One disk, whenever somebody has a look at it. */
static void test_one_often(void)
{
	g_autofree char *path = new_path();
	struct many *many = many_new(1);

	begin_full(many, path, LOG_BYTES);
	for (unsigned i = 0; i < 1000; i++) {
		cache_layer_close(many->layers[7], 0);
		g_assert_cmpint(try_open_one(many, 7, true), ==, 0);
	}
	end_empty(many, path);
}

/* Those of which nothing is dirty, before the first block comes: they take turns with
 * others for room, and have none of the reserve. */
static void test_clean(void)
{
	g_autofree char *path = new_path();
	g_autofree uint8_t *data = g_malloc(BLOCK_SIZE);
	struct many *many = many_new(1), *clean = many_new(0x10000);
	struct cache_status before, after;

	begin_full(many, path, LOG_BYTES);
	cache_get_status(many->cache, &before);
	clean->cache = many->cache;
	open_all(clean, false);
	cache_get_status(many->cache, &after);
	g_assert_cmpuint(after.sequence, ==, before.sequence);
	/* What is kept back for others is theirs. */
	fill(data, 4, 3, 1);
	for (unsigned i = 5; cache_put(clean->layers[i], 3, 1, data, true) == 1; i++)
		g_assert_cmpint(cache_sync(many->cache), ==, 0);
	g_assert_cmpint(cache_put(clean->layers[4], 3, 1, data, true), ==, -EAGAIN);
	migrate_all(many);
	while (cache_put(clean->layers[4], 3, 1, data, true) == -EAGAIN)
		g_usleep(1000);
	close_all(clean);
	mount_again(many, path);
	clean->cache = many->cache;
	g_assert_cmpint(try_open_one(clean, 4, true), ==, 0);
	g_assert_cmpuint(clean->owned[4], ==, 1);
	g_assert_cmpint(cache_lookup(clean->layers[4], 3, 1).answer, ==, CACHE_HIT);
	close_all(clean);
	many_free(clean);
	open_all(many, true);
	end_empty(many, path);
}

/* Opens all that a mount finds dirty, in a log without room; how many were refused. */
static unsigned open_without_room(void)
{
	g_autofree char *path = new_path();
	struct many *many = many_new(1);
	unsigned refused = 0, left, again = 0;

	begin_full(many, path, LOG_BYTES);
	use_up_room(many);
	mount_again(many, path);
	for (unsigned i = 0; i < LAYERS; i++) {
		int result = try_open_one(many, i, false);

		g_assert_true(result == 0 || result == -ENOSPC);
		refused += result != 0;
	}
	for (left = refused; left > 0 && again < LAYERS; again++) {
		migrate_all(many);
		left = 0;
		for (unsigned i = 0; i < LAYERS; i++)
			left += !many->layers[i] && try_open_one(many, i, false) != 0;
	}
	g_assert_cmpuint(left, ==, 0);
	end_empty(many, path);
	return refused;
}

/* Where the log has to say something of each: who comes too late is refused until there is
 * room, and nothing is kept from those that came before. Now and then the reclaim thread
 * has made room by then. */
static void test_new_owners(void)
{
	unsigned refused = 0;

	for (unsigned tries = 0; refused == 0 && tries < 50; tries++)
		refused = open_without_room();
	g_assert_cmpuint(refused, >, 0);
}

/* A pool without room refuses what it is offered, of all disks: smaller batches begin in
 * records that they share. */
static void test_refused(void)
{
	enum { COUNT = 100, EPOCH = 130 };
	struct cache_batch_limits limits = {.data_blocks = 4096, .extents = 4096};
	g_autofree char *path = new_path();
	struct many *many = many_new(1);
	struct cache_status before, after;
	struct cache_batch *batch;
	unsigned refused = 0;

	many->cache = open_cache(path, SMALL + COUNT * 2 * EPOCH * BLOCK_SIZE);
	open_all(many, false);
	fill_by_epochs(many, COUNT, EPOCH);
	use_up_room(many);
	cache_get_status(many->cache, &before);
	for (unsigned i = COUNT; i-- > 0;) {
		g_assert_cmpint(cache_batch_take(many->layers[i], &limits, &batch, NULL, NULL), ==, 0);
		if (batch->data_blocks > EPOCH && cache_batch_refuse(batch))
			refused++;
		else
			cache_batch_free(batch);
	}
	cache_get_status(many->cache, &after);
	g_assert_cmpuint(refused, >, 0);
	g_assert_cmpuint(after.sequence - before.sequence, <, COUNT / 2);
	end_empty(many, path);
}

/* ---- Crashes --------------------------------------------------------------- */

#ifdef LEAFDISK_FAULTS
struct filling {
	struct many *many;
	const char *path;
};

static void fill_up(void *opaque)
{
	const struct filling *filling = opaque;
	struct many *many = filling->many;

	begin_full(many, filling->path, SMALL);
	many->version = 1;
	use_up_room(many);
	close_all(many);
	g_assert_cmpint(cache_close(many->cache), ==, 0);
}

/* A mount that finds all of them dirty, writes all back, fills the log again, and writes
 * that back. Where it dies: */
struct death {
	const char *spec; /* "": nowhere */
	bool later;	  /* in the second half */
};

static void G_GNUC_NORETURN run_mount(struct many *many, const char *path, const struct death *death)
{
	arm(death->later ? "" : death->spec);
	many->cache = open_cache(path, 0);
	open_all(many, true);
	migrate_all(many);
	arm("");
	fill_log(many, ++many->version);
	use_up_room(many);
	arm(death->spec);
	migrate_all(many);
	close_all(many);
	_exit(cache_close(many->cache) == 0 ? 0 : 1);
}

/* False: it came to its end before that. */
static bool crash_mount(struct many *many, const char *path, const struct death *death)
{
	pid_t child = fork_child();
	int status;

	if (child == 0)
		run_mount(many, path, death);
	status = exit_status_of(child);
	g_assert_true(status == 77 || status == 0);
	return status == 77;
}

static bool find_one(void *opaque, const struct cache_layer_info *layer, uint64_t block, uint64_t blocks,
		     const void *data)
{
	uint64_t(*found)[LAYER_BLOCKS] = opaque;
	uint64_t number = g_ascii_strtoull(layer->name, NULL, 10);

	for (uint64_t i = 0; i < blocks; i++)
		found[number][block + i] = version_of((const uint8_t *)data + i * BLOCK_SIZE);
	return true;
}

/* What a mount would find, on top of the images; what it does not is forgotten. */
static void look_after(struct many *many, const char *path)
{
	g_autofree uint64_t(*found)[LAYER_BLOCKS] = g_memdup2(many->image, sizeof(many->image));

	assert_sound(path);
	g_assert_true(cache_dump(path, NULL, find_one, no_finding, found, NULL));
	for (unsigned i = 0; i < LAYERS; i++)
		for (unsigned j = 0; j < LAYER_BLOCKS; j++) {
			g_assert_cmpuint(found[i][j], >=, many->sure[i][j]);
			g_assert_cmpuint(found[i][j], <=, many->put[i][j]);
		}
	memcpy(many->put, found, sizeof(many->put));
	memcpy(many->sure, found, sizeof(many->sure));
}

/* At the NTH occurrence of POINT, and again in the mount after that. False: there is none. */
static bool crash_at(struct many *many, const char *path, const char *point, unsigned nth, bool later)
{
	g_autofree char *spec = g_strdup_printf("%s:crash@%u", point, nth);
	g_autofree char *again = g_strdup_printf("aio.write:crash@%u", 1 + nth % 5);
	struct death deaths[] = {{spec, later}, {again, false}, {"", false}};
	bool crashed = crash_mount(many, path, &deaths[0]);

	g_test_message("%s%s", spec, later ? ", later" : "");
	look_after(many, path);
	(void)crash_mount(many, path, &deaths[1]);
	look_after(many, path);
	g_assert_false(crash_mount(many, path, &deaths[2]));
	g_assert_cmpmem(many->image, sizeof(many->image), many->put, sizeof(many->put));
	return crashed;
}

/* Before each write, flush and superblock that it takes to empty a log without room. */
static void test_crash(const void *point)
{
	g_autofree char *path = new_path(), *content = NULL;
	struct many *many = many_new(1), *full = many_new(1);
	gsize length;

	run_apart(fill_up, &(struct filling){many, path});
	g_assert_true(g_file_get_contents(path, &content, &length, NULL));
	memcpy(full, many, sizeof(*many));
	for (unsigned half = 0; half < 2; half++) {
		unsigned nth = 0;

		do {
			g_assert_true(g_file_set_contents(path, content, (gssize)length, NULL));
			memcpy(many, full, sizeof(*many));
			nth += 1 + (g_getenv("LEAFDISK_TORTURE") ? 0 : nth / 4);
		} while (crash_at(many, path, point, nth, half == 1));
		/* When there is room again depends on the reclaim thread. */
		g_assert_true(nth > 1 || half == 1);
	}
	many_free(full);
	many_free(many);
}
#endif

int main(int argc, char **argv)
{
	int result;

	g_test_init(&argc, &argv, NULL);
	alarm(DEADLINE_S); /* what waits for ever fails */
	make_directory();
	add_apart("/cache-reserve/mounts", test_mounts);
	add_apart("/cache-reserve/one-often", test_one_often);
	add_apart("/cache-reserve/clean", test_clean);
	add_apart("/cache-reserve/new-owners", test_new_owners);
	add_apart("/cache-reserve/refused", test_refused);
#ifdef LEAFDISK_FAULTS
	g_test_add_data_func("/cache-reserve/crash/write", "aio.write", test_crash);
	g_test_add_data_func("/cache-reserve/crash/flush", "aio.datasync", test_crash);
	g_test_add_data_func("/cache-reserve/crash/superblock", "cache.super", test_crash);
#endif
	result = g_test_run();
	remove_directory();
	return result;
}
