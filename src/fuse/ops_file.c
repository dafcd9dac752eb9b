/* Open files: open, create, release. All of it may block, so all of it is
 * done on background threads. */
#include "ops.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

#include "channel.h"
#include "core/error.h"
#include "pool/change.h"
#include "entry.h"
#include "mounts.h"
#include "fuse/control/ops.h"
#include "request.h"
#include "shown.h"
#include "refusal.h"
#include "resize.h"

#define READ_AHEAD_KIB (CHANNEL_PAYLOAD_BYTES / 1024)

/* The kernel offers no more than 128 KiB of read-ahead in the protocol; a
 * privileged daemon may set the rest. Found in the kernel's table: the daemon
 * never touches its own mount. Refused: reading in sequence is slower. */
static void raise_read_ahead(struct session *session)
{
	struct mount_entry entry;
	g_autofree char *path = NULL;
	FILE *file = NULL;

	if (atomic_exchange(&session->tuned, true))
		return;
	if (mounts_find(session->options->mountpoint, &entry)) {
		path = g_strdup_printf("/sys/class/bdi/%u:%u/read_ahead_kb", entry.major, entry.minor);
		file = fopen(path, "we");
	}
	if (file) {
		fprintf(file, "%u", READ_AHEAD_KIB);
		fclose(file);
	}
	mount_entry_clear(&entry);
}

static bool wants_write(const struct fuse_file_info *file)
{
	return (file->flags & O_ACCMODE) != O_RDONLY;
}

static void open_handle(struct request *request, bool *keep_cache)
{
	request->error =
		handle_open(request->session, request->node, wants_write(&request->file), &request->handle, keep_cache);
	if (request->error != 0)
		return;
	request->handle->durable = request->file.flags & O_DSYNC;
	request->handle->grows = request->handle->write && disk_size_bytes(request->handle->disk) == 0;
}

/* A disk that is read-only may be another by now: its last child was forgotten, say. The
 * kernel asks for it anew then. */
static bool is_superseded(struct request *request)
{
	struct session *session = request->session;
	struct disk *disk = node_disk(session->nodes, request->node);
	bool superseded = false;

	if (disk && !disk_is_writable(disk) && !session->options->read_only) {
		disk_pool_look_for_a_while(session->pool);
		superseded = !disk_pool_shows(session->pool, disk);
	}
	disk_unref(disk);
	return superseded;
}

static void open_run(struct request *request)
{
	raise_read_ahead(request->session);
	if (wants_write(&request->file) && is_superseded(request))
		request->error = -ESTALE;
	else
		open_handle(request, &request->keep_cache);
	if (request->error == 0)
		request->handle->direct = request->file.flags & O_DIRECT;
}

/* An error of a fit costs a new disk nothing but a size beyond what was written. */
static void close_run(struct request *request)
{
	if (request->handle->grows)
		resize_fit(request->channel, request->handle->disk);
	handle_close(request->session, request->handle);
}

static int reply_open(struct request *request)
{
	if (request->handle->direct)
		return reply_open_direct(request->fuse, request->handle);
	request->file.fh = (uint64_t)(uintptr_t)request->handle;
	request->file.keep_cache = request->keep_cache;
	return fuse_reply_open(request->fuse, &request->file);
}

/* When the caller is gone (ENOENT) no release will come. */
static void open_finish(struct request *request)
{
	if (request->error) {
		request_reply(request, request->error);
		return;
	}
	if (reply_open(request) == 0)
		request_free(request);
	else
		request_offload(request, close_run, request_free);
}

void op_open(fuse_req_t fuse, fuse_ino_t ino, struct fuse_file_info *file)
{
	struct request *request;

	if (control_owns(ino)) {
		control_op_open(fuse, ino, file);
		return;
	}
	request = request_new(fuse);
	request->file = *file;
	request->node = node_get(request->session->nodes, ino);
	if (request->node)
		request_offload(request, open_run, open_finish);
	else
		request_reply(request, -ESTALE);
}

static bool may_create(const struct session *session, const char *name, GError **error)
{
	if (!shown_may_change(session, name, "created", error))
		return false;
	if (!g_str_has_suffix(name, ".img") || name[0] == '.')
		return error_set(error, EPERM,
				 "%s: not created: the name of a disk ends in .img and does not begin with a dot; "
				 "rsync needs --inplace",
				 name);
	return true;
}

/* An existing disk is fine, as for any open(O_CREAT) that lost a race. */
static int find_or_create(struct request *request, bool *is_new)
{
	struct session *session = request->session;
	g_autoptr(GError) error = NULL;
	struct disk *disk;

	if (!may_create(session, request->name, &error))
		return refusal_log(error);
	disk = disk_pool_create(session->pool, request->name, &error);
	if (disk) {
		*is_new = true;
		request->node = shown_pin(session, disk);
		disk_unref(disk);
		return request->node ? 0 : -ENOENT;
	}
	if (g_error_matches(error, LEAFDISK_ERROR, EEXIST) && !(request->file.flags & O_EXCL) &&
	    shown_find(session, request->name, &request->node) == 0)
		return 0;
	return refusal_log(error);
}

/* What somebody else has used meanwhile, or has put in its place, stays. */
static void take_back(struct request *request)
{
	struct session *session = request->session;
	struct disk *disk = node_disk(session->nodes, request->node);

	if (!disk_was_opened(disk) && disk_pool_shows(session->pool, disk))
		(void)shown_remove(session, request->name);
	disk_unref(disk);
}

static void create_run(struct request *request)
{
	bool is_new = false;

	request->error = find_or_create(request, &is_new);
	if (request->error != 0)
		return;
	entry_prepare(request);
	if (request->error == 0)
		open_handle(request, NULL);
	if (request->error != 0 && is_new)
		take_back(request);
}

static void create_finish(struct request *request)
{
	entry_reply(request, request->handle);
}

void op_create(fuse_req_t fuse, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *file)
{
	struct request *request;

	(void)mode;
	if (parent != FUSE_ROOT_ID) {
		reply_now(fuse, control_owns(parent) ? -EPERM : -ENOTDIR);
		return;
	}
	request = request_new(fuse);
	request->file = *file;
	if (request_set_name(&request->name, name))
		request_offload(request, create_run, create_finish);
	else
		request_reply(request, -ENAMETOOLONG);
}

static void hand_over_close(void *opaque)
{
	request_offload(opaque, close_run, request_reply_result);
}

/* Nobody waits for the result; handle_close() has logged an error. */
void op_release(fuse_req_t fuse, fuse_ino_t ino, struct fuse_file_info *file)
{
	struct request *request;

	if (control_owns(ino)) {
		control_op_release(fuse, file);
		return;
	}
	if (!handle_of(file)) {
		reply_now(fuse, 0);
		return;
	}
	request = request_new(fuse);
	request->handle = handle_of(file);
	handle_begin_close(request->session, request->handle, hand_over_close, request);
}
