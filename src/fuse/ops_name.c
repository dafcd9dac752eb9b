/* Names: lookup, forget, unlink, rename. */
#include "ops.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/error.h"
#include "disk/pause.h"
#include "entry.h"
#include "fuse/control/ops.h"
#include "refusal.h"
#include "request.h"
#include "shown.h"

#ifndef RENAME_NOREPLACE
#define RENAME_NOREPLACE 1
#endif

static void lookup_run(struct request *request)
{
	request->error = shown_find(request->session, request->name, &request->node);
	if (request->error == 0)
		entry_prepare(request);
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

/* Closes that the caller has seen end count, also where this overtakes them. A disk that is
 * paused is not removed, and its closes may wait for the end of that. */
static void await_closes(struct request *request, const char *name)
{
	struct disk *disk = disk_pool_lookup(request->session->pool, name, NULL);

	if (disk && !disk_is_paused(disk, NULL))
		handle_await_closes(request->session, disk, request->last_close);
	disk_unref(disk);
}

static void unlink_run(struct request *request)
{
	await_closes(request, request->name);
	request->error = shown_remove(request->session, request->name);
}

void op_unlink(fuse_req_t fuse, fuse_ino_t parent, const char *name)
{
	struct request *request = new_for_name(fuse, parent, name);

	if (request)
		request_offload(request, unlink_run, request_reply_result);
}

static void rename_run(struct request *request)
{
	await_closes(request, request->name);
	await_closes(request, request->new_name);
	request->error =
		shown_rename(request->session, request->name, request->new_name, !(request->flags & RENAME_NOREPLACE));
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

/* ---- What is no disk ------------------------------------------------------------- */

static void refuse_new(struct request *request, const char *why)
{
	g_autoptr(GError) error = NULL;

	error_set(&error, EPERM, "%s: not made: %s", request->name, why);
	request->error = refusal_log(error);
}

static void refuse_directory(struct request *request)
{
	refuse_new(request, "a mount shows disks, and no directories; those of the pool are not seen in it");
}

static void refuse_link(struct request *request)
{
	refuse_new(request,
		   "a disk has one name in a mount, and links have none; leafctl fork makes another disk of it");
}

static void refuse_special(struct request *request)
{
	refuse_new(request, "a mount shows disks, and no devices or pipes");
}

/* A pool holds disks and nothing else, and the control tree is what it is.
 * Without these the kernel would say "function not implemented". */
static void refuse(fuse_req_t fuse, fuse_ino_t parent, const char *name, void (*why)(struct request *request))
{
	struct request *request = new_for_name(fuse, parent, name);

	if (request)
		request_offload(request, why, request_reply_result);
}

void op_rmdir(fuse_req_t fuse, fuse_ino_t parent, const char *name)
{
	(void)parent;
	(void)name;
	reply_now(fuse, -EPERM);
}

void op_mkdir(fuse_req_t fuse, fuse_ino_t parent, const char *name, mode_t mode)
{
	(void)mode;
	refuse(fuse, parent, name, refuse_directory);
}

void op_mknod(fuse_req_t fuse, fuse_ino_t parent, const char *name, mode_t mode, dev_t device)
{
	(void)mode;
	(void)device;
	refuse(fuse, parent, name, refuse_special);
}

void op_symlink(fuse_req_t fuse, const char *target, fuse_ino_t parent, const char *name)
{
	(void)target;
	refuse(fuse, parent, name, refuse_link);
}

void op_link(fuse_req_t fuse, fuse_ino_t ino, fuse_ino_t new_parent, const char *new_name)
{
	(void)ino;
	refuse(fuse, new_parent, new_name, refuse_link);
}
