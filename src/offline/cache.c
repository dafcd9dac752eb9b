/* Caches without a mount: bound to a pool, dumped to files. */
#include "offline/cache.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "aio/file.h"
#include "core/bytes.h"
#include "core/error.h"
#include "core/verdict.h"
#include "pool/pool.h"
#include "whole.h"

/* A new file appears whole. */
static bool create(const struct cache_options *options, bool force, bool preallocate, GError **error)
{
	struct cache_options hidden = *options;
	struct whole whole;

	if (access(options->path, F_OK) == 0 || errno != ENOENT)
		return cache_create(options, force, preallocate, error);
	if (!whole_begin(&whole, options->path, error))
		return false;
	hidden.path = whole.hidden;
	return whole_end(&whole, cache_create(&hidden, force, preallocate, error), error);
}

bool offline_cache_create(const struct offline_cache_options *options, GError **error)
{
	char *pool = realpath(options->pool, NULL);
	struct cache_options cache = {.path = options->path, .size_bytes = options->size_bytes, .pool_path = pool};
	bool done;

	if (!pool || !g_file_test(pool, G_FILE_TEST_IS_DIR)) {
		free(pool);
		return error_set(error, ENOENT, "%s: is no directory, so no pool", options->pool);
	}
	done = disk_pool_read_id(pool, cache.pool_id, error) &&
	       create(&cache, options->force, options->preallocate, error);
	free(pool);
	return done;
}

/* One layer is written at a time. */
struct dump {
	uint32_t layer; /* 0: none yet */
	struct whole whole;
	int fd;
	const struct offline_dump_options *options;
	uint64_t done_bytes, total_bytes;
	GError *error;
};

/* Names come from the cache: nothing outside the directory, nothing hidden. */
static char *file_name_of(const struct cache_layer_info *layer)
{
	char *name = *layer->name ? g_strdup(layer->name) : g_strdup_printf("layer-%u", layer->id);

	for (char *p = name; *p; p++)
		if (*p == '/' || g_ascii_iscntrl(*p))
			*p = '_';
	if (*name == '.')
		*name = '_';
	return name;
}

static bool dump_failed(struct dump *dump, int errnum, const char *what)
{
	return error_set_errno(&dump->error, errnum, "%s: %s", dump->whole.path, what);
}

/* Of two layers of one name the second has its number as well. */
static bool name_file(struct dump *dump)
{
	g_autofree char *numbered = g_strdup_printf("%s.%u", dump->whole.path, dump->layer);
	const char *const paths[] = {dump->whole.path, numbered, NULL};

	return whole_end_as(&dump->whole, paths, &dump->error);
}

/* GOOD: and whole. */
static bool end_file(struct dump *dump, bool good)
{
	if (dump->fd < 0)
		return good;
	good = good && (fsync(dump->fd) == 0 || dump_failed(dump, errno, "cannot be written"));
	close(dump->fd);
	dump->fd = -1;
	return good ? name_file(dump) : whole_end(&dump->whole, false, &dump->error);
}

static bool begin_file(struct dump *dump, const struct cache_layer_info *layer)
{
	g_autofree char *name = file_name_of(layer), *path = g_build_filename(dump->options->directory, name, NULL);

	dump->layer = layer->id;
	if (!whole_begin_beside(&dump->whole, path, &dump->error))
		return false;
	dump->fd = open(dump->whole.hidden, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (dump->fd < 0) {
		(void)dump_failed(dump, errno, "cannot be created");
		return whole_end(&dump->whole, false, &dump->error);
	}
	if (ftruncate(dump->fd, (off_t)MIN(layer->size_bytes, (uint64_t)INT64_MAX)) < 0)
		return dump_failed(dump, errno, "cannot be given the layer's size");
	return true;
}

static bool write_data(struct dump *dump, const void *data, size_t length, uint64_t offset)
{
	int result = aio_fd_write(dump->fd, data, length, offset);

	return result == 0 || dump_failed(dump, -result, "cannot be written");
}

static void report_beyond(struct dump *dump, const struct cache_layer_info *layer, uint64_t block)
{
	g_autofree char *sentence =
		g_strdup_printf("block %" G_GUINT64_FORMAT " of layer %s is past its end", block, layer->name);

	dump->options->finding(dump->options->opaque, sentence);
}

static bool block_cb(void *opaque, const struct cache_layer_info *layer, uint64_t block, uint64_t blocks,
		     const void *data)
{
	struct dump *dump = opaque;
	uint64_t offset = block << BLOCK_SHIFT;

	if (!dump->options->go_on(dump->options->opaque, dump->done_bytes, dump->total_bytes))
		return error_set(&dump->error, EINTR, "%s: interrupted", dump->options->directory);
	if (dump->layer != layer->id && (!end_file(dump, true) || !begin_file(dump, layer)))
		return false;
	if (!data)
		return true;
	dump->done_bytes += blocks << BLOCK_SHIFT;
	if (offset < layer->size_bytes)
		return write_data(dump, data, MIN(blocks << BLOCK_SHIFT, layer->size_bytes - offset), offset);
	report_beyond(dump, layer, block);
	return true;
}

static void finding_cb(void *opaque, const char *sentence)
{
	struct dump *dump = opaque;

	dump->options->finding(dump->options->opaque, sentence);
}

/* What the layers that are wanted hold. */
static uint64_t bytes_of(const char *path, const char *layer)
{
	struct cache_info *info = cache_read_info(path, NULL);
	uint64_t blocks = 0;

	for (guint i = 0; info && i < info->layers->len; i++) {
		const struct cache_layer_info *held = info->layers->pdata[i];

		if (!layer || strcmp(layer, held->name) == 0)
			blocks += held->clean_blocks + held->dirty_blocks;
	}
	cache_info_free(info);
	return blocks << BLOCK_SHIFT;
}

bool offline_cache_dump(const char *path, const struct offline_dump_options *options, GError **error)
{
	struct dump dump = {
		.fd = -1, .options = options, .total_bytes = options->wants_total ? bytes_of(path, options->layer) : 0};
	bool done = cache_dump(path, options->layer, block_cb, finding_cb, &dump, error);

	done = end_file(&dump, done && !dump.error) && done;
	if (dump.error) {
		g_clear_error(error);
		g_propagate_error(error, dump.error);
	}
	return done;
}

/* ---- Drain --------------------------------------------------------------- */

static bool cannot_be_written(const GError *error)
{
	enum error_class class = error_class_of(STORE_OPEN, error_to_errno(error));

	return class == ERROR_READ_ONLY || class == ERROR_OUTAGE;
}

/* A cache that cannot be written can be read. */
static struct disk_pool *open_pool(struct disk_pool_options *options, bool *kept, GError **error)
{
	g_autoptr(GError) inner = NULL;
	struct disk_pool *pool = disk_pool_open(options, &inner);

	if (pool || !cannot_be_written(inner)) {
		if (inner)
			g_propagate_error(error, g_steal_pointer(&inner));
		return pool;
	}
	options->keep_cache = true;
	pool = disk_pool_open(options, error);
	*kept = pool;
	return pool;
}

/* As a mount would, in no mode that adds to what is dirty. */
bool offline_cache_drain(const char *cache_path, const char *layers, bool (*go_on)(void *opaque, uint64_t dirty_bytes),
			 void *opaque, bool *kept, GError **error)
{
	struct cache_info *info = cache_read_info(cache_path, error);
	struct disk_pool_options options = {
		.cache = cache_path,
		.layers = layers,
		.mode = DISK_MODE_DIRECT,
		.quiet = true,
	};
	struct disk_pool *pool;
	bool done;

	*kept = false;
	if (!info)
		return false;
	options.path = info->pool_path;
	options.tunables = (struct disk_tunables)DISK_TUNABLES_DEFAULT;
	pool = open_pool(&options, kept, error);
	done = pool && disk_pool_drain(pool, go_on, opaque, error);
	disk_pool_close(pool);
	cache_info_free(info);
	return done;
}
