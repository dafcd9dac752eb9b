/* Directories: opendir, readdir, releasedir. */
#include "ops.h"

#include <errno.h>

#include "fuse/control/tree.h"
#include "directory.h"
#include "request.h"
#include "shown.h"

static void add_disk(void *directory, const struct disk *disk, uint64_t ino)
{
	directory_add(directory, disk_name(disk), ino, S_IFREG);
}

static struct directory *list_disks(struct session *session)
{
	struct directory *directory = directory_new(FUSE_ROOT_ID, FUSE_ROOT_ID);

	directory_add(directory, CONTROL_NAME, CONTROL_INO, S_IFDIR);
	disk_pool_look(session->pool);
	shown_list(session, add_disk, directory);
	return directory;
}

static void opendir_run(struct request *request)
{
	if (control_owns(request->ino))
		request->error = control_list(request->session, request->ino, &request->directory);
	else
		request->directory = list_disks(request->session);
}

/* When the caller is gone (ENOENT) no releasedir will come. */
static void opendir_finish(struct request *request)
{
	if (request->error) {
		request_reply(request, request->error);
		return;
	}
	request->file.fh = (uint64_t)(uintptr_t)request->directory;
	directory_opened(request->session, request->directory);
	if (fuse_reply_open(request->fuse, &request->file) != 0)
		directory_close(request->session, request->directory);
	request_free(request);
}

void op_opendir(fuse_req_t fuse, fuse_ino_t ino, struct fuse_file_info *file)
{
	struct request *request;

	if (ino != FUSE_ROOT_ID && !control_owns(ino)) {
		reply_now(fuse, -ENOTDIR);
		return;
	}
	request = request_new(fuse);
	request->ino = ino;
	request->file = *file;
	request_offload(request, opendir_run, opendir_finish);
}

static struct directory *directory_of(const struct fuse_file_info *file)
{
	return (struct directory *)(uintptr_t)file->fh;
}

void op_readdir(fuse_req_t fuse, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *file)
{
	struct request *request;
	char *buffer;

	(void)ino;
	if (!directory_of(file)) {
		reply_now(fuse, -EBADF);
		return;
	}
	request = request_new(fuse);
	size = MIN(size, CHANNEL_PAYLOAD_BYTES);
	buffer = request_take_read_buffer(request, size);
	if (!buffer) {
		request_reply(request, -ENOMEM);
		return;
	}
	size = directory_fill(fuse, directory_of(file), (uint64_t)MAX(offset, 0), buffer, size);
	fuse_reply_buf(fuse, buffer, size);
	request_free(request);
}

void op_releasedir(fuse_req_t fuse, fuse_ino_t ino, struct fuse_file_info *file)
{
	(void)ino;
	if (directory_of(file))
		directory_close(session_of(fuse), directory_of(file));
	reply_now(fuse, 0);
}
