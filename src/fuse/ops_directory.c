/* The top directory: opendir, readdir, releasedir.
 *
 * opendir takes a snapshot of the pool's disks, sorted by name. An entry's
 * offset is its place in the snapshot plus one, "." and ".." being the first
 * two; so a listing sees each disk once whatever happens to the pool. */
#include "ops.h"

#include <errno.h>

#include "request.h"

struct directory_entry {
	char *name;
	uint64_t ino;
	mode_t mode;
};

struct directory {
	GArray *entries;
};

static void entry_clear(void *opaque)
{
	struct directory_entry *entry = opaque;

	g_free(entry->name);
}

static void directory_free(struct directory *directory)
{
	g_array_unref(directory->entries);
	g_free(directory);
}

static void add_entry(struct directory *directory, const char *name, uint64_t ino, mode_t mode)
{
	struct directory_entry entry = {.name = g_strdup(name), .ino = ino, .mode = mode};

	g_array_append_val(directory->entries, entry);
}

static void add_disk(struct session *session, struct directory *directory, struct disk *disk)
{
	struct node *node = node_for_disk(session->nodes, disk);

	add_entry(directory, disk_name(disk), node_ino(node), S_IFREG);
	node_put(session->nodes, node);
}

static void opendir_run(struct request *request)
{
	struct session *session = request->session;
	struct directory *directory = g_new0(struct directory, 1);
	g_autoptr(GPtrArray) disks = disk_pool_list(session->pool);

	directory->entries = g_array_new(FALSE, FALSE, sizeof(struct directory_entry));
	g_array_set_clear_func(directory->entries, entry_clear);
	add_entry(directory, ".", FUSE_ROOT_ID, S_IFDIR);
	add_entry(directory, "..", FUSE_ROOT_ID, S_IFDIR);
	for (unsigned i = 0; i < disks->len; i++)
		add_disk(session, directory, disks->pdata[i]);
	node_sweep(session->nodes, disks);
	request->directory = directory;
}

/* When the caller is gone (ENOENT) no releasedir will come. */
static void opendir_finish(struct request *request)
{
	request->file.fh = (uint64_t)(uintptr_t)request->directory;
	if (fuse_reply_open(request->fuse, &request->file) != 0)
		directory_free(request->directory);
	request_free(request);
}

void op_opendir(fuse_req_t fuse, fuse_ino_t ino, struct fuse_file_info *file)
{
	struct request *request;

	if (ino != FUSE_ROOT_ID) {
		reply_now(fuse, -ENOTDIR);
		return;
	}
	request = request_new(fuse);
	request->file = *file;
	request_offload(request, opendir_run, opendir_finish);
}

static size_t fill(fuse_req_t fuse, const struct directory *directory, uint64_t from, char *buffer, size_t size)
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

void op_readdir(fuse_req_t fuse, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *file)
{
	const struct directory *directory = (const struct directory *)(uintptr_t)file->fh;
	struct request *request = request_new(fuse);
	char *buffer = request_take_read_buffer(request);

	(void)ino;
	size = fill(fuse, directory, (uint64_t)MAX(offset, 0), buffer, MIN(size, CHANNEL_PAYLOAD_BYTES));
	fuse_reply_buf(fuse, buffer, size);
	request_free(request);
}

void op_releasedir(fuse_req_t fuse, fuse_ino_t ino, struct fuse_file_info *file)
{
	(void)ino;
	directory_free((struct directory *)(uintptr_t)file->fh);
	reply_now(fuse, 0);
}
