/* Requests about the control tree.
 *
 * An open makes the file's whole content, on a background thread as names and
 * headers are looked at for it; reads are served from that, so that they fit
 * together at any offset. A file that is read on has no content then: a read behind
 * the end of what there is gets what has come since, in its place. Nothing is held
 * of a disk meanwhile, but by the pause that a file was made to hold (open_file.c).
 * The size shown
 * says nothing, as in procfs, so the kernel must not cut reads there: direct I/O.
 *
 * A write is one command, whatever its offset. It is done on a thread of its
 * own, as it may take as long as a drain does, and the background threads have
 * the mount to serve meanwhile. A signal to the writer reaches us as the
 * kernel's FUSE_INTERRUPT, which libfuse notes in the request; whatever takes
 * long asks for it, and gives up when the mount ends too.
 *
 * The kernel keeps no entry and no attributes: a name may mean another disk
 * the next time. */
#include "ops.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "fuse/request.h"
#include "open_file.h"

static void lookup_run(struct request *request)
{
	struct session *session = request->session;

	request->error = control_find(session, request->ino, request->name, &request->ino);
	if (request->error == 0)
		request->error = control_get_attributes(session, request->ino, &request->attributes);
}

static void lookup_finish(struct request *request)
{
	struct fuse_entry_param entry = {.ino = request->ino, .attr = request->attributes};

	if (request->error) {
		request_reply(request, request->error);
		return;
	}
	fuse_reply_entry(request->fuse, &entry);
	request_free(request);
}

void control_op_lookup(fuse_req_t fuse, fuse_ino_t parent, const char *name)
{
	struct request *request = request_new(fuse);

	request->ino = parent;
	if (request_set_name(&request->name, name))
		request_offload(request, lookup_run, lookup_finish);
	else
		request_reply(request, -ENAMETOOLONG);
}

void control_op_getattr(fuse_req_t fuse, fuse_ino_t ino)
{
	struct stat st;
	int result = control_get_attributes(session_of(fuse), ino, &st);

	if (result == 0)
		fuse_reply_attr(fuse, &st, 0);
	else
		reply_now(fuse, result);
}

void control_op_access(fuse_req_t fuse, fuse_ino_t ino, int mask)
{
	bool refused = ((mask & W_OK) && !control_is_writable(ino)) || ((mask & X_OK) && !control_is_directory(ino));

	reply_now(fuse, refused ? -EACCES : 0);
}

/* O_TRUNC, which is how a shell opens what it writes to: there is nothing to
 * cut off. Sizes, owners and modes are what they are. */
void control_op_setattr(fuse_req_t fuse, fuse_ino_t ino, const struct stat *wish, int to_set)
{
	if (!(to_set & FUSE_SET_ATTR_SIZE) || (to_set & (FUSE_SET_ATTR_MODE | FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID)))
		reply_now(fuse, -EPERM);
	else if (!control_is_writable(ino))
		reply_now(fuse, -EACCES);
	else if (wish->st_size != 0)
		reply_now(fuse, -EINVAL);
	else
		control_op_getattr(fuse, ino);
}

static void open_run(struct request *request)
{
	GString *text = g_string_new(NULL);

	if ((request->file.flags & O_ACCMODE) != O_WRONLY && !control_is_read_on(request->ino))
		request->error = control_make(request->session, request->ino, text);
	if (request->error == 0)
		request->control = control_file_new(request->session, text);
	else
		g_string_free(text, TRUE);
}

/* When the caller is gone (ENOENT) no release will come. */
static void open_finish(struct request *request)
{
	if (request->error) {
		request_reply(request, request->error);
		return;
	}
	if (reply_open_direct(request->fuse, request->control) != 0)
		control_file_free(request->session, request->control);
	request_free(request);
}

/* The modes alone do not keep root out, nor the owner of a mount that is
 * without default_permissions. */
void control_op_open(fuse_req_t fuse, fuse_ino_t ino, struct fuse_file_info *file)
{
	struct request *request;

	if ((file->flags & O_ACCMODE) != O_RDONLY && !control_is_writable(ino)) {
		reply_now(fuse, -EACCES);
		return;
	}
	request = request_new(fuse);
	request->ino = ino;
	request->file = *file;
	request_offload(request, open_run, open_finish);
}

/* As soon as the kernel has the answer, and before the reply's call returns,
 * another loop may get the release. */
void control_op_read(fuse_req_t fuse, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *file)
{
	struct control_file *open = control_file_of(file);
	size_t from = 0, length = 0;
	g_autoptr(GBytes) text = open ? control_file_text(session_of(fuse), open, ino, (uint64_t)MAX(offset, 0), &from)
				      : g_bytes_new(NULL, 0);
	const char *data;

	if (!text) {
		reply_now(fuse, -ENODEV);
		return;
	}
	data = g_bytes_get_data(text, &length);
	fuse_reply_buf(fuse, data + from, MIN(size, length - from));
}

void control_op_release(fuse_req_t fuse, struct fuse_file_info *file)
{
	if (control_file_of(file))
		control_file_free(session_of(fuse), control_file_of(file));
	reply_now(fuse, 0);
}

static bool go_on(void *opaque, uint64_t dirty_bytes)
{
	(void)dirty_bytes;
	return request_goes_on(opaque);
}

static void write_run(struct request *request)
{
	struct disk_pause *pause = NULL;
	struct control_input input = {
		.data = request->io.buffer,
		.size = request->io.length,
		.next = request->control_next,
		.channel = request->channel,
		.thread = fuse_req_ctx(request->fuse)->pid,
		.go_on = go_on,
		.opaque = request,
		.pause = &pause,
	};

	request->error = control_write(request->session, request->ino, &input);
	if (pause)
		request->error = control_file_keep(request->session, request->control, pause);
	if (request->error != 0 && request->given_up)
		request->error = REPLY_INTERRUPTED;
}

static void write_finish(struct request *request)
{
	if (request->error) {
		request_reply(request, request->error);
		return;
	}
	fuse_reply_write(request->fuse, request->io.length);
	request_free(request);
}

void control_op_write(fuse_req_t fuse, fuse_ino_t ino, const char *data, size_t size, const struct fuse_file_info *file)
{
	struct request *request = request_new(fuse);

	request->ino = ino;
	request->control = control_file_of(file);
	request->control_next = control_file_next(request->session, request->control);
	request->io.buffer = request_keep_payload(request, data, size);
	request->io.length = size;
	if (!request->io.buffer) {
		request_reply(request, -ENOMEM);
		return;
	}
	request_start_thread(request, write_run, write_finish);
}
