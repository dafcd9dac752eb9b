/* Names: lookup, forget, unlink, rename. */
#include "ops.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/error.h"
#include "entry.h"
#include "ops_control.h"
#include "request.h"

#ifndef RENAME_NOREPLACE
#define RENAME_NOREPLACE 1
#endif

static void lookup_run(struct request *request)
{
	struct session *session = request->session;
	struct disk *disk;

	g_rw_lock_reader_lock(&session->names_lock);
	disk = disk_pool_lookup(session->pool, request->name);
	request->error = entry_pin(request, disk) ? 0 : -ENOENT;
	g_rw_lock_reader_unlock(&session->names_lock);
	if (request->error == 0)
		entry_prepare(request);
	disk_unref(disk);
}

static void lookup_finish(struct request *request)
{
	entry_reply(request, NULL);
}

static bool is_control_tree(fuse_ino_t parent, const char *name)
{
	return control_owns(parent) || (parent == FUSE_ROOT_ID && strcmp(name, CONTROL_NAME) == 0);
}

/* A request about a disk's NAME in the top directory; anything else is
 * answered here: names of the control tree stay as they are. */
static struct request *new_for_name(fuse_req_t fuse, fuse_ino_t parent, const char *name)
{
	struct request *request;

	if (parent != FUSE_ROOT_ID || is_control_tree(parent, name)) {
		reply_now(fuse, is_control_tree(parent, name) ? -EPERM : -ENOTDIR);
		return NULL;
	}
	request = request_new(fuse);
	request->last_close = handle_closes_begun(request->session);
	if (request_set_name(&request->name, name))
		return request;
	request_reply(request, -ENAMETOOLONG);
	return NULL;
}

void op_lookup(fuse_req_t fuse, fuse_ino_t parent, const char *name)
{
	struct request *request;

	if (is_control_tree(parent, name)) {
		control_op_lookup(fuse, parent, name);
		return;
	}
	request = new_for_name(fuse, parent, name);
	if (request)
		request_offload(request, lookup_run, lookup_finish);
}

void op_forget(fuse_req_t fuse, fuse_ino_t ino, uint64_t count)
{
	node_forget(session_of(fuse)->nodes, ino, count);
	fuse_reply_none(fuse);
}

void op_forget_multi(fuse_req_t fuse, size_t count, struct fuse_forget_data *forgets)
{
	for (size_t i = 0; i < count; i++)
		node_forget(session_of(fuse)->nodes, forgets[i].ino, forgets[i].nlookup);
	fuse_reply_none(fuse);
}

static int remove_disk(struct session *session, struct disk *disk, const char *name)
{
	g_autoptr(GError) error = NULL;
	bool removed;

	g_rw_lock_writer_lock(&session->names_lock);
	removed = disk_pool_remove(session->pool, name, &error);
	if (removed)
		node_mark_gone(session->nodes, disk);
	g_rw_lock_writer_unlock(&session->names_lock);
	return removed ? 0 : session_log_refusal(error);
}

static void unlink_run(struct request *request)
{
	struct session *session = request->session;
	struct disk *disk = disk_pool_lookup(session->pool, request->name);

	handle_await_closes(session, disk, request->last_close);
	request->error = disk ? remove_disk(session, disk, request->name) : -ENOENT;
	disk_unref(disk);
}

void op_unlink(fuse_req_t fuse, fuse_ino_t parent, const char *name)
{
	struct request *request = new_for_name(fuse, parent, name);

	if (request)
		request_offload(request, unlink_run, request_reply_result);
}

/* The kernel goes on using the old number for the new name, so that number
 * must mean the disk that the pool now has there. */
static void rename_nodes(struct session *session, struct disk *from, struct disk *replaced, const char *new_name)
{
	struct disk *to = disk_pool_lookup(session->pool, new_name);

	if (replaced && replaced != to)
		node_mark_gone(session->nodes, replaced);
	if (to)
		node_move(session->nodes, from, to);
	disk_unref(to);
}

static int rename_disk(struct request *request, struct disk *from, struct disk *replaced)
{
	struct session *session = request->session;
	g_autoptr(GError) error = NULL;
	bool renamed;

	g_rw_lock_writer_lock(&session->names_lock);
	renamed = disk_pool_rename(session->pool, request->name, request->new_name,
				   !(request->flags & RENAME_NOREPLACE), &error);
	if (renamed)
		rename_nodes(session, from, replaced, request->new_name);
	g_rw_lock_writer_unlock(&session->names_lock);
	return renamed ? 0 : session_log_refusal(error);
}

static void rename_run(struct request *request)
{
	struct session *session = request->session;
	struct disk *from = disk_pool_lookup(session->pool, request->name);
	struct disk *replaced = disk_pool_lookup(session->pool, request->new_name);

	handle_await_closes(session, from, request->last_close);
	handle_await_closes(session, replaced, request->last_close);
	request->error = from ? rename_disk(request, from, replaced) : -ENOENT;
	disk_unref(from);
	disk_unref(replaced);
}

void op_rename(fuse_req_t fuse, fuse_ino_t parent, const char *name, fuse_ino_t new_parent, const char *new_name,
	       unsigned int flags)
{
	struct request *request;

	if (flags & ~(unsigned)RENAME_NOREPLACE) {
		reply_now(fuse, -EINVAL);
		return;
	}
	request = new_for_name(fuse, parent, name);
	if (!request)
		return;
	request->flags = flags;
	if (is_control_tree(new_parent, new_name))
		request_reply(request, -EPERM);
	else if (new_parent != FUSE_ROOT_ID)
		request_reply(request, -ENOTDIR);
	else if (!request_set_name(&request->new_name, new_name))
		request_reply(request, -ENAMETOOLONG);
	else
		request_offload(request, rename_run, request_reply_result);
}

/* A pool holds disks and nothing else, and the control tree is what it is.
 * Without these the kernel would say "function not implemented". */
void op_rmdir(fuse_req_t fuse, fuse_ino_t parent, const char *name)
{
	op_mkdir(fuse, parent, name, 0);
}

void op_mkdir(fuse_req_t fuse, fuse_ino_t parent, const char *name, mode_t mode)
{
	(void)parent;
	(void)name;
	(void)mode;
	reply_now(fuse, -EPERM);
}

void op_mknod(fuse_req_t fuse, fuse_ino_t parent, const char *name, mode_t mode, dev_t device)
{
	(void)device;
	op_mkdir(fuse, parent, name, mode);
}

void op_symlink(fuse_req_t fuse, const char *target, fuse_ino_t parent, const char *name)
{
	(void)target;
	op_mkdir(fuse, parent, name, 0);
}

void op_link(fuse_req_t fuse, fuse_ino_t ino, fuse_ino_t new_parent, const char *new_name)
{
	(void)ino;
	op_mkdir(fuse, new_parent, new_name, 0);
}
