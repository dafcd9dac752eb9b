/* The reply that introduces a disk to the kernel. */
#include "entry.h"

#include "attributes.h"

void entry_prepare(struct request *request)
{
	request->error = attributes_of_node(request->session, request->node, &request->attributes);
}

/* A fork goes, and another may get its name, by a command that the kernel does not see. */
static double name_seconds(const struct request *request)
{
	struct disk *disk = node_disk(request->session->nodes, request->node);
	bool fork = disk_is_fork(disk);

	disk_unref(disk);
	return fork ? 0 : ATTRIBUTES_SECONDS;
}

static int send_entry(struct request *request, const struct handle *handle)
{
	struct fuse_entry_param entry = {
		.ino = node_ino(request->node),
		.attr = request->attributes,
		.attr_timeout = ATTRIBUTES_SECONDS,
		.entry_timeout = name_seconds(request),
	};

	if (!handle)
		return fuse_reply_entry(request->fuse, &entry);
	request->file.fh = (uint64_t)(uintptr_t)handle;
	return fuse_reply_create(request->fuse, &entry, &request->file);
}

static void release_run(struct request *request)
{
	handle_close(request->session, request->handle);
}

/* The lookup is counted before the reply: a forget could overtake it. A caller
 * that is gone (ENOENT) never learns of the entry, nor of the handle. */
void entry_reply(struct request *request, struct handle *handle)
{
	struct node_table *nodes = request->session->nodes;

	if (request->error) {
		request_reply(request, request->error);
		return;
	}
	node_add_lookup(nodes, request->node);
	if (send_entry(request, handle) == 0) {
		request_free(request);
		return;
	}
	node_forget(nodes, node_ino(request->node), 1);
	if (handle)
		request_offload(request, release_run, request_free);
	else
		request_free(request);
}
