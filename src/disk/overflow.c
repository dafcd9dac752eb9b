/* Overflow layers.
 *
 * Whoever can write to the pool can put anything at .leafdisk/overflow. Each step
 * on the way is taken from the directory before and follows no link. A sweep
 * removes only what a daemon made there: a file of such a name, of the owner of
 * the directory, that is a leaf image and that nobody has locked. It is opened
 * for reading only. */
#include "disk/overflow.h"

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
#include "disk/io/step.h"
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
static char *new_path(const struct disk *disk)
{
	g_autofree char *uuid = g_uuid_string_random();
	g_autofree char *name = g_strdup(disk->name);
	size_t room = NAME_MAX - strlen("-") - UUID_BYTES - strlen(SUFFIX);

	if (strlen(name) > room) {
		while (room && ((unsigned char)name[room] & 0xc0) == 0x80)
			room--;
		name[room] = '\0';
	}
	return g_strdup_printf("%s/" DIRECTORY "/" SUBDIRECTORY "/%s-%s" SUFFIX, chain_roots_pool(disk->roots)->path,
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

static struct image *make_in(int directory, const struct disk *disk, GError **error)
{
	struct image_create_options options = {.size_bytes = disk->size_bytes};
	g_autofree char *path = new_path(disk);
	struct image *image = NULL;

	if (image_create_in(directory, path, IMAGE_FORMAT_LEAF, &options, error)) {
		image = open_image(directory, path, IMAGE_WRITABLE, error);
		(void)unlinkat(directory, strrchr(path, '/') + 1, 0);
	}
	return image;
}

static struct image *make(struct disk *disk, GError **error)
{
	const struct place *pool = chain_roots_pool(disk->roots);
	struct image *image = NULL;

	for (unsigned i = 0; i < TRIES && !image; i++) {
		int directory = open_directory(pool, true);

		g_clear_error(error);
		if (directory >= 0) {
			image = make_in(directory, disk, error);
			close(directory);
		} else {
			error_set_errno(error, -directory, "%s/" DIRECTORY "/" SUBDIRECTORY " cannot be used",
					pool->path);
		}
	}
	return image;
}

static int make_and_keep(struct disk *disk)
{
	g_autoptr(GError) error = NULL;
	struct image *image = disk->overflow ? NULL : make(disk, &error);
	int result = 0;

	if (image) {
		log_info("%s: the cache takes no more of it; the rest goes to the pool until the unmount", disk->name);
		disk->overflow = image;
	}
	if (error) {
		log_warning("%s: the cache takes no more of it, and there is no overflow layer: %s", disk->name,
			    error->message);
		result = error_to_errno(error);
		if (error_class_of(STORE_OPEN, result) == ERROR_READ_ONLY)
			result = -ENOSPC;
	}
	return result;
}

static void make_work(struct loop_work *work)
{
	struct run *run = container_of(work, struct run, work);

	run->result = make_and_keep(run->owner->disk);
}

static void finish_run(struct loop_task *task)
{
	struct run *run = container_of(task, struct run, work.task);

	io_run_finished(run, run->result);
}

/* Tells all who wait, each on its own loop. Nobody can begin to wait for a layer
 * that is there before this: what comes meanwhile is told at once too. */
static void make_done(struct loop_work *work)
{
	struct run *maker = container_of(work, struct run, work);
	struct disk *disk = maker->owner->disk;
	int result = maker->result;
	struct list runs;
	struct list *node;

	list_init(&runs);
	g_mutex_lock(&disk->lock);
	list_splice(&runs, &disk->overflow_runs);
	g_mutex_unlock(&disk->lock);
	while ((node = list_pop(&runs))) {
		struct run *run = container_of(node, struct run, link);

		run->result = result;
		run->work.task.run = finish_run;
		loop_post(run->owner->context->loop, &run->work.task);
	}
}

void overflow_make(struct run *run)
{
	struct disk_io *io = run->owner;
	struct disk *disk = io->disk;
	bool first;

	io->pending++;
	g_mutex_lock(&disk->lock);
	first = list_is_empty(&disk->overflow_runs);
	list_append(&disk->overflow_runs, &run->link);
	g_mutex_unlock(&disk->lock);
	if (!first)
		return;
	run->work.work = make_work;
	run->work.done = make_done;
	run->work.file = disk;
	loop_offload_step(io->context->loop, &run->work);
}

/* Nobody will read it again: nothing of it needs to be durable. */
void overflow_free(struct disk *disk)
{
	struct image *image = disk->overflow;

	disk->overflow = NULL;
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
