/* Overflow layers.
 *
 * Whoever can write to the pool can put anything at .leafdisk/overflow. Each step
 * on the way is taken from the directory before and follows no link. A sweep
 * removes only what a daemon made there: a file of such a name, of the owner of
 * the directory, that is a leaf image and that nobody has locked. It is opened
 * for reading only. */
#include "layer/overflow.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/error.h"
#include "core/log.h"
#include "core/workers.h"

#define DIRECTORY ".leafdisk"
#define SUBDIRECTORY "overflow"

/* "web1.img-2b1c...-....leaf": what was the disk's name, and a UUID. */
#define SUFFIX ".leaf"
#define UUID_BYTES 36

/* Another daemon that sweeps may take a file for one that was left. */
#define TRIES 3

/* ---- The directory ----------------------------------------------------------- */

/* Its files go where a daemon's own and the pool's owner may put them. */
static bool is_trusted(int directory, const struct place *pool)
{
	struct stat st;

	return fstat(directory, &st) == 0 && (st.st_uid == geteuid() || st.st_uid == pool->owner);
}

/* A descriptor, or -errno; -EPERM: it is another user's. */
static int open_directory(const struct place *pool, bool make)
{
	int top = place_enter(pool->fd, DIRECTORY, make);
	int directory = top < 0 ? top : place_enter(top, SUBDIRECTORY, make);

	if (top >= 0)
		close(top);
	if (directory >= 0 && !is_trusted(directory, pool)) {
		close(directory);
		return -EPERM;
	}
	return directory;
}

/* ---- Making ------------------------------------------------------------------ */

/* As much of the disk's name as there is room for, a character whole. */
static char *new_path(const struct layer *layer)
{
	g_autofree char *uuid = g_uuid_string_random();
	g_autofree char *name = g_strdup(layer->name);
	size_t room = NAME_MAX - strlen("-") - UUID_BYTES - strlen(SUFFIX);

	if (strlen(name) > room) {
		while (room && ((unsigned char)name[room] & 0xc0) == 0x80)
			room--;
		name[room] = '\0';
	}
	return g_strdup_printf("%s/" DIRECTORY "/" SUBDIRECTORY "/%s-%s" SUFFIX, chain_roots_pool(layer->roots)->path,
			       name, uuid);
}

static struct image *open_image(int directory, const char *path, unsigned flags, GError **error)
{
	struct stat st;
	int fd = place_find_at(directory, strrchr(path, '/') + 1, &st);
	struct image *image;

	if (fd < 0) {
		error_set_errno(error, -fd, "%s: cannot be opened", path);
		return NULL;
	}
	image = image_open_fd(fd, path, IMAGE_FORMAT_LEAF, flags, 0, error);
	close(fd);
	return image;
}

static struct image *make_in(int directory, const struct layer *layer, uint64_t size_bytes, GError **error)
{
	struct image_create_options options = {.size_bytes = size_bytes};
	g_autofree char *path = new_path(layer);
	struct image *image = NULL;

	if (image_create_in(directory, path, IMAGE_FORMAT_LEAF, &options, error)) {
		image = open_image(directory, path, IMAGE_WRITABLE | IMAGE_SCRATCH, error);
		(void)unlinkat(directory, strrchr(path, '/') + 1, 0);
	}
	return image;
}

static struct image *make(const struct layer *layer, uint64_t size_bytes, GError **error)
{
	const struct place *pool = chain_roots_pool(layer->roots);
	struct image *image = NULL;

	for (unsigned i = 0; i < TRIES && !image; i++) {
		int directory = open_directory(pool, true);

		g_clear_error(error);
		if (directory >= 0) {
			image = make_in(directory, layer, size_bytes, error);
			close(directory);
		} else {
			error_set_errno(error, -directory, "%s/" DIRECTORY "/" SUBDIRECTORY " cannot be used",
					pool->path);
		}
	}
	return image;
}

static int make_and_keep(struct layer *layer, uint64_t size_bytes)
{
	g_autoptr(GError) error = NULL;
	struct image *image = layer->overflow ? NULL : make(layer, size_bytes, &error);
	int result = 0;

	if (image) {
		log_info("%s: the cache takes no more of it; the rest goes to the pool until the unmount", layer->name);
		layer->overflow = image;
	}
	if (error) {
		log_warning("%s: the cache takes no more of it, and there is no overflow layer: %s", layer->name,
			    error->message);
		result = error_to_errno(error);
		if (error_class_of(STORE_OPEN, result) == ERROR_READ_ONLY)
			result = -ENOSPC;
	}
	return result;
}

static void make_work(struct loop_work *work)
{
	struct overflow_wait *wait = container_of(work, struct overflow_wait, work);

	wait->result = make_and_keep(wait->layer, wait->size_bytes);
}

static void finish(struct loop_task *task)
{
	struct overflow_wait *wait = container_of(task, struct overflow_wait, work.task);

	wait->done(wait, wait->result);
}

/* Tells all who wait, each on its own loop. Nobody can begin to wait for a layer
 * that is there before this: what comes meanwhile is told at once too. */
static void make_done(struct loop_work *work)
{
	struct overflow_wait *maker = container_of(work, struct overflow_wait, work);
	struct layer *layer = maker->layer;
	int result = maker->result;
	struct list waiters;
	struct list *node;

	list_init(&waiters);
	lock_take(&layer->lock);
	list_splice(&waiters, &layer->overflow_waiters);
	lock_let_go(&layer->lock);
	while ((node = list_pop(&waiters))) {
		struct overflow_wait *wait = container_of(node, struct overflow_wait, link);

		wait->result = result;
		wait->work.task.run = finish;
		loop_post(wait->loop, &wait->work.task);
	}
}

void overflow_make(struct layer *layer, struct overflow_wait *wait)
{
	bool first;

	wait->layer = layer;
	lock_take(&layer->lock);
	first = list_is_empty(&layer->overflow_waiters);
	list_append(&layer->overflow_waiters, &wait->link);
	lock_let_go(&layer->lock);
	if (!first)
		return;
	wait->work.work = make_work;
	wait->work.done = make_done;
	wait->work.file = NULL;
	loop_offload_step(wait->loop, &wait->work);
}

void overflow_free(struct layer *layer)
{
	struct image *image = layer->overflow;

	layer->overflow = NULL;
	if (image)
		(void)image_close(image);
}

/* ---- Sweeping ---------------------------------------------------------------- */

static bool has_our_name(const char *name)
{
	size_t length = strlen(name), tail = UUID_BYTES + strlen(SUFFIX);
	g_autofree char *uuid = length > tail ? g_strndup(name + length - tail, UUID_BYTES) : NULL;

	return uuid && g_str_has_suffix(name, SUFFIX) && name[length - tail - 1] == '-' && g_uuid_string_is_valid(uuid);
}

/* A daemon that uses it holds its lock, and has removed its name. The image is
 * opened as if it were a raw one: what a hostile one costs is not paid here. */
static bool is_left(int fd, const char *path)
{
	struct image_info info;
	struct image *image;

	if (image_probe_fd(fd, path, NULL) != IMAGE_FORMAT_LEAF ||
	    !image_read_info_fd(fd, path, IMAGE_FORMAT_LEAF, &info, NULL))
		return false;
	image_info_clear(&info);
	image = image_open_fd(fd, path, IMAGE_FORMAT_RAW, 0, 0, NULL);
	(void)image_close(image);
	return image;
}

static void sweep_file(int directory, const struct stat *owner, const struct place *pool, const char *name)
{
	g_autofree char *path = g_strdup_printf("%s/" DIRECTORY "/" SUBDIRECTORY "/%s", pool->path, name);
	struct stat st;
	int fd = has_our_name(name) ? place_find_at(directory, name, &st) : -1;

	if (fd < 0)
		return;
	if (S_ISREG(st.st_mode) && (st.st_uid == owner->st_uid || st.st_uid == geteuid()) && st.st_nlink == 1 &&
	    is_left(fd, path) && unlinkat(directory, name, 0) == 0)
		log_info("%s: left by a crash, removed", path);
	close(fd);
}

static void remove_directory(const struct place *pool)
{
	int top = place_enter(pool->fd, DIRECTORY, false);

	if (top < 0)
		return;
	if (unlinkat(top, SUBDIRECTORY, AT_REMOVEDIR) == 0)
		(void)unlinkat(pool->fd, DIRECTORY, AT_REMOVEDIR);
	close(top);
}

void overflow_sweep(const struct place *pool)
{
	int fd = open_directory(pool, false);
	DIR *directory = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;
	struct stat owner;

	if (fd == -ELOOP || fd == -ENOTDIR || fd == -EPERM)
		log_warning("%s/" DIRECTORY "/" SUBDIRECTORY ": is a link or another user's, and left alone",
			    pool->path);
	if (!directory) {
		if (fd >= 0)
			close(fd);
		return;
	}
	while (fstat(fd, &owner) == 0 && (entry = readdir(directory)))
		sweep_file(fd, &owner, pool, entry->d_name);
	closedir(directory);
	remove_directory(pool);
}
