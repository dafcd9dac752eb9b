/* Overflow layers. */
#include "overflow.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/error.h"
#include "core/log.h"

#define DIRECTORY ".leafdisk"
#define SUBDIRECTORY "overflow"

/* Another daemon that sweeps may take a file for one that was left. */
#define TRIES 3

static char *make_directory(const char *pool_path, GError **error)
{
	g_autofree char *path = g_build_filename(pool_path, DIRECTORY, SUBDIRECTORY, NULL);

	if (g_mkdir_with_parents(path, 0700) == 0)
		return g_steal_pointer(&path);
	error_set_errno(error, errno, "%s cannot be made", path);
	return NULL;
}

static struct image *make_image(struct disk *disk, const char *directory, GError **error)
{
	g_autofree char *uuid = g_uuid_string_random();
	g_autofree char *path = g_strdup_printf("%s/%s-%s.leaf", directory, disk->name, uuid);
	struct image_create_options options = {.size_bytes = disk->size_bytes};
	struct image *image = NULL;

	if (image_create(path, IMAGE_FORMAT_LEAF, &options, error)) {
		image = image_open(path, IMAGE_FORMAT_LEAF, IMAGE_WRITABLE, 0, error);
		unlink(path);
	}
	return image;
}

static struct image *make(struct disk *disk, GError **error)
{
	struct image *image = NULL;

	for (unsigned i = 0; i < TRIES && !image; i++) {
		g_autofree char *directory = NULL;

		g_clear_error(error);
		directory = make_directory(disk->roots.directories[0], error);
		if (directory)
			image = make_image(disk, directory, error);
	}
	return image;
}

int overflow_make(struct disk *disk)
{
	g_autoptr(GError) error = NULL;
	int result = 0;

	g_mutex_lock(&disk->open_lock);
	if (!disk->overflow) {
		struct image *image = make(disk, &error);

		if (image)
			log_info("%s: the cache takes no more of it; the rest goes to the pool until the unmount",
				 disk->name);
		disk->overflow = image;
	}
	g_mutex_unlock(&disk->open_lock);
	if (error) {
		log_warning("%s: the cache takes no more of it, and there is no overflow layer: %s", disk->name,
			    error->message);
		result = error_to_errno(error);
		if (error_class_of(STORE_OPEN, result) == ERROR_READ_ONLY)
			result = -ENOSPC;
	}
	return result;
}

/* Nobody will read it again: nothing of it needs to be durable. */
void overflow_free(struct disk *disk)
{
	struct image *image = disk->overflow;

	disk->overflow = NULL;
	if (image)
		(void)image_close(image);
}

/* A daemon that uses it holds its lock, and has removed its name. */
static void sweep_file(const char *path)
{
	struct image *image = image_open(path, IMAGE_FORMAT_LEAF, IMAGE_WRITABLE, 0, NULL);

	if (!image)
		return;
	if (unlink(path) == 0)
		log_info("%s: left by a crash, removed", path);
	(void)image_close(image);
}

void overflow_sweep(const char *pool_path)
{
	g_autofree char *top = g_build_filename(pool_path, DIRECTORY, NULL);
	g_autofree char *path = g_build_filename(top, SUBDIRECTORY, NULL);
	GDir *directory = g_dir_open(path, 0, NULL);
	const char *name;

	if (!directory)
		return;
	while ((name = g_dir_read_name(directory))) {
		g_autofree char *file = g_build_filename(path, name, NULL);

		sweep_file(file);
	}
	g_dir_close(directory);
	if (rmdir(path) == 0)
		(void)rmdir(top);
}
