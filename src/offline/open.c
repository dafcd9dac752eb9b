/* Disks that a tool opens without a mount. */
#include "open.h"

#include <errno.h>
#include <stdlib.h>

#include "core/error.h"
#include "core/nearest.h"
#include "image/foreign.h"

static void refuse(const char *path, GError **error)
{
	g_autofree char *foreign = image_foreign_text(path, IMAGE_FORMAT_NONE);

	if (foreign)
		error_set(error, EINVAL, "%s: %s", path, foreign);
	else
		error_set(error, EINVAL,
			  "%s: is no image that this version knows (raw ones are named .raw or .img, or "
			  "said to be so with -f or -F)",
			  path);
}

enum image_format offline_format_of(const char *path, enum image_format format, GError **error)
{
	g_autoptr(GError) inner = NULL;

	if (format != IMAGE_FORMAT_NONE)
		return format;
	format = image_probe(path, &inner);
	if (format == IMAGE_FORMAT_NONE && !inner)
		refuse(path, &inner);
	nearest_add_file(path, &inner);
	if (inner)
		g_propagate_error(error, g_steal_pointer(&inner));
	return format;
}

/* Parents may be in the image's directory, below it, or in LAYERS. Links that a
 * user names are followed, what images name is held to that. */
static struct chain_roots *roots_for(const char *path, const char *layers, char **real, GError **error)
{
	char *resolved = realpath(path, NULL);
	g_autofree char *directory = resolved ? chain_directory_of(resolved) : NULL;

	*real = g_strdup(resolved);
	free(resolved);
	if (*real)
		return chain_roots_new(directory, layers, error);
	error_set_errno(error, errno, "%s: cannot be found", path);
	nearest_add_file(path, error);
	return NULL;
}

GPtrArray *offline_links(const char *path, enum image_format format, const char *layers, GError **error)
{
	GPtrArray *links = chain_links_new();
	struct chain_roots *roots = NULL;
	g_autofree char *real = NULL;
	bool good;

	format = offline_format_of(path, format, error);
	if (format != IMAGE_FORMAT_NONE)
		roots = roots_for(path, layers, &real, error);
	good = roots && chain_resolve(real, format, roots, NULL, links, error);
	chain_roots_unref(roots);
	if (!good && !links->len)
		g_clear_pointer(&links, g_ptr_array_unref);
	return links;
}

struct disk *offline_open(const char *path, enum image_format format, const char *layers, enum open_mode mode,
			  GError **error)
{
	bool write = mode == OPEN_TO_WRITE;
	g_autoptr(GError) inner = NULL;
	GPtrArray *links = offline_links(path, format, layers, &inner);
	struct disk *disk = NULL;

	if (!inner) {
		const struct chain_link *leaf = links->pdata[0];

		disk = disk_new(path, write, 0, g_ptr_array_ref(links), leaf->roots, NULL, DISK_MODE_DIRECT, NULL);
		disk->unlocked = mode == OPEN_TO_LOOK;
		if (disk_open(disk, write, &inner) < 0)
			g_clear_pointer(&disk, disk_unref);
	}
	g_clear_pointer(&links, g_ptr_array_unref);
	if (inner)
		g_propagate_error(error, g_steal_pointer(&inner));
	return disk;
}

bool offline_close(struct disk *disk, GError **error)
{
	int result = disk_close(disk);
	bool good = result == 0 || error_set_errno(error, -result, "%s: cannot be written back", disk_name(disk));

	disk_unref(disk);
	return good;
}

bool offline_loop_init(struct offline_loop *loop, GError **error)
{
	struct disk_limits limits = {.queue_depth = 64};

	loop->loop = loop_new(error);
	loop->context = loop->loop ? disk_context_new(loop->loop, &limits, error) : NULL;
	if (loop->context)
		return true;
	offline_loop_clear(loop);
	return false;
}

void offline_loop_clear(struct offline_loop *loop)
{
	disk_context_free(loop->context);
	loop_free(loop->loop);
	*loop = (struct offline_loop){0};
}

struct single {
	struct disk_io io;
	bool finished;
	int64_t result;
};

static void single_done(struct disk_io *io, int64_t result)
{
	struct single *single = container_of(io, struct single, io);

	single->result = result;
	single->finished = true;
}

int64_t offline_run(struct disk *disk, enum disk_op op, uint64_t length)
{
	struct offline_loop loop;
	struct single single = {0};

	if (!offline_loop_init(&loop, NULL))
		return -ENOMEM;
	single.io = (struct disk_io){
		.context = loop.context, .disk = disk, .op = op, .length = length, .done = single_done};
	disk_submit(&single.io);
	loop_run(loop.loop, &single.finished);
	offline_loop_clear(&loop);
	return single.result;
}
