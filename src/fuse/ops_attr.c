/* Attributes: getattr, setattr, statfs, access.
 *
 * Setting the size is the one change that a file takes. It goes
 *
 *     prepare (background) -> DISK_RESIZE -> finish (background) -> reply
 *
 * where prepare decides, and opens the disk when the caller has no handle for
 * writing; finish closes it again and reads the attributes for the reply.
 *
 * Size 0 is refused for a disk that has one: it is what `dd of=web1.img`
 * without conv=notrunc and `> web1.img` ask for, by O_TRUNC, before they write,
 * and nobody who types that means to lose the disk. Any other size below the
 * present one is taken at its word, unless somebody else has the disk open. */
#include "ops.h"

#include <errno.h>
#include <unistd.h>

#include "attributes.h"
#include "core/error.h"
#include "fuse/control/ops.h"
#include "request.h"
#include "refusal.h"

#define MODE_BITS 07777

/* How long attributes of an open disk, or of the top directory, are waited for. */
#define PATIENCE_NS (20 * UINT64_C(1000000))

static void reply_attributes(struct request *request)
{
	if (request->error) {
		request_reply(request, request->error);
		return;
	}
	fuse_reply_attr(request->fuse, &request->attributes, ATTRIBUTES_SECONDS);
	request_free(request);
}

static void getattr_run(struct request *request)
{
	struct session *session = request->session;

	if (request->ino == FUSE_ROOT_ID)
		request->error = attributes_of_root(session, &request->attributes);
	else
		request->error = attributes_of_node(session, request->node, &request->attributes);
}

/* With the node pinned; a request without one, but for the root, is answered. */
static struct request *new_for_node(fuse_req_t fuse, fuse_ino_t ino)
{
	struct request *request = request_new(fuse);

	request->ino = ino;
	if (ino == FUSE_ROOT_ID)
		return request;
	request->node = node_get(request->session->nodes, ino);
	if (request->node)
		return request;
	request_reply(request, -ESTALE);
	return NULL;
}

static bool recall(struct request *request, struct stat *st)
{
	return request->node ? attributes_recall(request->session, request->node, st)
			     : attributes_recall_root(request->session, st);
}

static void reply_from_memory(struct request *request)
{
	struct stat st;

	if (!request->answered && recall(request, &st)) {
		fuse_reply_attr(request->fuse, &st, ATTRIBUTES_SECONDS);
		request->answered = true;
	}
}

static void patience_ended(struct loop_timer *timer)
{
	reply_from_memory(container_of(timer, struct request, patience));
}

static void getattr_looked(struct request *request)
{
	loop_timer_cancel(&request->patience);
	if (request->answered)
		request_free(request);
	else
		reply_attributes(request);
}

static bool is_looked_at(struct request *request)
{
	struct disk *disk = request->node ? node_disk(request->session->nodes, request->node) : NULL;
	bool looked_at = disk ? disk_is_looked_at(disk) : disk_pool_is_looked_at(request->session->pool);

	disk_unref(disk);
	return looked_at;
}

/* The kernel asks while it reads through the page cache, and on the way to the control
 * tree, so an answer must not wait for a store that hangs: it is then what is in memory,
 * at once if somebody looks already. */
static void getattr_with_patience(struct request *request)
{
	if (is_looked_at(request))
		reply_from_memory(request);
	if (request->answered) {
		request_free(request);
		return;
	}
	loop_timer_init(&request->patience, patience_ended);
	loop_timer_set(request->channel->loop, &request->patience, loop_now_ns() + PATIENCE_NS);
	request_offload(request, getattr_run, getattr_looked);
}

void op_getattr(fuse_req_t fuse, fuse_ino_t ino, struct fuse_file_info *file)
{
	struct request *request;

	(void)file;
	if (control_owns(ino)) {
		control_op_getattr(fuse, ino);
		return;
	}
	request = new_for_node(fuse, ino);
	if (!request)
		return;
	if (!request->node || node_is_open(request->session->nodes, request->node))
		getattr_with_patience(request);
	else
		request_offload(request, getattr_run, reply_attributes);
}

static int check_owner_and_mode(const struct stat *wish, int to_set, const struct stat *shown)
{
	if ((to_set & FUSE_SET_ATTR_MODE) && (wish->st_mode & MODE_BITS) != (shown->st_mode & MODE_BITS))
		return -EPERM;
	if ((to_set & FUSE_SET_ATTR_UID) && wish->st_uid != shown->st_uid)
		return -EPERM;
	if ((to_set & FUSE_SET_ATTR_GID) && wish->st_gid != shown->st_gid)
		return -EPERM;
	return 0;
}

static int refuse(int errnum, const char *sentence, const struct disk *disk)
{
	g_autoptr(GError) error = NULL;

	error_set(&error, errnum, "%s: %s", disk_name(disk), sentence);
	return refusal_log(error);
}

/* The disk is open, once by this request or its handle. */
static int check_size(struct request *request, off_t from, off_t to)
{
	struct disk *disk = request->handle->disk;

	if (to == 0 && from > 0)
		return refuse(EPERM, "not truncated to nothing; write with conv=notrunc, or remove the disk", disk);
	if (to < from)
		handle_await_closes(request->session, disk, request->last_close);
	if (to < from && disk_open_count(disk) > 1)
		return refuse(EBUSY, "not made smaller while open elsewhere", disk);
	return 0;
}

static int open_for_resize(struct request *request)
{
	struct handle *given = request->has_file ? handle_of(&request->file) : NULL;
	int result;

	if (given && given->write) {
		request->handle = given;
		return 0;
	}
	result = handle_open(request->session, request->node, true, &request->handle, NULL);
	request->opened = result == 0;
	return result;
}

/* A disk that this request opened is closed in every case. */
static void close_after_resize(struct request *request)
{
	int result = 0;

	if (request->opened)
		result = handle_close(request->session, request->handle);
	request->opened = false;
	if (request->error == 0)
		request->error = result;
}

static void prepare_resize(struct request *request, off_t from)
{
	request->error = open_for_resize(request);
	if (request->error == 0)
		request->error = check_size(request, from, request->position);
	if (request->error != 0)
		close_after_resize(request);
	request->resize = request->error == 0;
}

/* ATTRIBUTES holds the wish at first, then what is. */
static void setattr_prepare(struct request *request)
{
	struct stat wish = request->attributes;

	getattr_run(request);
	if (request->error == 0)
		request->error = check_owner_and_mode(&wish, request->to_set, &request->attributes);
	if (request->error == 0 && (request->to_set & FUSE_SET_ATTR_SIZE) &&
	    request->position != request->attributes.st_size)
		prepare_resize(request, request->attributes.st_size);
}

static void setattr_finish(struct request *request)
{
	close_after_resize(request);
	if (request->error == 0)
		getattr_run(request);
}

static void resize_done(struct disk_io *io, int64_t result)
{
	struct request *request = container_of(io, struct request, io);

	request->error = (int)MIN(result, 0);
	request_offload(request, setattr_finish, reply_attributes);
}

static void setattr_prepared(struct request *request)
{
	if (request->resize)
		request_submit(request, request->handle->disk, DISK_RESIZE, 0, (uint64_t)request->position,
			       resize_done);
	else
		reply_attributes(request);
}

/* Times are the image's own. Setting them is accepted and forgotten, so that
 * touch(1) and cp -p work. */
void op_setattr(fuse_req_t fuse, fuse_ino_t ino, struct stat *st, int to_set, struct fuse_file_info *file)
{
	struct request *request;

	if (control_owns(ino)) {
		control_op_setattr(fuse, ino, st, to_set);
		return;
	}
	request = new_for_node(fuse, ino);
	if (!request)
		return;
	if (to_set & FUSE_SET_ATTR_SIZE && (ino == FUSE_ROOT_ID || st->st_size < 0)) {
		request_reply(request, -EINVAL);
		return;
	}
	request->last_close = handle_closes_begun(request->session);
	request->to_set = to_set;
	request->attributes = *st;
	request->position = st->st_size;
	request->has_file = file != NULL;
	if (file)
		request->file = *file;
	request_offload(request, setattr_prepare, setattr_prepared);
}

static fsblkcnt_t scale_blocks(fsblkcnt_t blocks, unsigned long from)
{
	return (fsblkcnt_t)((unsigned __int128)blocks * from / BLOCK_SIZE);
}

/* In our block size: a loop device takes its discard granularity from it. */
static void statfs_run(struct request *request)
{
	struct statvfs *st = &request->file_system;
	unsigned long unit;

	request->error = disk_pool_statvfs(request->session->pool, st);
	if (request->error != 0)
		return;
	unit = st->f_frsize ? st->f_frsize : st->f_bsize;
	st->f_blocks = scale_blocks(st->f_blocks, unit);
	st->f_bfree = scale_blocks(st->f_bfree, unit);
	st->f_bavail = scale_blocks(st->f_bavail, unit);
	st->f_bsize = BLOCK_SIZE;
	st->f_frsize = BLOCK_SIZE;
}

static void statfs_finish(struct request *request)
{
	if (request->error) {
		request_reply(request, request->error);
		return;
	}
	fuse_reply_statfs(request->fuse, &request->file_system);
	request_free(request);
}

void op_statfs(fuse_req_t fuse, fuse_ino_t ino)
{
	(void)ino;
	request_offload(request_new(fuse), statfs_run, statfs_finish);
}

/* Asked only without default_permissions, when the mount is its owner's and
 * root's alone; so the bits do not matter, only what can be done at all. */
void op_access(fuse_req_t fuse, fuse_ino_t ino, int mask)
{
	struct session *session = session_of(fuse);
	struct node *node;
	struct disk *disk;
	int result = 0;

	if (control_owns(ino)) {
		control_op_access(fuse, ino, mask);
		return;
	}
	if (ino == FUSE_ROOT_ID) {
		reply_now(fuse, 0);
		return;
	}
	node = node_get(session->nodes, ino);
	if (!node) {
		reply_now(fuse, -ESTALE);
		return;
	}
	disk = node_disk(session->nodes, node);
	if (mask & X_OK)
		result = -EACCES;
	else if ((mask & W_OK) && !disk_is_writable(disk))
		result = -EROFS;
	disk_unref(disk);
	node_put(session->nodes, node);
	reply_now(fuse, result);
}
