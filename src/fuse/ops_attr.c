/* Attributes: getattr, setattr, statfs, access.
 *
 * Setting the size is the one change that a file takes, and it may only become larger
 * (resize.c). */
#include "ops.h"

#include <errno.h>
#include <unistd.h>

#include "attributes.h"
#include "core/error.h"
#include "disk/pause.h"
#include "fuse/control/ops.h"
#include "request.h"
#include "refusal.h"
#include "resize.h"

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

/* Owner and modes are the mount's. What would let in more than these do, as cp -a, tar and rsync set it
 * on what they have made, is accepted and forgotten; what would keep somebody out is refused. */
static bool keeps_owner_and_mode(const struct stat *wish, int to_set, const struct stat *shown)
{
	return !((to_set & FUSE_SET_ATTR_MODE) && (shown->st_mode & MODE_BITS & ~wish->st_mode)) &&
	       !((to_set & FUSE_SET_ATTR_UID) && wish->st_uid != shown->st_uid) &&
	       !((to_set & FUSE_SET_ATTR_GID) && wish->st_gid != shown->st_gid);
}

/* 0, or the errno of the refusal. */
static int check_owner_and_mode(struct request *request, const struct stat *wish)
{
	struct disk *disk = request->node ? node_disk(request->session->nodes, request->node) : NULL;
	const char *name = disk ? disk_name(disk) : request->session->options->mountpoint;
	g_autoptr(GError) error = NULL;

	if (!keeps_owner_and_mode(wish, request->to_set, &request->attributes))
		error_set(
			&error, EPERM,
			"%s: owner and mode stay as they are: those of all files are the mount's, by its options uid=, "
			"gid= and umask=",
			name);
	disk_unref(disk);
	if (!error)
		return 0;
	refusal_keep(request->session, request->node, error->message);
	return refusal_log(error);
}

static int refuse_shrink(struct request *request, off_t from)
{
	g_autoptr(GError) error = NULL;
	struct disk *disk = node_disk(request->session->nodes, request->node);
	g_autofree char *path = g_build_filename(request->session->options->mountpoint, disk_name(disk), NULL);
	g_autofree char *word = g_shell_quote(path);
	g_autofree char *advice = request->position
					  ? g_strdup_printf("make it smaller with: leafctl resize --shrink %s %jd",
							    word, (intmax_t)request->position)
					  : g_strdup("remove it before another takes its name");

	error_set(&error, EPERM,
		  "%s: not cut from %jd to %jd bytes, what lies past these would be lost; write into it with dd "
		  "conv=notrunc, or %s",
		  disk_name(disk), (intmax_t)from, (intmax_t)request->position, advice);
	disk_unref(disk);
	refusal_keep(request->session, request->node, error->message);
	return refusal_log(error);
}

/* 0, or the errno of the refusal: nobody could interrupt it while it waits. */
static int check_not_paused(struct request *request)
{
	g_autoptr(GError) error = NULL;
	struct disk *disk = node_disk(request->session->nodes, request->node);
	bool paused = disk_is_paused(disk, &error);

	disk_unref(disk);
	if (!paused)
		return 0;
	refusal_keep(request->session, request->node, error->message);
	return refusal_log(error);
}

/* The caller's handle, or one of the request's own. */
static int open_for_resize(struct request *request)
{
	struct handle *given = request->has_file ? handle_of(&request->file) : NULL;

	request->opened = !given || !given->write;
	if (!request->opened)
		request->handle = given;
	return request->opened ? handle_open(request->session, request->node, true, &request->handle, NULL) : 0;
}

static int resize(struct request *request, off_t from)
{
	int result = request->position < from ? refuse_shrink(request, from) : check_not_paused(request), closed = 0;

	if (result == 0)
		result = open_for_resize(request);
	if (result < 0)
		return result;
	result = resize_open(request->channel, request->handle->disk, (uint64_t)request->position);
	if (request->opened)
		closed = handle_close(request->session, request->handle);
	return result ? result : closed;
}

/* ATTRIBUTES holds the wish at first, then what is. */
static void setattr_run(struct request *request)
{
	struct stat wish = request->attributes;

	getattr_run(request);
	if (request->error == 0)
		request->error = check_owner_and_mode(request, &wish);
	if (request->error != 0 || !(request->to_set & FUSE_SET_ATTR_SIZE) ||
	    request->position == request->attributes.st_size)
		return;
	request->error = resize(request, request->attributes.st_size);
	if (request->error == 0)
		getattr_run(request);
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
	request->to_set = to_set;
	request->attributes = *st;
	request->position = st->st_size;
	request->has_file = file != NULL;
	if (file)
		request->file = *file;
	request_offload(request, setattr_run, reply_attributes);
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
