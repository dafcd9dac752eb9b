/* A listing: the snapshot of a directory that opendir takes. */
#include "directory.h"

#include <sys/stat.h>

struct directory_entry {
	char *name;
	uint64_t ino;
	mode_t mode;
};

struct directory {
	struct list link; /* on session->directories, while it is open */
	GArray *entries;
};

static void entry_clear(void *opaque)
{
	struct directory_entry *entry = opaque;

	g_free(entry->name);
}

struct directory *directory_new(uint64_t ino, uint64_t parent)
{
	struct directory *directory = g_new0(struct directory, 1);

	list_init(&directory->link);
	directory->entries = g_array_new(FALSE, FALSE, sizeof(struct directory_entry));
	g_array_set_clear_func(directory->entries, entry_clear);
	directory_add(directory, ".", ino, S_IFDIR);
	directory_add(directory, "..", parent, S_IFDIR);
	return directory;
}

void directory_free(struct directory *directory)
{
	if (!directory)
		return;
	g_array_unref(directory->entries);
	g_free(directory);
}

void directory_opened(struct session *session, struct directory *directory)
{
	LOCK_GUARD(&session->handles_lock);
	list_append(&session->directories, &directory->link);
}

void directory_close(struct session *session, struct directory *directory)
{
	lock_take(&session->handles_lock);
	list_remove(&directory->link);
	lock_let_go(&session->handles_lock);
	directory_free(directory);
}

void directory_close_all(struct session *session)
{
	struct list *link;

	while ((link = list_first(&session->directories)))
		directory_close(session, container_of(link, struct directory, link));
}

void directory_add(struct directory *directory, const char *name, uint64_t ino, mode_t mode)
{
	struct directory_entry entry = {.name = g_strdup(name), .ino = ino, .mode = mode};

	g_array_append_val(directory->entries, entry);
}

size_t directory_fill(fuse_req_t fuse, const struct directory *directory, uint64_t from, char *buffer, size_t size)
{
	size_t used = 0;

	for (uint64_t i = from; i < directory->entries->len; i++) {
		const struct directory_entry *entry = &g_array_index(directory->entries, struct directory_entry, i);
		struct stat st = {.st_ino = entry->ino, .st_mode = entry->mode};
		size_t length = fuse_add_direntry(fuse, buffer + used, size - used, entry->name, &st, (off_t)(i + 1));

		if (length > size - used)
			break;
		used += length;
	}
	return used;
}
